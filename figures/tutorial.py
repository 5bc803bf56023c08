"""The outputs and the pictures of docs/tutorial.md, from what its commands do.

    python figures/tutorial.py --mobilenet mobilenet_v2_torchvision.pth --work work/runs

Measures the demo, and MobileNetV2 on the photographs of the demo with ten seeds of random weights;
runs that are in --work are taken as they are, and their pages written again. Without
--mobilenet the published weights are taken. The picture of the page takes Chromium and playwright.
"""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import click
from click.testing import CliRunner
from filling import fill
from natstats_cli.main import natstats as group
from playwright.sync_api import sync_playwright

import natstats
from natstats import demo
from natstats.report.figures.difference import plot_control
from natstats.report.figures.style import save
from natstats.report.pages.run import write_report

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
PICTURES = PAGE.with_name("tutorial")


@click.command()
@click.option("--mobilenet", type=click.Path(exists=True, path_type=Path), help="Weights.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("work/runs"))
def main(mobilenet: Path | None, work: Path) -> None:
    """Measure what is not there yet, draw, and fill the page."""
    _run(
        work / "demo",
        lambda out: natstats.measure(demo.network(), demo.photographs(), out=out),
    )
    run = _run(
        work / "mobilenet",
        lambda out: natstats.measure(
            "mobilenet_v2",
            demo.photographs(),
            checkpoint=mobilenet,
            control="random-weights",
            control_seeds=10,
            out=out,
        ),
    )
    layers = run.layers[run.layers.kind != "input"]
    columns = ["layer", "exponent", "exponent_low", "exponent_high", "flags"]
    steepest = layers.nlargest(3, "exponent")[columns]
    name = steepest.layer.iloc[0]
    found = run.control
    assert found is not None
    kept = ["exponent", "control_mean", "difference", "low", "high", "p_corrected"]
    row = found.layers.set_index("layer")[kept].loc[name].round(3)
    for picture, axes in {
        "law": run.plot_law(),
        "spectrum": run.plot_spectrum(name),
        "control": plot_control(found.report())[0],
    }.items():
        for path in save(axes, PICTURES, picture):
            if path.suffix == ".svg":
                path.unlink()  # the page shows the other one
    _picture(work / "mobilenet" / "report.html", name, PICTURES / "report.png")
    parts: dict[str, Callable[[], Sequence[str]]] = {
        "demo": lambda: _text(_shown(work / "demo")),
        "mobilenet": lambda: _text(_shown(work / "mobilenet")),
        "steepest": lambda: _text(steepest.round(2).to_string(index=False)),
        "control": lambda: _text(f"{row.to_string()}\n{found.sentence()}"),
    }
    fill(PAGE, "tutorial.py", parts)


def _run(path: Path, measured: Callable[[Path], natstats.Run]) -> natstats.Run:
    if not path.is_dir():
        return measured(path)
    run = natstats.Run.open(path)
    write_report(path, run.report())
    return run


def _shown(path: Path) -> str:
    """What the command prints at its end, for a run at runs/NAME."""
    before = Path.cwd()
    os.chdir(path.parent.parent)
    try:
        found = CliRunner().invoke(group, ["show", f"{path.parent.name}/{path.name}"])
    finally:
        os.chdir(before)
    assert found.exit_code == 0, found.output
    return found.stdout.replace(f"{path.parent.name}/{path.name}", f"runs/{path.name}").rstrip()


def _picture(page: Path, layer: str, out: Path) -> None:
    """The page as a browser shows it, with a layer open."""
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        tab = browser.new_page(viewport={"width": 1280, "height": 860})
        tab.goto(f"{page.resolve().as_uri()}#layer={quote(layer)}&sort=exponent:descending")
        tab.wait_for_function("document.documentElement.dataset.ready === 'yes'")
        tab.evaluate("document.getElementById('layers').scrollIntoView()")
        tab.screenshot(path=out)
        browser.close()


def _text(text: str) -> list[str]:
    """Lines as a terminal shows them: sentences go on below, and tables stay whole."""
    lines = []
    for line in text.splitlines():
        lines += [line] if "  " in line else textwrap.wrap(line, 92) or [""]
    return ["```text", *lines, "```"]


if __name__ == "__main__":
    main()
