"""What can be shown of each kind of folder: a record in :data:`SHOWN` is all that one takes."""

from __future__ import annotations

import importlib
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natstats.errors import UsageError
from natstats.files.ownership import KINDS
from natstats.text import printable

from .views import path_text

__all__ = [
    "SHOWN",
    "Shown",
    "doubts",
    "kind_of",
    "opened",
    "sentences_of",
    "summary_of",
    "write_page",
]


@dataclass(frozen=True)
class Shown:
    """A kind of folder that can be shown; functions are named, as most commands need none of them.

    Attributes:
        opened: reads a folder; what it gives has ``table(rows, width, how)``, ``sentences()`` and
            ``notes``.
        summary: of that and the folder makes plain values, for ``--json``.
        page: writes page and figures into a folder.
        again: reads what the page shows, where that is more than what is opened; see
            :class:`natstats.runs.pages_again.PageAgain`.
        has_links: the page leads to other folders, and must know where its own will be.
    """

    opened: str
    summary: str
    page: str
    again: str = ""
    has_links: bool = False


SHOWN = {
    "run": Shown(
        "natstats.runs.run:Run.open",
        "natstats.runs.summaries:run_summary",
        "natstats.report.pages.run:write_report",
    ),
    "series": Shown(
        "natstats.runs.series:Series.open",
        "natstats.runs.summaries:series_summary",
        "natstats.report.pages.series:write_series_report",
    ),
    "comparison": Shown(
        "natstats.runs.comparison:Comparison.open",
        "natstats.runs.summaries:comparison_summary",
        "natstats.report.pages.comparison:write_comparison_report",
        "natstats.runs.pages_again:comparison_again",
        has_links=True,
    ),
    "law": Shown(
        "natstats.runs.networks_result:MetaAnalysis.open",
        "natstats.runs.summaries:networks_summary",
        "natstats.report.pages.networks:write_networks_report",
        "natstats.runs.pages_again:networks_again",
        has_links=True,
    ),
    "table": Shown(
        "natstats.distill.summaries:open_methods",
        "natstats.distill.summaries:methods_summary",
        "natstats.distill.report.pages:write_table_report",
        has_links=True,
    ),
    "distill": Shown(
        "natstats.distill.results:DistillationRun.open",
        "natstats.distill.summaries:training_summary",
        "natstats.distill.report.pages:write_run_report",
    ),
}
"""The kinds of folders that can be shown, by their names in natstats.files.ownership.KINDS."""


def kind_of(path: Path) -> str:
    """Which kind of folder a path is, one of :data:`SHOWN`.

    Raises:
        UsageError: it is none that can be shown.
    """
    from natstats.files.ownership import is_reserved, is_unfinished_series
    from natstats.runs import store

    store.restore(path)
    for kind in SHOWN:
        if (path / KINDS[kind].record).is_file():
            return kind
    if is_unfinished_series(path):
        return "series"  # which says what is missing when it is opened
    shown = printable(str(path))
    if is_reserved(path):
        raise UsageError(
            f"run: expected a finished run; {shown} keeps a measurement that is not finished (the "
            "command that began it goes on from there)"
        )
    if (path / KINDS["part"].record).is_file():
        raise UsageError(
            f"run: expected a whole run; {shown} is a part of one (natstats merge puts parts "
            "together)"
        )
    expected = "run: expected the folder of a run or of another result"
    if not path.exists():
        raise UsageError(f"{expected}; {shown} is not there")
    if not path.is_dir():
        raise UsageError(f"{expected}; {shown} is a file")
    records = ", ".join(KINDS[kind].record for kind in SHOWN)
    raise UsageError(f"{expected}; {shown} holds none of {records}")


def opened(path: Path, kind: str) -> Any:
    """What is in a folder of a kind."""
    return _named(SHOWN[kind].opened)(path)


def summary_of(found: Any, kind: str, path: Path | None) -> dict[str, Any]:
    """Plain values of a result."""
    values: dict[str, Any] = _named(SHOWN[kind].summary)(found, path)
    return values


def sentences_of(found: Any) -> Iterator[str]:
    """What a result says, and what changes how it is to be read."""
    yield from found.sentences()
    for note in found.notes:
        yield f"Note: {note if note.endswith('.') else f'{note}.'}"


def doubts(run: Any, path: Path) -> Iterator[str]:
    """What is wrong with the files of a run that other programs read, a sentence each."""
    from natstats.runs.derived_files import doubtful_files

    again = f"natstats report {shlex.quote(path_text(path))}"
    for name, why in doubtful_files(run, path).items():
        yield f"{name} {why}, and is not what the spectra give: `{again}` writes it again."


def write_page(path: Path, kind: str) -> tuple[Path, Sequence[str]]:
    """Write page and figures of a folder again, of a run its tables, too: all of them or none.

    Returns:
        The page, and what is not as it was, a sentence each.

    Raises:
        UsageError: a run that the page needs is gone, or a file is in the way that natstats did not
            write.
        NatstatsError: the folder is damaged, or cannot be written to.
    """
    from natstats.runs import store
    from natstats.runs.derived_files import write_derived

    shown, record = SHOWN[kind], KINDS[kind].record
    more: dict[str, Any] = {"home": path} if shown.has_links else {}
    notes: Sequence[str] = ()
    if shown.again:
        again = _named(shown.again)(path)
        found, notes, more["command"] = again.report, again.notes, again.command
    else:
        result = opened(path, kind)
        found = result.report() if hasattr(result, "report") else result
    with store.add_files(path, record) as folder:
        shutil.copyfile(path / record, folder / record)
        if kind == "run":  # the page names them
            write_derived(result, folder)
        _named(shown.page)(folder, found, **more)
    return path / "report.html", notes


def _named(name: str) -> Any:
    """What is called ``module:name`` or ``module:class.name``."""
    module, _, attributes = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in attributes.split("."):
        found = getattr(found, attribute)
    return found
