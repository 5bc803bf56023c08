"""The errors that natstats raises on purpose.

Everything derives from :class:`NatstatsError`; the command line turns one into a sentence and an
exit code (2 for a :class:`UsageError`, 1 otherwise), and any other exception is a bug.
"""

from __future__ import annotations

import errno

__all__ = ["NO_ROOM", "Interrupted", "NatstatsError", "UsageError"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of the system that mean that there is no room for a file."""

_LONGEST = 2000
"""Most characters of a sentence: a value that it shows may be of any length."""


class NatstatsError(Exception):
    """The work could not be done: an unreadable file, weights that do not fit, a broken run.

    Args:
        sentence: what was expected and what was given; the middle of a very long one is left out.
        lines: lines of a list below it, one argument each, as names in them may hold line breaks.
    """

    exit_code = 1

    def __init__(self, sentence: object = "", *lines: str) -> None:
        if isinstance(sentence, str) and len(sentence) > _LONGEST:
            half = _LONGEST // 2
            sentence = f"{sentence[:half]} ... {sentence[-half:]}"
        super().__init__(sentence, *lines)

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(NatstatsError, ValueError):
    """What was asked for makes no sense: an argument is outside what it can be.

    Also a :class:`ValueError`, so callers can catch it as any other wrong value.
    """

    exit_code = 2


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or a polite kill, taken at a moment when nothing is lost.

    Args:
        sentence: what was kept, and how to go on.
        exit_code: what a shell expects of such an end: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, sentence: str = "", exit_code: int = 130) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
