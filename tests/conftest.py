"""What several rooms of tests use: the command line, and distillation runs with known truth.

The folders mirror natstats: what stands in ``natstats/spectra/expected.py`` is tested in
``tests/spectra/test_expected.py``. The marker ``slow`` is for what trains, simulates or starts
processes for many seconds: ``pytest -m "not slow"`` answers quickly, ``make test`` runs all. The
marker ``gpu`` is for what needs CUDA, and skips where there is none; analyses/gpu_check.py runs it.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click import Group
from click.testing import CliRunner, Result
from matplotlib.axes import Axes
from scipy.stats import norm

from natstats.distill.record import RunInfo
from natstats.distill.report.pages import write_run_report
from natstats.distill.results import GAP, DistillationRun, Outcomes
from natstats.distill.run_folders import RECORD
from natstats.errors import NatstatsError
from natstats.fits.options import FitOptions
from natstats.networks.builders import Builder, network_names
from natstats.runs import store
from natstats.runs.random_weights import RandomWeights, write_random_weights
from natstats.runs.run import Run
from natstats.spectra.expected import expected_spectrum
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of
from natstats.theory.account import Account
from natstats.theory.account_spectra import AccountSpectra, State, Step


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not look at millions of objects."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out what needs a device that is not here."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs CUDA")


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn into axes, but their files are blank, but for tests marked ``draws``."""
    if request.node.get_closest_marker("draws"):
        return

    def save(axes: Axes, folder: Path, name: str) -> list[Path]:
        assert axes.get_figure() is not None
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.svg", folder / f"{name}.png"]
        for path in paths:
            path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><!-- Matplotlib v --></svg>')
        return paths

    monkeypatch.setattr("natstats.report.figures.style.save", save)
    monkeypatch.setattr("natstats.distill.report.pages.save", save)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Digests of images are kept for the user's own files, not for those of tests."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def no_terminal() -> None:
    """What is printed goes to no terminal, whatever the tests run in."""
    os.environ.pop("COLUMNS", None)


@pytest.fixture(scope="session")
def group() -> Group:
    """The command line as it is installed."""
    (entry,) = entry_points(group="console_scripts", name="natstats")
    return sys.modules[entry.load().__module__].natstats


@pytest.fixture
def call(group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in an empty folder; ``code=None`` takes any exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any, code: int | None = 0, is_defect: bool = False) -> Result:
        result = CliRunner().invoke(group, [str(a) for a in arguments])
        assert code is None or result.exit_code == code, result.output
        assert ("defect of natstats" in result.output) == is_defect
        assert "Traceback" not in result.output
        if code in (1, 2):
            # The error comes last, with lists on indented lines; click puts its usage before it.
            lines = [ln for ln in result.stderr.strip().splitlines() if not ln.startswith("  ")]
            assert lines[-1].startswith("Error: ")
        return result

    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty pages in place of those with figures, which are most of the time of a small run."""

    def page(folder: Path, _: Any, *_others: Any, **_more: Any) -> None:
        (folder / "report.html").touch()

    for name in ("report.pages.run.write_report", "report.pages.series.write_series_report",
                 "distill.report.pages.write_run_report",
                 "distill.report.pages.write_table_report"):  # fmt: skip
        monkeypatch.setattr(f"natstats.{name}", page)


@pytest.fixture(autouse=True, scope="session")
def shapes_once() -> Iterator[None]:
    """The shapes of a named network are found once: recognising a file builds them all."""
    real, found = Builder.shapes, {}
    names = frozenset(network_names())

    def shapes(self: Builder, **others: Any) -> dict[str, tuple[int, ...]]:
        if self.name not in names or self.arguments:
            return real(self, **others)
        key = (self.name, repr(self.fixed), repr(others))
        if key not in found:
            found[key] = real(self, **others)
        return dict(found[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "shapes", shapes)
        yield


class MadeRuns:
    """Makes runs whose answers have known accuracy and known correlations.

    An answer is right where a normal variable of variance 1 is below the quantile of the accuracy.
    It is the sum of what the image does to all methods, what the seed does to one method, and what
    is the answer's own: images are shared by all, seeds shift whole trainings.

    Args:
        n_images: of the evaluation.
        image_sd: share of an image, at most 1 with that of the seed (root of summed squares).
        seed_sd: share of a seed.
        random: seed of everything.
    """

    def __init__(
        self, n_images: int = 400, image_sd: float = 0.7, seed_sd: float = 0.05, random: int = 0
    ) -> None:
        self.rng = np.random.default_rng(random)
        self.n_images, self.image_sd, self.seed_sd = n_images, image_sd, seed_sd
        self.ease = self.rng.normal(size=n_images)
        self.label = self.rng.integers(0, 5, n_images)
        self.names = np.array([f"class_{k}/{i:04d}.png" for i, k in enumerate(self.label)])
        self.teacher = self._predicted(self._right(0.9, 0.0))

    def _right(self, accuracy: float, shift: float) -> np.ndarray:
        own = np.sqrt(1 - self.image_sd**2 - self.seed_sd**2)
        noise = own * self.rng.normal(size=self.n_images)
        return self.image_sd * self.ease + shift + noise < norm.ppf(accuracy)

    def _predicted(self, right: np.ndarray) -> np.ndarray:
        return np.where(right, self.label, (self.label + 1) % 5)

    def run(
        self,
        method: str = "kd",
        seed: int = 0,
        accuracy: float = 0.7,
        closed: float | None = 0.2,
        arguments: dict[str, Any] | None = None,
        epochs: int = 6,
        epochs_before: int = 0,
        data: dict[str, Any] | None = None,
        **info: Any,
    ) -> DistillationRun:
        """One run; `closed` is how much of the gap of the exponents it closes in the mean."""
        right = self._right(accuracy, self.seed_sd * self.rng.normal())
        taught = method != "ce"
        predicted = self._predicted(right)
        outcomes = Outcomes(
            self.label, predicted, np.where(right, 0.8, 0.1), self.names,
            self.teacher if taught else None,
        )  # fmt: skip
        terms = ["ce", *(method.split("+") if taught else [])]
        facts: RunInfo = {
            "created": "2026-01-02T03:04:05+00:00",
            "versions": {"natstats": "0.4.0", "torch": "2.15.0", "torchvision": "0.29.0",
                         "numpy": "2.4.0", "python": "3.11.7"},
            "timing": {"seconds": 61.5, "images_per_second": 97.6},
            "device": {"type": "cpu", "name": "made", "threads": 2},
            "command": f"natstats distill --student small --method {method} --seed {seed}",
            "method": method,
            "terms": [
                {"name": name, "weight": 0.9, "stage": "main", "reduction": "mean over images"}
                for name in terms[1:]
            ],
            "arguments": arguments if arguments is not None else {name: {} for name in terms[1:]},
            "ce_weight": 0.1 if taught else 1.0,
            "seed": seed,
            "recipe": {"optimizer": "sgd", "epochs": epochs, "learning_rate": 0.1},
            "data": {
                "name": "made", "digest": "0123abcd", "classes": list("abcde"), "n_train": 1000,
                "n_eval": self.n_images, "split": "test", "size": 32, **(data or {}),
            },
            "student": {"name": "small", "arguments": {}, "n_parameters": 71000,
                        "weights": f"random, seed {seed}"},
            "teacher": {
                "name": "large", "arguments": {}, "n_parameters": 2100000, "weights": "t.pth",
                "digest": "feed", "accuracy": float((self.teacher == self.label).mean()),
            } if taught else None,
            "taps": [
                {"method": name, "student": f"layer{k}.1.relu:1", "teacher": f"layer{k}.2.relu:1",
                 "student_shape": [16 * k, 32 // k, 32 // k],
                 "teacher_shape": [32 * k, 32 // k, 32 // k]}
                for name in terms[1:] if name in ("at", "spectral") for k in (1, 2, 3)
            ],
            "accuracy": outcomes.accuracy,
            "best_accuracy": min(outcomes.accuracy + 0.01, 1.0),
            "top5": None,
            "costs": {
                "ms_per_step": 20.0 + 3 * len(terms), "peak_memory_mib": 310.5,
                "memory_of": "process", "teacher_passes": 1.0 if taught else 0.0,
                "extra_parameters": 0, "epochs": epochs, "epochs_before": epochs_before,
                "seconds": 61.5,
            },
            "notes": [],
        } | info  # fmt: skip
        history = self._history(terms, outcomes.accuracy, epochs, epochs_before)
        return DistillationRun(
            facts, history, self._gradients(history, terms), outcomes,
            self._gap(closed) if taught and closed is not None else pd.DataFrame(columns=list(GAP)),
        )  # fmt: skip

    def _history(self, terms: list[str], accuracy: float, epochs: int, before: int) -> pd.DataFrame:
        rows = []
        stages = [("hint", e) for e in range(1, before + 1)]
        for stage, epoch in [*stages, *(("main", e) for e in range(1, epochs + 1))]:
            is_main = stage == "main"
            share = (1 - np.exp(-3 * epoch / epochs)) / (1 - np.exp(-3))
            rows.append(
                {
                    "stage": stage, "epoch": epoch, "learning_rate": 0.1, "loss": 2 - share,
                    "accuracy": min(0.99, accuracy * share + 0.1) if is_main else np.nan,
                    **{t: (2 - share) / (k + 1) if is_main else np.nan
                       for k, t in enumerate(terms)},
                    "eval_loss": 2.1 - share if is_main else np.nan,
                    "eval_accuracy": accuracy * share if is_main else np.nan,
                    "seconds": 1.5,
                }
            )  # fmt: skip
        return pd.DataFrame(rows)

    def _gradients(self, history: pd.DataFrame, terms: list[str]) -> pd.DataFrame:
        return pd.DataFrame(
            [
                {"stage": row.stage, "epoch": row.epoch, "term": term, "weight": 0.9,
                 "norm": 0.5 * (k + 1), "ce_norm": 0.5, "cosine": 0.3}
                for row in history.itertuples() for k, term in enumerate(terms)
            ]
        )  # fmt: skip

    def _gap(self, closed: float) -> pd.DataFrame:
        rows = []
        for k in range(1, 5):
            teacher = 2.0 + 0.1 * k
            after = 0.5 - closed + 0.01 * self.rng.normal()
            rows.append(
                (f"layer{k}.1.relu:1", f"layer{k}.2.relu:1", 64 // 2**k, 64 // 2**k, teacher,
                 teacher - 0.5, teacher - after, 0.4, 0.4 - 0.5 * closed + 0.01 * self.rng.normal())
            )  # fmt: skip
        return pd.DataFrame(rows, columns=list(GAP))

    def save(self, path: Path, *, report: bool = False, **settings: Any) -> Path:
        """Write a run as the trainer does."""
        with store.add_files(path, last=RECORD) as folder:
            run = self.run(**settings)
            run.write(folder)
            if report:
                write_run_report(folder, run)
            (folder / "student.safetensors").write_bytes(b"weights")
        return path


@pytest.fixture
def n_damaged() -> Callable[[Path, Callable[[], Any]], int]:
    """Change single bytes of a file; count the times that opening says that it is damaged.

    Any other error than a NatstatsError is one of the test.
    """

    def count(file: Path, opened: Callable[[], Any]) -> int:
        content = file.read_bytes()
        rng, found = np.random.default_rng(0), 0
        for place in rng.integers(len(content), size=60):
            changed = bytearray(content)
            changed[place] ^= int(rng.integers(1, 256))
            file.write_bytes(changed)
            try:
                opened()
            except NatstatsError:
                found += 1
        return found

    return count


@pytest.fixture(scope="session")
def made_runs() -> type[MadeRuns]:
    return MadeRuns


class MadeNetworks:
    """Makes runs whose exponents rise with depth by a known slope, without images or networks.

    Layers have maps of 12 pixels; 16 images of different exponent; the scatter of layers is 0.03.
    """

    def run(
        self,
        seed: int = 0,
        slope: float = 0.05,
        n_layers: int = 10,
        model: str = "resnet20",
        trained: bool | None = True,
        n_seeds: int = 0,
        kind: str = "conv",
        fit: dict[str, Any] | None = None,
        random_slope: float = 0.0,
        **info: Any,
    ) -> Run:
        """One run; `info` replaces facts of the measurement."""
        rng = np.random.default_rng(seed)
        shift = 0.1 * rng.standard_normal(16)

        def spectra(slope: float, first: int = 0) -> list[LayerSpectrum]:
            made = []
            for depth in range(first, n_layers + 1):
                alpha = 1.5 + slope * depth + 0.03 * rng.standard_normal() + shift
                power = np.exp(expected_spectrum(12, 12).log_power(alpha))
                power *= rng.gamma(50, 1 / 50, power.shape)
                layer = Layer(
                    f"layer{depth}" if depth else "input", 0, kind if depth else "input", depth, 4,
                    12, 12, 1.0, depth, 3.0 + 2 * depth,
                )  # fmt: skip
                made.append(LayerSpectrum(layer, spectrum_of(power, 12, 12)))
            return made

        facts: dict[str, Any] = {
            "name": model,
            "model": {"name": model, "weights": "DEFAULT" if trained else "none",
                      "trained": trained, "digest": f"{seed:08x}"},
            "images": {"source": "photos", "n_images": 16, "contents": "same"},
            "options": {"layers": "weight", "edges": "sine", "temporal": False},
        } | info  # fmt: skip
        controls = [
            RandomWeights(place, {"name": model}, spectra(random_slope, 1), [])
            for place in range(n_seeds)
        ]
        return Run(spectra(slope), [], facts, FitOptions(**(fit or {})), controls)

    def save(self, path: Path, **settings: Any) -> Path:
        """Write a run without tables and page, which are most of its time."""
        run = self.run(**settings)
        with store.write_directory(path) as folder:
            store.write_run(folder, {**run.info, "fit": run.options.to_dict()}, run.spectra, [])
            if run.random_weights:
                write_random_weights(folder, run.random_weights)
        return path


@pytest.fixture(scope="session")
def made_networks() -> MadeNetworks:
    return MadeNetworks()


class MadeAccount:
    """Makes the account of a network step by step, with the exponents that are asked for.

    Every group of images has a spectrum as the estimator expects it. With a scatter, exponents
    differ from group to group, and that of all groups is near the one that is asked for.

    Args:
        images: exponent of the images.
        scatter: standard deviation of exponents between groups.
        seed: of the scatter.
    """

    N_GROUPS = 12

    def __init__(self, images: float = 2.0, scatter: float = 0.0, seed: int = 0) -> None:
        self.rng, self.scatter = np.random.default_rng(seed), scatter
        self.states: list[State] = []
        self.steps: list[Step] = []
        self.last = self._state(images)

    def _state(self, alpha: float) -> int:
        own = alpha + self.scatter * self.rng.standard_normal(self.N_GROUPS)
        power = np.array([np.exp(expected_spectrum(16, 16).log_power(one)) for one in own])
        count = np.ones(self.N_GROUPS, dtype=np.int64)
        self.states.append(State(16, 16, "sine", 1.0, power, power, count))
        return len(self.states) - 1

    def step(
        self,
        name: str,
        kind: str,
        after: float,
        before: int | None = None,
        is_trunk: bool = True,
        **predictions: float,
    ) -> int:
        """Add a step, by default behind the last of the trunk; return the number of its end."""
        start = self.last if before is None else before
        end = self._state(after)
        known = {one.replace("_", " "): self._state(a) for one, a in predictions.items()}
        depth = next((s.depth for s in self.steps if s.after == start), 0)
        depth += kind in ("convolution", "linear")
        self.steps.append(Step(name, kind, kind, name, (name,), depth, start, end, is_trunk, known))
        self.last = end if is_trunk else self.last
        return end

    def account(self, **fit: Any) -> Account:
        """The account of the steps so far."""
        return Account(AccountSpectra(tuple(self.states), tuple(self.steps)), FitOptions(**fit))


@pytest.fixture(scope="session")
def made_account() -> type[MadeAccount]:
    return MadeAccount
