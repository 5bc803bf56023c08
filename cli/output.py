"""What the subcommands that make a run have in common: where it goes, progress, the summary."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from natstats.measurement.options import MeasureOptions
from natstats.numbers import counted
from natstats.text import printable

from . import options
from .views import View, path_text, show_command, width_of, wrapped

if TYPE_CHECKING:
    from natstats.distill.comparison.compare import MethodComparison
    from natstats.measurement.one_run import Progress
    from natstats.runs.run import Run

__all__ = [
    "command_line", "comparison", "json_text", "only_results", "place", "placed", "progress_bar",
    "report_target",
    "reserved", "result", "say", "say_lines", "show", "take_fit_options", "take_measure_options",
    "target", "tell",
]  # fmt: skip

SECONDS_BETWEEN_LINES = 10.0


def say(text: object = "", *, err: bool = False) -> None:
    """Print one line; whatever names are in it, it stays one and moves no cursor.

    All that the subcommands print goes through here or through :func:`say_lines`.
    """
    click.echo(printable(str(text)), err=err)


def tell(text: str, *, err: bool = False) -> None:
    """Print a sentence, in lines that fit the terminal; whole where there is none."""
    width = width_of(sys.stderr if err else sys.stdout)
    say_lines("\n".join(wrapped(printable(text), width)), err=err)


def place(named: str, path: Path, *, err: bool = False) -> None:
    """Print where something is, and where its page is; paths stay whole."""
    page = path / "report.html"
    facts = [f"{named}: {path_text(path)}"]
    if page.is_file():
        facts.append(f"Report: {path_text(page)}")
    for line in _beside(facts, width_of(sys.stderr if err else sys.stdout)):
        say(line, err=err)


def _beside(facts: Sequence[str], width: int | None) -> list[str]:
    """Facts in one line where it has room for them, else in a line each."""
    line = "   ".join(facts)
    return [line] if width is None or len(line) <= width else list(facts)


def say_lines(text: str, *, err: bool = False) -> None:
    """Print lines that natstats made; names in them were made printable where it made the lines."""
    click.echo("\n".join(map(printable, text.removesuffix("\n").split("\n"))), err=err)


def command_line() -> str:
    """The command as it can be typed again; bytes that are not UTF-8 are written as escapes."""
    command = shlex.join(["natstats", *sys.argv[1:]])
    return command.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def comparison(found: MethodComparison) -> None:
    """Print a comparison of distillation runs: table, sentences, notes."""
    _tell_table(found.table(width=View().width))
    say()
    for sentence in found.sentences():
        tell(sentence)
    for note in found.notes:
        tell(f"Note: {note}")


@contextmanager
def only_results() -> Iterator[None]:
    """What libraries and the network's own code print goes to standard error.

    Standard output is for results, which `--json` and pipes take from there.
    """
    with redirect_stdout(sys.stderr):
        yield


@contextmanager
def placed(
    out: Path | None,
    name: str,
    overwrite: bool,
    shard: str | None = None,
    quiet: bool = False,
    until: float | None = None,
    n_passes: int = 1,
) -> Iterator[tuple[Path, Progress | None]]:
    """Folder and progress of a measurement, for every process of those that share it.

    What several processes say beside their errors, the first one says.

    Args:
        out: the folder that was asked for; None for a free one.
        name: of a free one.
        overwrite: what is there may be replaced.
        shard: the share of the images that is measured.
        quiet: no progress is shown.
        until: the width of intervals that is asked for; a run of another one is gone on with.
        n_passes: how often the images are measured.
    """
    from natstats.files.paths import expanded
    from natstats.measurement.place import has_kept_state
    from natstats.processes.joining import joined

    with ExitStack() as stack:
        together = stack.enter_context(joined())
        path = None
        if together.is_first:
            kind = "run" if shard is None else "part"
            goes_on = out is not None and until is not None
            goes_on = goes_on and has_kept_state(expanded(out, "out"))
            path = stack.enter_context(reserved(out, name, overwrite or goes_on, kind))
        path = Path(together.share(None if path is None else str(path)))
        stack.enter_context(only_results())
        if together.is_first:
            within = f"in {n_passes} passes" if n_passes > 1 else ""
            yield path, stack.enter_context(progress_bar(quiet=quiet, within=within))
        else:
            yield path, None


@contextmanager
def reserved(out: Path | None, name: str, overwrite: bool, kind: str = "run") -> Iterator[Path]:
    """The folder of a run, claimed before the work; without `out` the first that is free.

    Unfinished work of the same command is taken up again.
    """
    from natstats.files.claims import claimed, claimed_free
    from natstats.files.paths import expanded

    if out is not None:
        path = expanded(out, "out")
        with claimed(path, overwrite, kind):
            yield path
        return
    with claimed_free(Path("runs") / name, _is_of_this_command) as path:
        yield path


def _is_of_this_command(state: Path) -> bool:
    """Whether all states of unfinished work are of the command that runs now."""
    from natstats.errors import NatstatsError
    from natstats.files.state_files import read_state

    try:
        kept = [read_state(file) for file in state.glob("*.safetensors")]
    except (NatstatsError, OSError):
        return False
    own = {"command": command_line()}
    return all(isinstance(o := one.get("about"), dict) and own.items() <= o.items() for one in kept)


def target(out: Path | None, name: str, overwrite: bool, kind: str = "run") -> Path:
    """Where the run will go; raises now, not after the work, when it may not go there."""
    from natstats.files.paths import expanded
    from natstats.runs import store

    if out is None:
        return store.free_path(Path("runs") / name)
    out = expanded(out, "out")
    store.check_target(out, overwrite, kind)
    return out


def report_target(out: Path | None, name: str, overwrite: bool, kind: str) -> Path:
    """As :func:`target`, for what is made of several runs.

    Its usual place is none among the runs, so that ``runs/*`` stays all of them and nothing else.
    """
    from natstats.files.targets import free_path

    if out is None:
        return free_path(Path("reports") / re.sub(r"[^\w.+-]+", "-", name)[:100])
    return target(out, name, overwrite, kind)


def take_fit_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Take the fit options that were given out of `settings`, and return them."""
    taken = {name: settings.pop(name, None) for name in options.FIT_OPTIONS}
    return {name: value for name, value in taken.items() if value is not None}


def take_measure_options(settings: dict[str, Any]) -> dict[str, Any]:
    """Take the fields of ``MeasureOptions`` out of `settings`, and return them."""
    names = [name for name in settings if hasattr(MeasureOptions, name)]
    return {name: settings.pop(name) for name in names}


@contextmanager
def progress_bar(
    unit: str = "images", images: int | None = None, *, quiet: bool = False, within: str = ""
) -> Iterator[Progress]:
    """A bar with the rate and the time left on a terminal, a plain line now and then elsewhere.

    Args:
        unit: what is counted.
        images: in each of these, which are counted one by one then: the rate is in images, and
            those that were done in an earlier sitting do not count for it.
        quiet: nothing is shown.
        within: where all these are, if an image counts more than once.
    """
    if quiet:
        yield lambda done, total: None
        return
    if sys.stderr.isatty():
        from tqdm import tqdm

        desc = f"{unit} {within}" if within else None
        with tqdm(desc=desc, unit=f" {unit}", dynamic_ncols=True, leave=False) as bar:

            def update(done: int, total: int) -> None:
                bar.total = total or None  # not known of a stream
                if images is not None and not bar.n:
                    bar.initial = bar.n = done - 1
                bar.update(done - bar.n)
                rate = bar.format_dict["rate"]
                if images is not None and rate:
                    bar.set_postfix_str(f"{rate * images:.0f} images/s", refresh=False)

            yield update
        return
    started = last = time.monotonic()
    earlier: int | None = None

    def line(done: int, total: int) -> None:
        nonlocal last, earlier
        if earlier is None:
            earlier = 0 if images is None else done - 1
        now = time.monotonic()
        if (done < total or not total) and now - last < SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (done - earlier) / max(now - started, 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if done < total else ""
        speed = f"{rate:.1f} {unit}/s" if images is None else f"{rate * images:.0f} images/s"
        of_all = f" of {total}" if total else ""
        counted = f"{unit} {within}".rstrip()
        say(f"{done}{of_all} {counted}, {speed}{left}", err=True)

    yield line


def show(run: Run, view: View, part: Path | None = None, shard: str | None = None) -> None:
    """Print table, verdict and notes of a run, and where it is.

    Args:
        run: that was measured.
        view: how much of it.
        part: where the part is, beside `shard`.
        shard: the share of the images that was measured; None for all of them.
    """
    if shard is None:
        assert run.path is not None
        result(run, "run", view, run.path)
        _refuse_empty(run)
        return
    n_images = run.info["images"]["n_images"]
    if view.as_json:
        facts = {"kind": "part", "path": str(part), "shard": shard, "n_images": n_images}
        say_lines(json_text(facts))
    elif not view.quiet:
        where = "" if part is None else path_text(part)
        told = (
            f"Part {shard}, {counted(n_images, 'image')}: {where}",
            "`natstats merge` puts parts together.",
        )
        for line in _beside(told, width_of(sys.stdout)):
            say(line)


def _refuse_empty(run: Run) -> None:
    """Say that the measurement of a network came to nothing, with the exit code of a failure."""
    if run.is_of_network and not run.has_exponents:
        from natstats.errors import NatstatsError

        raise NatstatsError(
            f"run: expected an exponent of at least one layer; got none ({run.hindrances()}). The "
            "run is kept"
        )


def result(
    found: Any, kind: str, view: View, path: Path | None, named: str = "Run", how: str = ""
) -> None:
    """Print what a command found, as text or as JSON, and where it is.

    Args:
        found: what was measured or opened.
        kind: of its folder, see ``SHOWN`` of the module folders.
        view: how much of it.
        path: its folder; None where it was not written.
        named: what stands before the path.
        how: the command that shows all rows; by default that of the folder.
    """
    from . import folders

    if view.as_json:
        say_lines(json_text(folders.summary_of(found, kind, path)))
        return
    if view.quiet:
        return
    how = how or ("" if path is None else show_command(path))
    _tell_table(found.table(view.rows, view.width, how), how)
    say()
    for sentence in folders.sentences_of(found):
        tell(sentence)
    if path is not None:
        place(named, path)


def _tell_table(text: str, how: str = "") -> None:
    """Print a table, whose rows fit; what stands above and below it may have to be wrapped."""
    width = width_of(sys.stdout)
    for line in text.split("\n"):
        for part in [line] if width is None or len(line) <= width else line.split("   "):
            # A command that is to be copied stays whole.
            (say if how and part.endswith(how) else tell)(part)


def json_text(values: dict[str, Any]) -> str:
    """Plain values as JSON; NaN is null."""
    from natstats.files.json_files import to_json

    return to_json(values)
