"""The errors that natstats raises on purpose.

Everything derives from :class:`NatstatsError`; the command line turns one into a sentence and an
exit code (2 for a :class:`UsageError`, 1 otherwise), and any other exception is a bug.
"""

from __future__ import annotations

import errno

__all__ = ["NO_ROOM", "Interrupted", "NatstatsError", "UsageError"]

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Numbers of the errors of a system that has no room for a file."""

_LONGEST = 2000
"""Characters of a sentence: what came may be a text or a list of any length."""


class NatstatsError(Exception):
    """The work could not be done: an unreadable file, weights that do not fit, a broken run.

    Args:
        sentence: what was expected and what came; of a very long one the middle is left out.
        lines: a list below it, line by line: the names in a text may hold line breaks of their own.
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

    Also a :class:`ValueError`, so code that calls the library can catch it as it always did.
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
