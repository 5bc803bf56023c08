"""The progress of a measurement from Python: a bar where one is asked for, or in a notebook."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.measurement.progress import is_notebook

IMAGES = np.random.default_rng(0).random((6, 1, 12, 12), np.float32)


@pytest.fixture
def kernel(monkeypatch):
    """A notebook, as far as can be seen without importing it."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def test_there_is_no_bar_unless_it_is_asked_for(capsys):
    natstats.measure_images(IMAGES, batch_size=2)
    assert capsys.readouterr().err == ""
    natstats.measure_images(IMAGES, batch_size=2, progress=True)
    assert "6/6" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_notebook_has_one_unless_it_is_not_wanted(kernel, capsys):
    assert is_notebook()
    natstats.measure_images(IMAGES, progress=False)
    assert capsys.readouterr().err == ""
    natstats.measure_images(IMAGES)
    assert "6/6" in capsys.readouterr().err


def test_a_terminal_of_ipython_is_no_notebook(monkeypatch):
    for shell in (None, SimpleNamespace()):
        fake = SimpleNamespace(get_ipython=lambda shell=shell: shell)
        monkeypatch.setitem(sys.modules, "IPython", fake)
        assert not is_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace())
    assert not is_notebook()


def test_it_is_the_same_for_networks_and_series(capsys, tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    seen = []
    natstats.measure(model, IMAGES, batch_size=3, progress=lambda *one: seen.append(one))
    assert seen == [(3, 6), (6, 6)]
    natstats.measure(model, IMAGES, progress=True)
    assert "6/6" in capsys.readouterr().err
    for epoch in (0, 1):
        torch.save(model.state_dict(), tmp_path / f"epoch_{epoch}.pth")
    natstats.measure_series(model, tmp_path, IMAGES, progress=True)
    assert "12/12" in capsys.readouterr().err
    with pytest.raises(natstats.UsageError, match=r"^progress: expected True, False or a function"):
        natstats.measure(model, IMAGES, progress="yes")
