"""The errors that natstats raises on purpose.

Everything derives from :class:`NatstatsError`; the command line turns one into a sentence and an
exit code (2 for a :class:`UsageError`, 1 otherwise), and any other exception is a bug.
"""

from __future__ import annotations

__all__ = ["NatstatsError", "UsageError"]


class NatstatsError(Exception):
    """The work could not be done: an unreadable file, weights that do not fit, a broken run."""

    exit_code = 1


class UsageError(NatstatsError, ValueError):
    """What was asked for makes no sense: an argument is outside what it can be.

    Also a :class:`ValueError`, so code that calls the library can catch it as it always did.
    """

    exit_code = 2
