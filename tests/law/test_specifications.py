"""Specifications: every combination is a fit of its own, and none counts twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

import natstats
from natstats.files.csv_files import read_csv
from natstats.files.ownership import KINDS
from natstats.fits.alternatives import alternative_exponents
from natstats.fits.band_choice import ImageBand, band_text
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.exponents import fit_spectrum
from natstats.fits.held_bands import common_band
from natstats.law.regression import Design, LayerErrors
from natstats.law.specifications import (
    CHOICES,
    Specification,
    Specifications,
    subsets_of,
    try_all,
)
from natstats.law.trend import outcome_of
from natstats.numbers import map_size
from natstats.runs.run import Run
from natstats.spectra.records import LayerSpectrum

N = 16
EXPONENTS = 1 + 0.1 * np.arange(N) + 0.05 * np.random.default_rng(0).standard_normal(N)
SIDES = [24] * 6 + [16] * 6 + [12] * 4
KINDS_OF = ["conv", "conv", "act"] * 5 + ["act"]
FIELDS = [*(3.0 + 2 * np.arange(8)), *(30.0 + 9 * np.arange(8))]


@pytest.fixture(scope="module")
def run(made_run):
    return made_run(EXPONENTS, SIDES, KINDS_OF, fields=FIELDS, bend=0.4)


@pytest.fixture(scope="module")
def tried(run):
    return try_all(run.spectra, run.layers, run.options)


def test_the_one_that_was_asked_for_is_first_and_is_the_law(run, tried):
    first, law = tried.rows[0], run.law
    assert [getattr(first, choice) for choice in CHOICES] == [
        "octave", "whole", "all", "layers", "left alone",
    ]  # fmt: skip
    assert (first.n_layers, first.slope) == (N, pytest.approx(law.slope))
    assert (first.p, first.rank_p) == pytest.approx((law.trend_p, law.rank_p))
    ends = first.change_low / (N - 1), first.change_high / (N - 1)
    assert ends == pytest.approx((law.slope_low, law.slope_high))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "whittle"},
        {"estimator": "ols", "depth": "receptive-field"},
        {"depth": "normalized"},
        {"depth": "order"},
        {"band": (0.05, 0.4)},
        {"band": "1:5/image"},
        {"band": "1:6/image"},  # which is the common one
        {"level": 0.5},
        {"normalize": True},
    ],
)
def test_whatever_is_asked_for_comes_first(run, options):
    asked = run.refit(**options)
    first, law = asked.verdict.specifications.rows[0], asked.law
    own = asked.options
    assert (first.estimator, first.depth, first.layers) == (own.estimator, own.depth, "all")
    assert first.band == ("whole" if own.band == (0.0, 0.5) else band_text(own.band))
    assert first.map_size == "left alone"
    assert (first.slope, first.p, first.rank_p) == pytest.approx(
        (law.slope, law.trend_p, law.rank_p)
    )
    unit = first.change / first.slope
    assert (first.change_low / unit, first.change_high / unit) == pytest.approx(
        (law.slope_low, law.slope_high)
    )


def test_groups_without_images_change_nothing(made_run):
    """Else a run of few images in 128 groups would have other degrees of freedom here."""
    plain, padded = (
        made_run(EXPONENTS[:8], [16] * 8, n_images=6, empty=empty) for empty in (0, 90)
    )
    ends = [one.verdict.specifications.rows[0] for one in (plain, padded)]
    assert ends[1].change_low == pytest.approx(ends[0].change_low)
    assert ends[1].p == pytest.approx(padded.law.trend_p)


def test_relative_depth_is_that_of_the_deepest_layer_measured(made_run):
    """The network's own output is the deepest, and is not in the law."""
    own = made_run(EXPONENTS[:9], [16] * 9, output=True, depth="normalized")
    assert own.law.n_layers == 8
    assert own.verdict.specifications.rows[0].slope == pytest.approx(own.law.slope)
    assert own.verdict.left_out[0].slope == pytest.approx(
        own.refit(law_layers="-block.0").law.slope
    )


def test_every_choice_is_combined_with_every_other(tried):
    frame = tried.frame
    common = "1 to 6 cycles per image"
    values = {
        "estimator": {*ESTIMATORS},
        "band": {"whole", "without the top octave", "without the bottom octave", common},
        "layers": {
            "all", "only conv", "only act", "without the first", "without maps of 24 × 24",
            "without maps of 16 × 16", "without maps of 12 × 12",
        },
        "depth": {"layers", "receptive-field"},  # the order is the depth
        "map_size": {"left alone", "covariate"},
    }  # fmt: skip
    for choice in CHOICES:
        assert set(frame[choice]) == values[choice]
    assert not frame.duplicated(list(CHOICES)).any()
    assert len(frame) == 3 * 4 * 7 * 2 * 2 == len(tried.rows)


def test_the_frame_has_a_row_for_each_by_their_change(tried):
    frame = tried.frame
    assert list(frame.columns) == [field.name for field in fields(Specification)]
    assert frame.change.is_monotonic_increasing
    assert Counter(frame.outcome) == tried.counts
    assert (frame.change_low <= frame.change).all()
    assert (frame.change <= frame.change_high).all()
    found = [outcome_of(*cells) for cells in zip(frame.slope, frame.p, frame.rank_p, strict=True)]
    assert found == frame.outcome.tolist()


def test_a_single_specification_is_the_regression_of_its_layers(run, tried):
    """Whittle, without the top octave, layers of one kind, by receptive field, with map size."""
    (row,) = (
        row
        for row in tried.rows
        if (row.estimator, row.band) == ("whittle", "without the top octave")
        and (row.layers, row.depth, row.map_size) == ("only conv", "receptive-field", "covariate")
    )
    chosen = np.flatnonzero([kind == "conv" for kind in KINDS_OF])
    layers = [run.spectra[place] for place in chosen]
    fits = [
        fit_spectrum(
            one.spectrum,
            replace(run.options, estimator="whittle",
                    band=(one.spectrum.frequency[0], one.spectrum.frequency[-1] / 2)),
        )
        for one in layers
    ]  # fmt: skip
    depth = np.array(FIELDS)[chosen]
    side = np.log(np.array(SIDES)[chosen])
    columns = np.stack([np.ones_like(depth), depth, side], axis=1)
    sizes = [map_size(SIDES[place], SIDES[place]) for place in chosen]
    errors = LayerErrors(
        np.array([fit.exponent for fit in fits]),
        np.stack([fit.deviations for fit in fits], axis=1),
    )
    slope = errors.regress(Design(columns, depth, sizes)).coefficient(1)
    assert row.n_layers == len(chosen)
    assert (row.slope, row.p) == pytest.approx((slope.mean, slope.p()))
    span = max(FIELDS) - min(FIELDS)
    assert row.change == pytest.approx(slope.mean * span)
    assert (row.change_low, row.change_high) == pytest.approx(
        tuple(span * end for end in slope.interval(run.options.level))
    )


@pytest.mark.slow
@pytest.mark.parametrize("band", [(0.0, 0.5), (0.06, 0.45), ImageBand(1, 5)])
def test_exponents_in_other_bands_are_those_of_a_full_fit(run, band):
    """By every estimator, with the deviations of the groups of images."""
    asked = run.refit(band=band)
    found = {(one.estimator, one.band): one for one in
             alternative_exponents(run.spectra, asked.options)}  # fmt: skip
    assert len(found) == 4 * len(ESTIMATORS)
    common = ImageBand(*common_band(run.spectra))
    name = "whole" if band == (0.0, 0.5) else band_text(band)
    for estimator in ESTIMATORS:
        for words, choice in ((name, band), (band_text(common), common)):
            again = asked.refit(estimator=estimator, band=choice).fits
            own = found[estimator, words]
            np.testing.assert_allclose(own.exponents, again.exponents, rtol=1e-9)
            np.testing.assert_allclose(own.deviations, again.deviations, atol=1e-9)
        for side in set(SIDES):
            at = [place for place, own in enumerate(SIDES) if own == side]
            whole = asked.fits.layers[at[0]]
            inside = np.isfinite(whole.fitted_power)
            frequency = run.spectra[at[0]].spectrum.frequency[inside]
            for words, ends in (
                ("without the top octave", (frequency[0], frequency[-1] / 2)),
                ("without the bottom octave", (2 * frequency[0], frequency[-1])),
            ):
                again = asked.refit(estimator=estimator, band=(float(ends[0]), float(ends[1])))
                own = found[estimator, words]
                np.testing.assert_allclose(own.exponents[at], again.fits.exponents[at], rtol=1e-9)
                np.testing.assert_allclose(
                    own.deviations[:, at], again.fits.deviations[:, at], atol=1e-9
                )


def test_layers_without_an_exponent_have_none_in_any_band(made_run):
    own = made_run([1.0, 2.0, 2.0, 2.0, 5.5, 2.0], [16] * 5 + [6])
    spectra = list(own.spectra)
    for place, change in ((1, 0.0), (2, np.r_[np.ones(7), 0.0])):
        spectrum = spectra[place].spectrum
        nothing = replace(spectrum, power=spectrum.power * change)
        spectra[place] = LayerSpectrum(spectra[place].layer, nothing)
    again = Run(spectra, options=own.options)
    for one in alternative_exponents(spectra, own.options):
        assert np.isnan(one.exponents[[1]]).all()
        if one.band == "whole":
            full = again.refit(estimator=one.estimator)
            has = np.isfinite(full.fits.exponents)
            has &= ~full.layers["flags"].str.contains("beyond range").to_numpy()
            assert np.isfinite(one.exponents).tolist() == has.tolist()
        if one.band.startswith("without"):
            assert np.isnan(one.exponents[5])  # three rings, and an octave less


def test_choices_that_are_the_same_count_once(made_run):
    """A chain of layers of one kind on maps of one size: only bands and the first layer differ."""
    own = made_run(EXPONENTS[:10], [16] * 10, fields=list(3.0 + 2 * np.arange(10)))
    found = own.verdict.specifications
    assert set(found.frame.layers) == {"all", "without the first"}
    assert set(found.frame.depth) == {"layers"}
    assert set(found.frame.map_size) == {"left alone"}
    # What all layers hold is the whole band.
    bands = {"whole", "without the top octave", "without the bottom octave"}
    assert set(found.frame.band) == bands
    assert len(found.rows) == 3 * 3 * 2


def test_a_band_that_some_layers_lack_is_no_choice_of_layers(made_run):
    """Without an octave the layers of three rings have no exponent, whoever leaves them out.

    And the widest band that all other maps hold is, on maps of one size, the whole one.
    """
    own = made_run([*EXPONENTS[:8], 2.0, 2.1], [16] * 8 + [6] * 2)
    frame = own.verdict.specifications.frame
    assert (own.layers.n_rings.tail(2) < 4).all()
    few = frame[frame.layers == "without few rings"]
    assert set(few.band) == {"whole"}
    # Leaving out the first as well is new.
    assert set(frame[frame.band.str.endswith("image")].layers) == {"without the first"}
    assert (few.n_layers == 8).all()
    assert "without maps of 6 × 6" not in set(frame.layers)
    whole = frame[(frame.layers == "all") & (frame.band == "whole")]
    assert (whole.n_layers == 10).all()


@pytest.mark.slow
def test_too_few_layers_for_a_choice_leave_it_out(made_run):
    own = made_run(EXPONENTS[:8], [24] * 4 + [16] * 4, ["conv"] * 5 + ["act"] * 3)
    frame = own.verdict.specifications.frame
    assert set(frame.layers) == {"all", "only conv", "without the first"}
    nothing = made_run(EXPONENTS[:4], [16] * 4)
    assert nothing.verdict.specifications.rows == []
    assert nothing.verdict.specifications.frame.empty
    assert list(nothing.verdict.specifications.frame.columns) == list(frame.columns)
    assert np.isnan(nothing.verdict.specifications.agreement("rises"))


def test_depths_that_are_not_known_are_left_out_of_their_measure(made_run):
    """Layers without a receptive field stay in the law over depth."""
    known = [3.0, 5.0, 8.0, 12.0, 20.0, 36.0, 50.0, np.nan, np.nan, np.nan]
    frame = made_run(EXPONENTS[:10], [16] * 10, fields=known).verdict.specifications.frame
    of_all = frame[(frame.layers == "all") & (frame.band == "whole")]
    assert set(zip(of_all.depth, of_all.n_layers, strict=True)) == {
        ("layers", 10), ("receptive-field", 7),
    }  # fmt: skip


def test_subsets_of_layers():
    table = pd.DataFrame(
        {
            "kind": ["conv"] * 6 + ["act"] * 5,
            "depth": [2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            "height": [28] * 6 + [7] * 5,
            "width": [28] * 6 + [7] * 5,
            "n_rings": [14] * 6 + [3] * 5,
        }
    )
    found = subsets_of(table)
    # Without few rings and without maps of 7 x 7 is only the convolutions.
    assert list(found) == ["all", "only conv", "only act", "without the first"]
    assert found["only conv"].sum() == 6
    assert np.flatnonzero(~found["without the first"]).tolist() == [1]
    assert list(subsets_of(table.head(5))) == ["all"]


@pytest.mark.slow
def test_it_is_written_with_the_run(run, tmp_path):
    run.save(tmp_path / "run", report=False)
    written = read_csv(tmp_path / "run" / "specifications.csv")
    frame = run.verdict.specifications.frame
    assert list(written.columns) == list(frame.columns)
    assert written.outcome.tolist() == frame.outcome.tolist()
    assert written.change.astype(float).to_numpy() == pytest.approx(frame.change.to_numpy())
    assert KINDS["run"].known.fullmatch("specifications.csv")
    assert KINDS["run"].known.fullmatch("figures/specifications.svg")
    again = natstats.Run.open(tmp_path / "run").verdict.specifications.frame
    pd.testing.assert_frame_equal(again, frame)


ROW = Specification("octave", "whole", "all", "layers", "left alone", 9, *[0.1] * 6, "rises")


def made(*outcomes, **choices):
    """Specifications with these outcomes, and values of choices for each."""
    rows = [
        replace(ROW, outcome=outcome, **{name: values[place] for name, values in choices.items()})
        for place, outcome in enumerate(outcomes)
    ]
    return Specifications(rows)


@pytest.mark.parametrize(
    ("outcomes", "sentence"),
    [
        (["rises"] * 3, "rises in 3 of 3 specifications, falls in none"),
        (["falls", "no trend"], "falls in 1 of 2 specifications, rises in none"),
        (["falls", "rises", "rises"], "rises in 2 of 3 specifications, falls in 1"),
        (["falls", "rises", "falls"], "falls in 2 of 3 specifications, rises in 1"),
        (["no trend"] * 4, "neither rises nor falls in any of 4 specifications"),
    ],
)
def test_what_they_find_in_a_sentence(outcomes, sentence):
    assert made(*outcomes).sentence() == sentence


def test_agreement_is_the_share_that_finds_the_same():
    found = made("rises", "rises", "no trend", "falls")
    assert [found.agreement(one) for one in ("rises", "no trend", "falls")] == [0.5, 0.25, 0.25]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"band": ["whole", "whole", "2 to 7 cycles per image", "2 to 7 cycles per image"],
          "depth": ["layers", "order", "layers", "order"]},
         "rises in 2 of 2 in the whole band, in 0 of 2 in the band of 2 to 7 cycles per image"),
        ({"band": ["without the top octave"] * 2 + ["whole"] * 2},
         "rises in 2 of 2 without the top octave, in 0 of 2 in the whole band"),
        ({"map_size": ["left alone", "left alone", "covariate", "covariate"]},
         "rises in 2 of 2 with map size left alone, in 0 of 2 with map size as a covariate"),
        ({"map_size": ["covariate", "covariate", "left alone", "left alone"]},
         "rises in 2 of 2 with map size as a covariate, in 0 of 2 with map size left alone"),
        ({"layers": ["all", "all", "without the first", "only conv"]},
         "rises in 2 of 2 of all layers, in 0 of 1 only conv"),
        ({"depth": ["order", "order", "layers", "layers"]},
         "rises in 2 of 2 by the order of layers, in 0 of 2 by depth"),
        ({"estimator": ["ols", "ols", "octave", "octave"]},
         "rises in 2 of 2 by ols, in 0 of 2 by octave"),
    ],
)  # fmt: skip
def test_the_choice_that_matters_most_is_named(choices, words):
    assert made("rises", "rises", "no trend", "falls", **choices).hinge("rises") == words


def test_where_no_choice_matters_none_is_named():
    assert made("rises", "rises", band="ab").hinge("rises") == ""
    assert made("rises", "no trend").hinge("rises") == ""
