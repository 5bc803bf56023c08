"""Series of checkpoints, and networks together, that several files look at."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

import natstats
from natstats import measure_series, meta_analysis
from tests.runs.small_series import between, network


@pytest.fixture(scope="session")
def series_images():
    return np.float32(natstats.power_law_fields(54, 16, 16, 2.0, seed=0).reshape(18, 3, 16, 16))


@pytest.fixture
def checkpoints(tmp_path):
    """Four checkpoints of a training."""
    home = tmp_path / "ck"
    home.mkdir()
    for epoch in (0, 1, 2, 10):
        torch.save(between(epoch / 10), home / f"epoch_{epoch}.pth")
    return home


@pytest.fixture(scope="session")
def series(series_images, tmp_path_factory):
    """A whole series on disk; the pages of its runs, which are not the matter here, are empty."""
    home = tmp_path_factory.mktemp("series")
    for epoch in (0, 1, 8):
        torch.save(between(epoch / 8), home / f"epoch_{epoch}.pth")
    with pytest.MonkeyPatch.context() as patch:
        empty = lambda folder, _: (folder / "report.html").touch()  # noqa: E731
        patch.setattr("natstats.report.pages.run.write_report", empty)
        measure_series(network(), home / "epoch_*.pth", series_images, out=home / "out")
    return home / "out"


@pytest.fixture
def measured(monkeypatch):
    """Files whose checkpoints were measured, in order; the one named in `stop` interrupts."""
    import natstats.measurement.series_request as home

    real, seen = home.with_checkpoint, []

    def spy(given, path):
        if path.name == spy.stop:
            raise KeyboardInterrupt
        seen.append(path.name)
        return real(given, path)

    spy.stop = None
    monkeypatch.setattr(home, "with_checkpoint", spy)
    return spy, seen


@pytest.fixture(scope="session")
def measured_checkpoints(series_images, tmp_path_factory):
    """Two checkpoints and a series of them."""
    home = tmp_path_factory.mktemp("two")
    for epoch in (1, 2):
        torch.save(between(epoch / 2), home / f"e{epoch}.pth")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("run.write_report", "series.write_series_report"):
            patch.setattr(f"natstats.report.pages.{name}", lambda *_: None)
        measure_series(network(), home / "e*.pth", series_images, out=home / "out")
    return home


@pytest.fixture
def measure_again(measured_checkpoints, tmp_path, series_images, quick):
    """Two checkpoints, measured; a function that measures them again."""
    shutil.copytree(measured_checkpoints, tmp_path, dirs_exist_ok=True)

    def again(pictures=series_images, model=None, **options):
        chosen = {"out": tmp_path / "out", **options}
        return measure_series(model or network(), tmp_path / "e*.pth", pictures, **chosen)

    return again


@pytest.fixture(scope="session")
def six_networks(made_networks):
    """Six networks of three families, of three depths."""
    models = ("resnet20", "resnet56", "vgg16_bn", "vgg11", "cifar_wrn_16_2", "resnet110")
    return {
        f"net{k}": made_networks.run(k, 0.04 + 0.005 * k, (8, 10, 14)[k % 3], model)
        for k, model in enumerate(models)
    }


@pytest.fixture(scope="session")
def law_of_six(six_networks):
    return meta_analysis(six_networks, by="family")
