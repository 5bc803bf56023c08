"""What the commands end with; not a subcommand. docs/reference/exit-codes.md is made of this."""

from __future__ import annotations

__all__ = ["EXIT_CODES"]

EXIT_CODES = {
    0: ("the work is done", "nothing"),
    1: (
        "the work failed: a file cannot be read or written, weights do not fit, a run is damaged, "
        "memory or disk space is too small, or natstats has a defect (the message then says so)",
        "read the message; `--debug` shows where it came from",
    ),
    2: (
        "the command makes no sense: an unknown command, option or name, a value out of range, an "
        "output path that is taken",
        "change the command",
    ),
    130: (
        "interrupted with Ctrl-C",
        "give the same command again: it continues from what was saved, and says where that is",
    ),
    143: (
        "ended by SIGTERM, as job schedulers and `timeout` send it",
        "as after Ctrl-C",
    ),
}
"""For each code: when it comes, and what to do."""
