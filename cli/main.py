"""The command group: finds subcommands without importing them all, and turns errors into words."""

from __future__ import annotations

import atexit
import errno
import gc
import importlib
import os
import re
import signal
import sys
from typing import Any

import click

from natstats._version import __version__
from natstats.errors import NO_ROOM, Interrupted, NatstatsError
from natstats.files import placed
from natstats.text import lines, printable

from .option_names import as_typed, of_parameter
from .views import width_of, wrapped

__all__ = ["main", "natstats"]

_NO_MEMORY = re.compile("allocate memory|out of memory", re.IGNORECASE)

_WORDS = "natstats.words"
"""Where the words behind the command are kept while it runs."""

_OF_FILES = (
    *NO_ROOM, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP,
    errno.ESTALE, errno.EIO, errno.EBUSY,
)  # fmt: skip
"""What a disk, or the name of a file, is to blame for."""

SECTIONS = {
    "Measure": ("demo", "measure", "explain", "images", "models"),
    "Go on": ("fit", "merge"),
    "Look": ("show", "report", "plot"),
    "Compare": ("compare", "law"),
    "Train": ("distill", "table"),
}
"""Commands by what they are for, in the order of help."""

COMMANDS = tuple(name for names in SECTIONS.values() for name in names)


class _Failure(click.ClickException):
    """An error that is shown as one sentence, with the exit code that it carries."""

    def __init__(self, exit_code: int, sentence: object = "", *below: object) -> None:
        super().__init__(lines([*_wrapped(printable(str(sentence))), *map(str, below)]))
        self.exit_code = exit_code


class LazyGroup(click.Group):
    """A group whose subcommands are files of this folder, imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the file of a subcommand and return its command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f".{cmd_name}", __package__)
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list for every section; what a command does is never cut."""
        widest = max(map(len, COMMANDS))
        for title, names in SECTIONS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None
                rows.append((name.ljust(widest), command.short_help or ""))
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Like click's, but an unknown command names the near ones."""
        from natstats import checks

        if args and not args[0].startswith("-"):
            checks.one_of("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Like click's; the words are kept for errors."""
        ctx.meta[_WORDS] = tuple(args)
        return super().parse_args(ctx, args)

    def _as_typed(self, ctx: click.Context, told: tuple[Any, ...]) -> tuple[Any, ...]:
        """An error that names an option as it is typed: --groups for the argument n_groups."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        if command is None or not told:
            return told
        return (as_typed(command, ctx.meta.get(_WORDS, ()), str(told[0])), *told[1:])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; an error becomes a sentence and an exit code unless --debug is on."""
        # A run is written whole or not at all: a polite kill cleans up as Ctrl-C does.
        before = signal.signal(signal.SIGTERM, _interrupt)
        placed.forget()
        try:
            return super().invoke(ctx)
        except NatstatsError as error:
            if _debug(ctx):
                raise
            raise _Failure(error.exit_code, *self._as_typed(ctx, error.args)) from error
        except Interrupted as error:
            if _debug(ctx):
                raise
            raise _Failure(error.exit_code, str(error) or _interruption()) from None
        except KeyboardInterrupt:
            if _debug(ctx):
                raise
            raise _Failure(130, _interruption()) from None
        except click.BadParameter as error:
            raise _Failure(error.exit_code, *self._as_typed(ctx, (of_parameter(error),))) from None
        except click.ClickException as error:
            # Names of files come from patterns, too.
            error.message = "\n".join(_wrapped(printable(error.message)))
            raise
        except (click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if _debug(ctx):
                raise
            if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
                raise _Failure(
                    1,
                    "memory: expected work that fits into it; there is not enough (fewer groups, "
                    "smaller batches or smaller images need less)",
                ) from error
            if isinstance(error, OSError) and error.errno in _OF_FILES:
                raise _Failure(1, _of_files(error)) from error
            reason = " ".join(str(error).split())[:300]
            raise _Failure(
                1,
                f"unexpected {type(error).__name__}: {reason} (this is a defect of natstats; "
                "--debug shows where)",
            ) from error
        finally:
            signal.signal(signal.SIGTERM, before)


def _wrapped(message: str) -> list[str]:
    """The lines of an error that click puts its word in front of."""
    start = "Error: "
    first, *others = wrapped(f"{start}{message}", width_of(sys.stderr))
    return [first.removeprefix(start), *others]


def _of_files(error: OSError) -> str:
    """What a file system refused, in words."""
    if error.errno in NO_ROOM:
        return (
            f"disk: expected room for what is written; {error.strerror} (make some, and give the "
            "same command again)"
        )
    name = "" if error.filename is None else f": {str(error.filename)[:200]}"
    return f"files: expected what can be reached and used; {error.strerror}{name}"


def _interruption() -> str:
    """What an interruption left, in words."""
    paths = placed.in_place()
    if not paths:
        return "interrupted; nothing was written"
    listed = ", ".join(str(path) for path in paths[:3])
    more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
    are = "is" if len(paths) == 1 else "are"
    return f"interrupted; {listed}{more} {are} written and whole"


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(exit_code=128 + number)


def _debug(ctx: click.Context) -> bool:
    return bool(ctx.find_root().meta.get("natstats.debug"))


HELP_WIDTH = 100
"""Characters of a line of help, where the terminal has as many."""

HELP = """Measure the power spectra of network activations and test the depth law.

The power of natural images falls as 1/f^α. natstats measures α, with an interval, for
every layer of a network, and tests whether it grows linearly with depth.

\b
natstats demo                                 a network and photographs that ship with natstats
natstats measure resnet50 --images ~/photos   a network on photographs of yours
natstats show RUN --all                       the numbers of a run again
"""


@click.group(
    cls=LazyGroup,
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_WIDTH},
)
@click.version_option(__version__, prog_name="natstats")
def natstats() -> None:
    """Group of the subcommands."""


def main() -> None:
    """Entry point of the installed command."""
    if "WORLD_SIZE" in os.environ:
        # What torch warns of is the same in each process, and it tells of a lost one at length.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # Millions of objects need not be looked through for garbage when the process ends.
    atexit.register(gc.freeze)
    try:
        natstats(prog_name="natstats")
    except KeyboardInterrupt:  # in the midst of telling of an earlier one, or before the command
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        from . import output

        output.say("Error: interrupted", err=True)
        sys.exit(130)
