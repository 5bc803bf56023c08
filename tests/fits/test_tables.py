"""Estimators, forms and measures of depth are tables: a record that is added is seen everywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import natstats
from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.estimators import ESTIMATORS, Estimator
from natstats.fits.form_comparison import compare_forms, forms_frame
from natstats.fits.form_fits import fitters_of
from natstats.fits.forms import FORMS, Form
from natstats.fits.options import FitOptions
from natstats.report.pages.results import flag_rows, layer_table

METHOD = Path(__file__).parents[2] / "docs" / "method.md"


def fresh(name: str) -> ModuleType:
    """A module as it is when it is imported for the first time, after a table has grown."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run() -> natstats.Run:
    fields = natstats.power_law_fields(64, 16, 16, alpha=2.0, seed=0)
    return natstats.measure_images(fields[:, None])


@pytest.fixture
def halved(monkeypatch: pytest.MonkeyPatch) -> Estimator:
    octave = ESTIMATORS["octave"]
    one = replace(
        octave,
        name="halved",
        meaning="half of what octave finds",
        estimate=lambda band, power: octave.estimate(band, power) / 2,
        gradient=lambda band, power, alpha: octave.gradient(band, power, 2 * alpha) / 2,
    )
    monkeypatch.setitem(ESTIMATORS, one.name, one)
    return one


@pytest.mark.parametrize("interval", ["jackknife", "bootstrap"])
def test_an_estimator_is_one_record(run: natstats.Run, halved: Estimator, interval: str) -> None:
    again = run.refit(estimator="halved", interval=interval)
    assert again.layers.exponent[0] == run.layers.exponent[0] / 2
    assert again.layers.exponent_low[0] < again.layers.exponent[0] < again.layers.exponent_high[0]
    assert list(again.layers.exponent_halved) == list(again.layers.exponent)
    assert {"exponent_halved", "exponent_ols"} <= {*run.refit().layers.columns}


def test_the_page_and_the_command_know_it(run: natstats.Run, halved: Estimator) -> None:
    table = layer_table(run.refit().layers, run.options)
    (place,) = (i for i, column in enumerate(table.columns) if column.label == "halved")
    assert halved.meaning in table.columns[place].meaning
    assert table.rows[0][place].value == run.layers.exponent[0] / 2
    columns = layer_table(run.refit().layers, FitOptions(estimator="halved")).columns
    assert any(halved.meaning in c.meaning for c in columns if c.label == "exponent")
    assert "halved" in fresh("natstats.fits.options").ESTIMATORS
    assert "halved" in fresh("natstats_cli.options").ESTIMATORS


def test_what_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(UsageError, match="estimator: expected one of octave, whittle, ols"):
        FitOptions(estimator="halved")
    with pytest.raises(UsageError, match="depth: expected one of layers, order"):
        FitOptions(depth="halved")


def test_a_measure_of_depth_is_one_record(
    run: natstats.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    stride = replace(DEPTH_AXES["layers"], column="stride", name="the stride", condition="")
    monkeypatch.setitem(DEPTH_AXES, "stride", stride)
    assert run.refit(depth="stride").law.depth == "stride"
    assert "stride" in fresh("natstats.fits.options").DEPTHS
    assert "stride" in fresh("natstats_cli.options").DEPTHS


@pytest.fixture
def whiter() -> Iterator[Form]:
    """The floor under another name, in place of the floor."""
    one = replace(
        FORMS["floor"],
        name="white part",
        columns=("exponent_beside_white", "white_share"),
        flag="better with a white part",
        meaning="there is noise",
    )
    kept = dict(FORMS)
    del FORMS["floor"]
    FORMS[one.name] = one
    fitters_of.cache_clear()
    yield one
    FORMS.clear()
    FORMS.update(kept)  # in its order
    fitters_of.cache_clear()


@pytest.mark.slow
def test_a_form_is_one_record(whiter: Form) -> None:
    fields = natstats.power_law_fields(64, 32, 32, alpha=2.5, seed=0)
    fields += 4.0 * np.random.default_rng(0).standard_normal(fields.shape)
    noisy = natstats.measure_images(fields[:, None])
    forms = compare_forms(noisy.spectra[0].spectrum)
    assert (forms.best, forms.flag) == ("white part", whiter.flag)
    row = forms_frame(noisy.spectra).loc[0]
    assert row["aicc_white_part"] == 0
    assert row["exponent_beside_white"] == pytest.approx(2.5, abs=0.2)
    assert 0 < row["white_share"] < 1
    assert "aicc_floor" not in row
    assert whiter.flag in noisy.layers["flags"][0]
    assert (whiter.flag, "there is noise") in flag_rows(noisy.layers)
    columns = layer_table(noisy.layers, noisy.options).columns
    assert any("white part" in column.meaning for column in columns)


def test_the_docs_name_every_record() -> None:
    text = METHOD.read_text(encoding="utf-8")
    for name in ESTIMATORS:
        assert f"| `{name}`" in text, name
    for name in [*FORMS][1:]:
        assert f"| {name} |" in text, name
    for name in DEPTH_AXES:
        assert f"`{name}`" in text, name
