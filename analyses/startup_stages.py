"""One ``natstats`` command, timed stage by stage: what analyses/startup.py runs in a process.

    python analyses/startup_stages.py RESULT STARTED measure mobilenet_v2 --images PHOTOGRAPHS

Functions of :data:`STAGES` are wrapped as soon as their modules are loaded, before anything else
can take them from there, and so is the loading of modules. A stage within a stage counts for the
inner one alone, so that the stages sum to the whole. Nothing is imported here that the command
would not import anyway.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

STAGES = {
    "natstats.networks.load:load_network": "network: built, weights",
    "natstats.images.sources:open_images": "images: listed",
    "natstats.activations.trace:trace_calls": "trace",
    "natstats.activations.probe:probe_layouts": "probe of the layouts",
    "natstats.measurement.one_run:measure": "measuring",
    "natstats.spectra.expected:expected_spectrum": "expected spectra of the map sizes",
    "natstats.spectra.expected:expected_power": "expected spectra of the map sizes",
    "natstats.fits.exponents:fit_layers": "exponents with intervals",
    "natstats.fits.form_comparison:forms_frame": "other forms",
    "natstats.fits.band_sensitivity:sensitivity_frame": "band sensitivity",
    "natstats.fits.image_spread:image_exponents_frame": "spread of images",
    "natstats.law.law:fit_law": "law",
    "natstats.law.specifications:try_all": "law under other choices",
    "natstats.law.influence:leave_out": "law without some layers",
    "natstats.runs.store:write_run": "spectra.npz and run.json",
    "natstats.files.csv_files:write_csv": "tables",
    "natstats.report.figures.drawing:draw_run": "figures: drawn",
    "natstats.report.figures.style:save": "figures: written",
    "natstats.report.pages.run:write_report": "page",
}
"""Functions, as module and name, and the stage that their time counts for."""

MEASURING = "measuring"
"""The stage between what comes before it and what comes after it."""

AFTER = (
    "expected spectra of the map sizes", "exponents with intervals", "other forms",
    "band sensitivity", "spread of images", "law", "law under other choices",
    "law without some layers", "spectra.npz and run.json", "tables", "figures: drawn",
    "figures: written", "page",
)  # fmt: skip
"""Stages that come after the measuring; imports and what is left come before and after it."""


class Stages:
    """Seconds of every stage: of the processor, all threads together, and by the clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._open: list[str] = ["start of python"]
        self._last = 0.0, 0.0

    def start(self, started: float) -> None:
        """Begin with what was spent before, since the clock was at `started`."""
        self._last = 0.0, started
        self.lap()
        self._open = ["the rest"]

    def lap(self) -> None:
        """Count what was spent since the last call for the innermost open stage."""
        now = time.process_time(), time.monotonic()
        own = self.seconds.setdefault(self._open[-1], [0.0, 0.0])
        for kind in (0, 1):
            own[kind] += now[kind] - self._last[kind]
        self._last = now

    @contextmanager
    def within(self, stage: str) -> Iterator[None]:
        """A stage within the open one."""
        self.lap()
        self._open.append(stage)
        try:
            yield
        finally:
            self.lap()
            self._open.pop()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose time counts for a stage."""

        @functools.wraps(function)
        def run(*given: Any, **named: Any) -> Any:
            with self.within(stage):
                return function(*given, **named)

        return run

    def watch_imports(self) -> None:
        """Time the loading of modules by their package, and wrap functions as they come."""
        machinery: Any = importlib._bootstrap  # type: ignore[attr-defined]
        load = machinery._find_and_load
        wanted: dict[str, list[str]] = {}
        for place in STAGES:
            module, _, name = place.partition(":")
            wanted.setdefault(module, []).append(name)

        def loaded(name: str, importer: Any) -> Any:
            known = sys.modules.get(name)
            with self.within(f"imports: {name.partition('.')[0]}"):
                module = load(name, importer)
            if known is None and name in wanted:
                for function in wanted.pop(name):
                    stage = STAGES[f"{name}:{function}"]
                    if hasattr(module, function):  # an older natstats may lack it
                        setattr(module, function, self.timed(stage, getattr(module, function)))
            return module

        machinery._find_and_load = loaded


def main() -> None:
    """Run the command and write the seconds of its stages, whatever its end."""
    result, started, *command = sys.argv[1:]
    stages = Stages()
    stages.start(float(started))
    stages.watch_imports()
    sys.argv = ["natstats", *command]
    try:
        importlib.import_module("natstats_cli.main").main()
    finally:
        stages.lap()
        with open(result, "w", encoding="utf-8") as file:
            json.dump(stages.seconds, file)


if __name__ == "__main__":
    main()
