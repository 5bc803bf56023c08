"""What the commands end with; not a subcommand. docs/reference/exit-codes.md is made of this."""

from __future__ import annotations

__all__ = ["EXIT_CODES"]

EXIT_CODES = {
    0: ("the work is done", "nothing"),
    1: (
        "the work could not be done: a file that cannot be read or written, weights that do not "
        "fit, a damaged run, too little memory or room on the disk, or a defect of natstats, which "
        "says so",
        "read the sentence; `--debug` shows where it came from",
    ),
    2: (
        "what was asked for makes no sense: an unknown command, option or name, a value out of "
        "range, a place that is taken",
        "change the command",
    ),
    130: (
        "interrupted with Ctrl-C",
        "give the same command again: it goes on from what was saved, and says where that is",
    ),
    143: (
        "ended politely (SIGTERM), as job schedulers and `timeout` do",
        "as after Ctrl-C",
    ),
}
"""Code, when it comes, and what to do."""
