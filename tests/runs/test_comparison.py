"""Two runs compared: zero is zero, a known difference is found and covered, and chance is not."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import natstats
from natstats.fits.options import FitOptions
from natstats.law.differences import Differences, ErrorSource, Estimate, holm, slopes_apart
from natstats.law.law import fit_law
from natstats.law.regression import Design, LayerErrors
from natstats.runs.comparison import compare
from natstats.runs.run import Run
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of

SIDE = 16
N_IMAGES = 48
EDGES = "sine"


def layer_named(name, depth, kind="conv"):
    return Layer(name, 0, kind, depth, 1, SIDE, SIDE, 1.0)


def run_of(exponents, generator, shared=None, digest="same", level=0.95):
    """A run whose layers have these exponents, every ring of every image drawn by itself.

    `shared` (N, n_rings) multiplies the power of every layer, as images that both runs saw do.
    """
    members = rings(SIDE, SIDE).n_members
    spectra = []
    for place, alpha in enumerate(exponents):
        expected = natstats.expected_power(alpha, SIDE, SIDE, EDGES)
        drawn = generator.gamma(members / 2, 2 / members, (N_IMAGES, len(members)))
        power = expected * drawn * (1 if shared is None else shared)
        spectra.append(
            LayerSpectrum(
                layer_named(f"l{place}", place + 1), spectrum_of(power, SIDE, SIDE, EDGES)
            )
        )
    return Run(spectra, (), {"name": "run", "images": {"digest": digest}}, FitOptions(level=level))


def contrast(generator, scale=0.3):
    """What makes the images of a run differ: each its own tilt of the spectrum."""
    tilt = scale * generator.standard_normal((N_IMAGES, 1))
    log_frequency = np.log(rings(SIDE, SIDE).frequency)
    return np.exp(tilt * (log_frequency - log_frequency.mean()))


@pytest.fixture(scope="module")
def run():
    return run_of(np.linspace(1.5, 2.5, 8), np.random.default_rng(0))


@pytest.mark.slow
def test_a_run_compared_with_itself_differs_by_exactly_zero(run):
    found = compare(run, run)
    assert found.is_paired
    assert (found.layers.difference == 0).all()
    assert (found.layers.low == 0).all()
    assert (found.layers.high == 0).all()
    assert (found.layers.p_corrected == 1).all()
    assert found.mean == replace(found.mean, value=0, low=0, high=0, p=1)
    assert (found.slope.value, found.slope.low, found.slope.high) == (0, 0, 0)
    assert found.n_differ == 0
    assert "exactly" in found.sentence()


@pytest.mark.slow
def test_swapping_the_runs_swaps_the_signs(run):
    other = run_of(np.linspace(1.5, 2.0, 8), np.random.default_rng(1))
    one, back = compare(run, other), compare(other, run)
    np.testing.assert_allclose(one.layers.difference, -back.layers.difference)
    np.testing.assert_allclose(one.layers.p, back.layers.p)
    assert one.slope.value == pytest.approx(-back.slope.value)
    assert one.slope.p == pytest.approx(back.slope.p)


@pytest.mark.slow
@pytest.mark.parametrize("paired", [True, False])
def test_a_known_difference_is_covered(paired):
    """2.2 - 2.0 in 100 repeats: the share of intervals that hold 0.2 is that of the level."""
    generator = np.random.default_rng(2)
    repeats, held = 100, 0
    for _ in range(repeats):
        image = contrast(generator)
        one = run_of([2.0], generator, image)
        other = run_of(
            [2.2],
            generator,
            image if paired else contrast(generator),
            digest="same" if paired else "other",
        )
        row = compare(one, other).layers.iloc[0]
        held += row.low < 0.2 < row.high
    assert stats.binomtest(held, repeats, 0.95).pvalue > 1e-3, held


@pytest.mark.slow
def test_chance_alone_is_rarely_called_a_difference():
    """After correction at most one family in twenty has a layer that differs; so has the slope."""
    generator = np.random.default_rng(3)
    repeats, any_layer, slopes = 80, 0, 0
    for _ in range(repeats):
        image = contrast(generator)
        one, other = (run_of([2.0] * 6, generator, image) for _ in range(2))
        found = compare(one, other)
        any_layer += found.n_differ > 0
        slopes += found.slope.p < 0.05
    bound = stats.binom.ppf(0.999, repeats, 0.05)
    assert any_layer <= bound
    assert slopes <= bound


@pytest.mark.slow
@pytest.mark.parametrize("digest", ["same", "other"])
def test_the_slope_of_the_differences_is_covered(digest):
    generator = np.random.default_rng(4)
    repeats, held = 80, 0
    flat, rising = np.full(8, 2.0), 2.0 + 0.03 * np.arange(8)
    for _ in range(repeats):
        images = [contrast(generator)] * 2 if digest == "same" else [contrast(generator), None]
        found = compare(
            run_of(flat, generator, images[0]), run_of(rising, generator, images[1], digest)
        )
        held += found.slope.low < 0.03 < found.slope.high
    assert held >= stats.binom.ppf(0.001, repeats, 0.95)


@pytest.mark.slow
def test_the_slope_of_differences_is_the_difference_of_slopes(run):
    other = run_of(np.linspace(1.5, 2.0, 8), np.random.default_rng(1))
    found = compare(run, other)
    # Each weights its layers by its own scatter, so nearly, and not exactly.
    assert found.slope.value == pytest.approx(other.law.slope - run.law.slope, abs=0.002)
    depth = np.arange(1.0, 9.0)
    errors = LayerErrors(
        found.layers.difference.to_numpy(), other.fits.deviations - run.fits.deviations
    )
    line = np.stack([np.ones(8), depth], axis=1)
    slope = errors.regress(Design(line, depth)).coefficient(1)
    assert found.slope.value == pytest.approx(slope.mean)


@pytest.mark.slow
def test_pairing_shortens_the_interval_of_shared_images():
    generator = np.random.default_rng(5)
    image = contrast(generator, 0.6)
    one, other = (run_of([2.0] * 6, generator, image) for _ in range(2))
    stranger = Run(other.spectra, (), {"images": {"digest": "else"}}, other.options)
    paired, apart = compare(one, other), compare(one, stranger)
    assert paired.is_paired
    assert not apart.is_paired
    assert np.array_equal(paired.layers.difference, apart.layers.difference)
    widths = [(c.layers.high - c.layers.low).mean() for c in (paired, apart)]
    assert widths[0] < 0.7 * widths[1]
    assert any("different images" in note for note in apart.notes)


def test_two_independent_means_are_the_test_of_welch():
    """Samples of two values in equal numbers, where the effective dof are n - 1 exactly."""
    one, other = np.tile([1.0, -1.0], 6), 0.7 + np.tile([2.0, -2.0], 10)
    deviations = [
        (sample - sample.mean()) / np.sqrt(len(sample) * (len(sample) - 1))
        for sample in (one, other)
    ]
    sources = [ErrorSource(deviation[:, None]) for deviation in deviations]
    found = Differences(np.array([other.mean() - one.mean()]), sources, 0.95).each()[0]
    expected = stats.ttest_ind(other, one, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.dof == pytest.approx(expected.df)
    ends = expected.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_holm_by_hand():
    corrected = holm(np.array([0.01, np.nan, 0.03, 0.02]))
    np.testing.assert_allclose(corrected, [0.03, np.nan, 0.04, 0.04])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_slopes_of_two_laws_are_taken_as_independent():
    generator = np.random.default_rng(6)
    depth = np.arange(1.0, 13.0)
    laws = [
        fit_law(depth, b * depth + 0.1 * generator.standard_normal(12),
                1e-6 * generator.standard_normal((64, 12)), ["8"] * 12)
        for b in (0.1, 0.2)
    ]  # fmt: skip
    found = slopes_apart(*laws, 0.95)
    errors = [np.sqrt(law.covariance[1][1]) for law in laws]
    assert found.value == pytest.approx(laws[1].slope - laws[0].slope)
    t = found.value / np.hypot(*errors)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), found.dof))
    assert 10 <= found.dof <= 20.1
    nothing = slopes_apart(laws[0], fit_law([], [], np.zeros((0, 0)), []), 0.95)
    assert np.isnan(nothing.value)


def test_layers_of_one_run_only_are_listed(run):
    fewer = Run(run.spectra[:6], (), run.info, run.options)
    found = compare(run, fewer)
    assert found.only == (("l6", "l7"), ())
    assert list(found.layers.layer) == [f"l{i}" for i in range(6)]
    assert any("Only in A: 2 layers (l6, l7)" in note for note in found.notes)


@pytest.mark.slow
def test_networks_without_common_names_are_compared_by_slope(run):
    renamed = [
        LayerSpectrum(replace(m.layer, name=f"other{i}"), m.spectrum)
        for i, m in enumerate(run.spectra)
    ]
    found = compare(run, Run(renamed, (), run.info, run.options))
    assert found.layers.empty
    assert found.n_layers == 0
    assert np.isnan(found.mean.value)
    assert found.slope.value == pytest.approx(0.0)
    assert "slopes" in found.sentence()
    assert any("compared by name" in note for note in found.notes)


def test_nothing_that_can_be_compared_says_so(run, tmp_path):
    one = Run(run.spectra[:1], (), run.info, run.options)
    other = Run(run.spectra[1:2], (), run.info, run.options)
    found = compare(one, other)
    assert "Nothing" in found.sentence()
    path = found.save(tmp_path / "out")
    assert {p.name for p in path.iterdir()} == {
        "comparison.json", "comparison.csv", "report.html", "figures",
    }  # fmt: skip
    assert "No layer has the same name in both runs." in (path / "report.html").read_text()


def test_a_layer_without_an_exponent_has_no_difference(run):
    first = run.spectra[2]
    empty = replace(first.spectrum, power=0 * first.spectrum.power)
    spectra = [*run.spectra[:2], LayerSpectrum(first.layer, empty), *run.spectra[3:]]
    found = compare(run, Run(spectra, (), run.info, run.options))
    row = found.layers.iloc[2]
    assert np.isnan(row.difference)
    assert np.isnan(row.p_corrected)
    assert "constant" in row["flags"]
    assert found.n_layers == 7
    assert np.isfinite(found.slope.value)


def test_images_alone_are_compared():
    """They have rows and a mean, and are no layers."""
    fields = [
        natstats.power_law_fields(40, 16, 16, alpha, seed=i)[:, None]
        for i, alpha in enumerate((2.0, 1.0))
    ]
    runs = list(map(natstats.measure_images, fields))
    found = compare(*runs)
    assert found.n_layers == found.n_differ == 0
    assert list(found.layers.layer) == ["input"]
    assert found.mean.value == pytest.approx(-1.0, abs=0.15)
    assert found.mean.value == pytest.approx(found.layers.difference[0])
    assert not found.is_paired
    text = found.sentence()
    assert text.startswith("array (B) differs from array (A): exponent of the images ")
    assert " layer" not in text
    same = compare(runs[0], runs[0]).sentence()
    assert same == "The exponents of array (B) are exactly those of array (A)."


def with_images(run, names=("input.grey", "input.colour"), alpha=2.0, seed=0):
    """The run with rows of its images before its layers."""
    images = run_of([alpha] * len(names), np.random.default_rng(seed)).spectra
    rows = [
        LayerSpectrum(replace(m.layer, name=name, kind="input", depth=0), m.spectrum)
        for name, m in zip(names, images, strict=True)
    ]
    return Run([*rows, *run.spectra], (), run.info, run.options)


def renamed(run, n_layers=None):
    """The same layers under other names, as those of another architecture."""
    spectra = [
        LayerSpectrum(replace(m.layer, name=f"other.{i}"), m.spectrum)
        for i, m in enumerate(run.spectra[:n_layers])
    ]
    return Run(spectra, (), run.info, run.options)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("input",), ("input.grey", "input.colour")])
def test_images_are_no_layers(run, names):
    """Not in the numbers, the sentence, the table or the notes; they keep their rows."""
    other = run_of(np.linspace(1.5, 2.0, 8), np.random.default_rng(1))
    found, plain = (
        compare(with_images(run, names, seed=5), with_images(other, names, 1.0, seed=6)),
        compare(run, other),
    )
    assert list(found.layers.layer[: len(names)]) == list(names)
    assert found.layers.p[: len(names)].max() < 0.05  # the images do differ
    assert found.layers.p_corrected[: len(names)].isna().all()
    assert (found.mean, found.slope) == (plain.mean, plain.slope)
    assert (found.n_layers, found.n_differ) == (plain.n_layers, plain.n_differ)
    assert found.sentence() == plain.sentence()
    for rows in range(2, 9):
        shown = [line for line in found.table(rows).splitlines() if re.search(r"\bconv$", line)]
        assert f"({8 - len(shown)} of 8 layers not shown)" in found.table(rows)


@pytest.mark.slow
def test_networks_that_share_only_images_compare_their_laws(run):
    """Two architectures on the same photographs: input.grey and input.colour are in both."""
    for other, n_only in ((renamed(run), 8), (renamed(run, 6), 6)):
        found = compare(with_images(run), with_images(other))
        assert (found.n_layers, found.n_differ) == (0, 0)
        assert np.isnan(found.mean.value)
        assert found.slope.value == pytest.approx(other.law.slope - run.law.slope)
        assert [len(names) for names in found.only] == [8, n_only]
        text = found.sentence()
        assert "no layer bears the same name in both, difference of the slopes" in text
        assert "exactly" not in text
        assert "of 2 layers" not in json.dumps(found.to_dict())
        assert any(note.startswith("No layer bears the same name") for note in found.notes)
        assert not any("cancels" in note for note in found.notes)


@pytest.mark.slow
def test_a_network_and_its_images_alone_share_no_layer(run):
    images = Run(with_images(run).spectra[:2], (), run.info, run.options)
    found = compare(with_images(run), images)
    assert found.n_layers == 0
    assert np.isnan(found.mean.value)
    assert found.sentence().endswith("could be compared: no layer bears the same name in both.")


def test_layers_without_an_exponent_are_told_from_missing_ones(run):
    first = run.spectra[0]
    empty = LayerSpectrum(first.layer, replace(first.spectrum, power=0 * first.spectrum.power))
    one, other = (Run(spectra, (), run.info, run.options) for spectra in ([empty], [first]))
    text = compare(with_images(one), with_images(other)).sentence()
    assert text.endswith("no layer of the same name has an exponent in both.")


@pytest.mark.slow
def test_images_of_one_run_only_are_named_apart_from_layers(run):
    found = compare(with_images(run), with_images(run, ("input",)))
    assert found.only == ((), ())
    assert "Of the images only in A: input.grey, input.colour." in found.notes
    assert "Of the images only in B: input." in found.notes
    assert found.n_layers == 8


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"band": (0.05, 0.4)}, "band"),
        ({"estimator": "ols"}, "estimator"),
        ({"level": 0.9}, "level"),
        ({"normalize": True}, "normalize"),
        ({"depth": "order"}, "depth"),
    ],
)
def test_runs_fitted_in_different_ways_are_refused(run, change, name):
    with pytest.raises(natstats.UsageError, match=rf"^{name}: expected the same.*natstats fit"):
        compare(run, run.refit(**change))


def test_runs_with_other_edges_are_refused(run):
    other = [LayerSpectrum(m.layer, replace(m.spectrum, edges="hann")) for m in run.spectra]
    with pytest.raises(natstats.UsageError, match=r"^edges: .*got sine and hann .*measure"):
        compare(run, Run(other, (), run.info, run.options))


@pytest.mark.slow
@pytest.mark.parametrize("info", [{}, {"images": None}, {"images": {"digest": None}}])
def test_without_a_record_of_the_images_nothing_is_paired(run, info):
    bare = Run(run.spectra, (), info, run.options)
    found = compare(bare, bare)
    assert not found.is_paired
    assert any("does not record" in note for note in found.notes)


def test_other_groups_of_the_same_images_are_not_paired(run):
    spectra = [
        LayerSpectrum(
            m.layer,
            replace(
                m.spectrum,
                power=m.spectrum.power.reshape(24, 2, -1).sum(1),
                normalized=m.spectrum.normalized.reshape(24, 2, -1).sum(1),
                count=np.full(24, 2),
                offset=np.zeros(24),
            ),
        )
        for m in run.spectra
    ]
    found = compare(run, Run(spectra, (), run.info, run.options))
    assert not found.is_paired
    assert any("groups" in note for note in found.notes)
    assert found.layers.p.min() > 0.9


@pytest.mark.slow
def test_a_comparison_is_written_whole_and_kept(run, tmp_path):
    other = run_of(np.linspace(1.5, 2.0, 8), np.random.default_rng(1))
    found = compare(run, other, ("one", "two"))
    path = found.save(tmp_path / "out")
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    figures = {f"figures/{n}.{kind}" for n in ("difference", "compare") for kind in ("png", "svg")}
    assert names == {"comparison.csv", "comparison.json", "report.html", *figures}
    record = json.loads((path / "comparison.json").read_text())
    assert record["names"] == ["one", "two"]
    assert record["sentence"] == found.sentence()
    assert record["slope"]["value"] == found.slope.value
    with pytest.raises(natstats.UsageError, match="exists and is kept"):
        found.save(path)
    found.save(path, overwrite=True)
    home = run.save(tmp_path / "run", report=False)
    with pytest.raises(natstats.UsageError, match="expected a comparison to overwrite"):
        found.save(home, overwrite=True)
    with pytest.raises(natstats.UsageError, match="expected a run to overwrite"):
        run.save(path, overwrite=True)


@pytest.mark.slow
def test_the_sentence_and_the_table_carry_the_numbers(run):
    other = run_of(np.linspace(1.5, 3.0, 8), np.random.default_rng(1))
    found = compare(run, other, ("one", "two"))
    text = found.sentence()
    assert text.startswith("two differs from one: exponent ")
    for part in (f"{found.mean.value:+.4f}", f"{found.n_differ} of 8 layers", "95 % interval"):
        assert part in text
    assert len(found.table().splitlines()) == 11
    assert "(4 of 8 layers not shown)" in found.table(4)


def test_an_estimate_that_cannot_be_had_is_nan():
    assert np.isnan(Estimate.of(np.nan, [1.0], [3.0], 0.95).p)
    assert np.isnan(Estimate.of(1.0, [np.nan], [3.0], 0.95).low)
