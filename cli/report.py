"""``natstats report``: the page of a run, written again or opened."""

from __future__ import annotations

from pathlib import Path

import click

from natstats.errors import NatstatsError

from . import options, output
from .views import path_text


@click.command("report", short_help="Write the page of a run again, or open it.")
@click.argument("run", type=options.PATH)
@click.option(
    "--open",
    "is_opened",
    is_flag=True,
    help="Open the page in a browser, as it is; it is written first only if there is none.",
)
@options.debug_option
def command(run: Path, is_opened: bool) -> None:
    """Write the page and the figures of RUN again.

    RUN is a folder that natstats has written: a run, a series, a comparison, the laws of many
    networks, a training or a table of trainings. Its numbers stay as they are. For the page of a
    comparison, its two runs must still be there.
    """
    from natstats.files.paths import expanded

    from . import folders

    path = expanded(run, "run")
    kind, page = folders.kind_of(path), path / "report.html"
    if not (is_opened and page.is_file()):
        page, notes = folders.write_page(path, kind)
        for note in notes:
            output.say(f"Note: {note}", err=True)
    output.say(f"Report: {path_text(page)}")
    if is_opened:
        import webbrowser

        if not webbrowser.open(page.resolve().as_uri()):
            raise NatstatsError("open: expected a browser to open the page in; there is none")
