"""How much the page of a run weighs, and how soon a browser has drawn it.

    python analyses/report_page.py RUN...

Opens each page in a fresh tab of Chromium as often as --times says, without a network, and prints
layers, megabytes, and the median time until every plot stands and the first layer is open. Takes
playwright and Chromium.
"""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import click
from playwright.sync_api import sync_playwright

from natstats.runs.run import Run

READY = "document.documentElement.dataset.ready === 'yes'"


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--times", default=5, show_default=True, help="How often each page is opened.")
def main(runs: tuple[Path, ...], times: int) -> None:
    """Open the pages, and print a line for each."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for run in runs:
            page = run / "report.html"
            took = [_seconds(browser, page) for _ in range(times)]
            print(
                f"{run.name}: {len(Run.open(run).spectra)} rows, "
                f"{page.stat().st_size / 1e6:.2f} MB, ready in {statistics.median(took):.2f} s "
                f"(from {min(took):.2f} to {max(took):.2f})"
            )
        browser.close()


def _seconds(browser: Any, page: Path) -> float:
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    started = time.perf_counter()
    tab.goto(page.resolve().as_uri())
    tab.wait_for_function(READY)
    seconds = time.perf_counter() - started
    context.close()
    return seconds


if __name__ == "__main__":
    main()
