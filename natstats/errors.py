"""The errors that natstats raises on purpose.

Everything derives from :class:`NatstatsError`; the command line turns one into a sentence and an
exit code (2 for a :class:`UsageError`, 1 otherwise), and any other exception is a bug.
"""

from __future__ import annotations

__all__ = ["NatstatsError", "UsageError"]


class NatstatsError(Exception):
    """The work could not be done: an unreadable file, weights that do not fit, a broken run.

    Args:
        sentence: what was expected and what came.
        lines: a list below it, line by line: the names in a text may hold line breaks of their own.
    """

    exit_code = 1

    def __init__(self, sentence: object = "", *lines: str) -> None:
        super().__init__(sentence, *lines)

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class UsageError(NatstatsError, ValueError):
    """What was asked for makes no sense: an argument is outside what it can be.

    Also a :class:`ValueError`, so code that calls the library can catch it as it always did.
    """

    exit_code = 2
