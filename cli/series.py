"""What ``natstats measure`` and ``fit`` do with several checkpoints; not a subcommand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natstats.errors import Interrupted

from . import output
from .views import View

if TYPE_CHECKING:
    from natstats.runs.series import Series

__all__ = ["finish", "is_series", "measure"]


def is_series(path: Path) -> bool:
    """Whether a path is a series, finished or not, and so not a run."""
    from natstats.files.paths import expanded
    from natstats.runs import store

    return store.is_series(expanded(path, "run"))


def measure(
    model: Any,
    checkpoints: Iterable[Path],
    images: Any,
    out: Path | None,
    overwrite: bool,
    name: str,
    view: View,
    **settings: Any,
) -> None:
    """Measure a series into a directory, print what it shows, and say what an interruption left."""
    from natstats.files import placed
    from natstats.files.paths import expanded
    from natstats.measurement.series import measure_series
    from natstats.runs import store

    path = store.free_path(Path("runs") / f"{name}-series") if out is None else expanded(out, "out")
    before = _runs(path)
    try:
        with output.only_results(), output.progress_bar(quiet=view.quiet) as progress:
            series = measure_series(
                model,
                checkpoints,
                images,
                out=path,
                overwrite=overwrite,
                command=output.command_line(),
                progress=progress,
                **settings,
            )
    except KeyboardInterrupt as error:
        finished = _runs(path)
        if not finished or path in placed.in_place():  # its tables are there, too
            raise
        runs = "1 finished run is" if len(finished) == 1 else f"{len(finished)} finished runs are"
        raise Interrupted(
            f"interrupted; {runs} kept in {path}, and the same command, with --out {path}, goes on "
            "from there",
            exit_code=getattr(error, "exit_code", 130),
        ) from None
    taken = before & set(series.frame.checkpoint)
    if taken and not overwrite and not view.quiet:
        runs = "1 run was" if len(taken) == 1 else f"{len(taken)} runs were"
        output.tell(f"{runs} there already and taken as they are.", err=True)
    finish(series, path, view)


def _runs(path: Path) -> set[str]:
    return {file.parent.name for file in path.glob("[!.]*/run.json")}


def finish(series: Series, path: Path, view: View) -> None:
    """Print the short table, what it shows, and where the series is."""
    output.result(series, "series", view, path, "Series")
