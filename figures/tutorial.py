"""The outputs and the pictures of docs/tutorial.md, from what its commands do.

    python figures/tutorial.py --mobilenet mobilenet_v2_torchvision.pth --work runs/tutorial

Measures the demo, and MobileNetV2 on the photographs of the demo with ten seeds of random weights;
runs that are in --work are taken as they are. Without --mobilenet the published weights are taken.
"""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from filling import fill
from natstats_cli import output

import natstats
from natstats import demo
from natstats.report.figures.difference import plot_control
from natstats.report.figures.style import save

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
PICTURES = PAGE.with_name("tutorial")


@click.command()
@click.option("--mobilenet", type=click.Path(exists=True, path_type=Path), help="Weights.")
@click.option("--work", type=click.Path(path_type=Path), default=Path("runs/tutorial"))
def main(mobilenet: Path | None, work: Path) -> None:
    """Measure what is not there yet, draw, and fill the page."""
    first = _run(
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
    one = [measured for measured in run.spectra if measured.layer.name == name]
    for picture, axes in {
        "law": run.plot_law(),
        "spectrum": natstats.Run(one, options=run.options).plot_spectra(),
        "control": plot_control(found.report())[0],
    }.items():
        for path in save(axes, PICTURES, picture):
            if path.suffix == ".svg":
                path.unlink()  # the page shows the other one
    parts: dict[str, Callable[[], Sequence[str]]] = {
        "demo": lambda: _text(_shown(first, "runs/demo")),
        "mobilenet": lambda: _text(_shown(run, "runs/mobilenet")),
        "steepest": lambda: _text(steepest.round(2).to_string(index=False)),
        "control": lambda: _text(f"{row.to_string()}\n{found.sentence()}"),
    }
    fill(PAGE, "tutorial.py", parts)


def _run(path: Path, measured: Callable[[Path], natstats.Run]) -> natstats.Run:
    return natstats.Run.open(path) if path.is_dir() else measured(path)


def _shown(run: natstats.Run, path: str) -> str:
    """What the command prints at its end."""
    run.path = Path(path)
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        output.show(run)
    return stream.getvalue().rstrip()


def _text(text: str) -> list[str]:
    """Lines as a terminal shows them: sentences go on below, and tables stay whole."""
    lines = []
    for line in text.splitlines():
        lines += [line] if "  " in line else textwrap.wrap(line, 92) or [""]
    return ["```text", *lines, "```"]


if __name__ == "__main__":
    main()
