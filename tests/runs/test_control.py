"""The random-weights control of a run: what training did is found, kept and told."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

import natstats
from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.law.differences import Differences, Estimate
from natstats.law.regression import Design, LayerErrors
from natstats.law.seed_variance import seeds_as_source
from natstats.networks.load import Network
from natstats.networks.random_weights import with_random_weights
from natstats.runs.control import Control, RandomWeights, compare_with_random
from natstats.runs.run import Run
from natstats.spectra.records import LayerSpectrum

N_LAYERS = 6


def network(trained: bool = True) -> nn.Sequential:
    """Six convolutions; trained, the second is a blur and the others change nothing."""
    torch.manual_seed(7)
    layers = [nn.Conv2d(3, 3, 5, padding=2) for _ in range(N_LAYERS)]
    if trained:
        place = torch.arange(-2.0, 3.0)
        bump = torch.exp(-(place[:, None] ** 2 + place[None] ** 2) / 4)
        with torch.no_grad():
            for number, layer in enumerate(layers):
                layer.weight.zero_()
                layer.bias.zero_()
                for channel in range(3):
                    layer.weight[channel, channel, 2, 2] = 1.0
                    if number == 1:
                        layer.weight[channel, channel] = bump / bump.sum()
    return nn.Sequential(*layers).eval()


@pytest.fixture(scope="module")
def images():
    fields = natstats.power_law_fields(60, 32, 32, alpha=1.0, seed=0)
    return np.float32(fields.reshape(20, 3, 32, 32))


@pytest.fixture(scope="module")
def run(images):
    return natstats.measure(network(), images, control="random-weights", control_seeds=2)


@pytest.mark.slow
def test_what_training_did_is_found(run):
    """A blur raises the exponent from its layer on, and not before."""
    rows = run.control.layers
    assert list(rows.layer) == [str(i) for i in range(N_LAYERS)]
    np.testing.assert_allclose(rows.difference, rows.exponent - rows.control_mean)
    np.testing.assert_allclose(rows.control_mean, rows[["seed_0", "seed_1"]].mean(axis=1))
    np.testing.assert_allclose(rows.control_sd, rows[["seed_0", "seed_1"]].std(axis=1))
    assert rows.difference[1] > 0.8
    assert (rows.low < rows.difference).all()
    assert (rows.reason == "").all()


@pytest.mark.slow
def test_a_clear_difference_is_significant_with_enough_seeds(images):
    found = natstats.measure(network(), images, control="random-weights", control_seeds=8).control
    rows = found.layers
    assert rows.low[1] > 0.0
    assert found.mean.low > 0.0
    assert "Training raised the exponents" in found.sentence()
    assert len(found.seeds) == 8


@pytest.mark.slow
def test_controls_saw_the_same_images_with_weights_by_seed(run, images):
    other = with_random_weights(Network(network(), "Sequential", "as given"), 1)
    again = natstats.measure(other.model, images)
    np.testing.assert_allclose(
        run.control.layers.seed_1, again.layers.exponent[again.layers.kind != "input"], rtol=1e-6
    )
    for one in run.random_weights:
        assert one.info["images"]["digest"] == run.info["images"]["digest"]
        assert one.info["model"]["trained"] is False
        assert one.info["model"]["digest"] != run.info["model"]["digest"]


def test_the_slope_of_the_control_is_that_of_the_differences(run):
    control = run.control
    rows = control.layers[:-1]  # the last is the network's own output
    assert control.slope.value == pytest.approx(control.slope_trained - control.slope_random)
    # All three with the same weights of the layers, those of the regression of the differences.
    random = [Run(one.spectra, options=run.options).fits for one in run.random_weights]
    own = run.fits.deviations[:, -N_LAYERS:]
    paired = own - np.mean([fits.deviations for fits in random], axis=0)
    depth = np.arange(1.0, N_LAYERS)
    errors = LayerErrors(rows.difference.to_numpy(), paired[:, :-1])
    by_hand = errors.regress(Design(np.stack([np.ones_like(depth), depth], axis=1), depth))
    assert control.slope.value == pytest.approx(by_hand.mean[1])
    weights = by_hand.mean_rows[1]
    assert control.slope_trained == pytest.approx(weights @ rows.exponent)


def test_the_error_of_seeds_is_that_of_one_more_and_their_mean(run):
    """Without an error of the images: Student's t with one degree of freedom less than seeds."""
    frozen = [
        fit.__class__(**{**vars(fit), "deviations": 0 * fit.deviations}) for fit in run.fits.layers
    ]
    fits = run.fits.__class__(run.options, frozen)
    still = [
        RandomWeights(one.seed, one.info, _noiseless(one.spectra), []) for one in run.random_weights
    ]
    row = compare_with_random(run.spectra, fits, still).layers.iloc[3]
    sd = np.std([row.seed_0, row.seed_1], ddof=1)
    error = sd * np.sqrt(1 + 1 / 2)
    assert row.p == pytest.approx(2 * stats.t.sf(abs(row.difference) / error, 1), rel=1e-3)
    reach = stats.t.ppf(0.975, 1) * error
    assert row.high - row.difference == pytest.approx(reach, rel=1e-3)


def _noiseless(spectra):
    """The same mean spectrum in every group."""
    alike = []
    for m in spectra:
        power = np.where(m.spectrum.count[:, None] > 0, m.spectrum.mean_power, 0.0)
        values = {**vars(m.spectrum), "power": power}
        alike.append(LayerSpectrum(m.layer, type(m.spectrum)(**values)))
    return alike


NOTHING, SHORT = (-0.1, 0.1), (0.002, 0.004)
WIDE_MEAN, WIDE_SLOPE = (-0.1, 0.3), (-0.002, 0.2)  # over four layers, 0.2 is a change of 0.8


def verdict(run, mean=NOTHING, slope=(-0.002, 0.004), n_differ=0, n_seeds=3):
    """The sentence for these intervals of the difference, of the mean and per layer."""
    estimates = {
        name: Estimate(sum(ends) / 2, *ends, 0.5, 2.0)
        for name, ends in (("mean", mean), ("slope", slope))
    }
    found = natstats.runs.control._undecided(*estimates.values(), span=4.0)
    changes = {"n_differ": n_differ, "undecided": found, "seeds": tuple(range(n_seeds))}
    return Control(**{**vars(run.control), **estimates, **changes}).sentence()


def test_the_sentence_follows_from_the_intervals(run):
    """An interval without zero is a change; one with zero and a large change tells nothing."""
    assert verdict(run).startswith(
        "Training changed the exponents, if at all, by less than 0.25 in the mean: "
    )
    for ends, word in ((SHORT, "raised"), ((-0.004, -0.002), "lowered")):
        assert verdict(run, mean=ends).startswith(f"Training {word} the exponents: ")
        assert verdict(run, slope=ends).startswith(
            f"Training {word} the slope of the exponents, but their mean, if at all, by less than"
        )
    text = verdict(run, WIDE_MEAN, SHORT)
    assert "slope of the exponents, but 3 seeds are too few to tell whether it changed" in text
    assert verdict(run, n_differ=1).startswith("Training changed single layers, but their mean, if")
    for mean in (WIDE_MEAN, (-0.3, 0.1)):
        for slope in (NOTHING, WIDE_SLOPE):
            text = verdict(run, mean, slope, n_seeds=4)
            assert text.startswith("4 seeds are too few to tell whether training changed the exp")
    text = verdict(run, NOTHING, WIDE_SLOPE)
    assert "by less than 0.25, and 3 seeds are too few to tell whether it changed their sl" in text


@pytest.mark.parametrize("low", [-0.001, -0.04, -0.3, -2.0])
def test_the_wider_interval_never_has_the_firmer_sentence(run, low):
    """From 10 seeds on it is not their number, and the words do not turn with p."""
    text = verdict(run, (low, 0.6), SHORT, n_seeds=10)
    assert ", but 10 seeds do not tell whether it changed their mean: " in text


def test_the_slopes_of_the_control_are_told_from_that_of_the_law(run):
    *_, slopes, weights = verdict(run).split(". ")
    assert slopes.startswith("The slope per weight layer")
    assert weights.startswith("Layers weigh here by the errors of their differences, in the law by")


@pytest.mark.parametrize(("shift", "undecided"), [(0.1, ("mean",)), (3.5, ("mean",)), (40.0, ())])
def test_three_seeds_that_differ_tell_little(shift, undecided):
    """One layer, three seeds of sd 1, no error of the images: t of two degrees of freedom.

    The error is sqrt(1 + 1/3), and the interval reaches 4.97 to both sides.
    """
    seeds = np.array([[-1.0], [0.0], [1.0]])
    found = Differences(np.array([shift]), [seeds_as_source(seeds)], 0.95).mean([0])
    assert found.high - shift == pytest.approx(stats.t.ppf(0.975, 2) * np.sqrt(4 / 3))
    assert natstats.runs.control._undecided(found, Estimate(), 1.0) == undecided


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    """The run's directory, with its page and figures; not to be changed."""
    return run.save(tmp_path_factory.mktemp("saved") / "run")


@pytest.mark.slow
def test_a_run_with_a_control_survives_the_disk_and_a_refit(run, saved, tmp_path):
    path = saved
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert {"control.csv", "control.json", "figures/control.svg"} <= names
    assert {f"control/seed-{seed}/spectra.npz" for seed in (0, 1)} <= names
    again = natstats.Run.open(path)
    assert again.control.layers.equals(run.control.layers)
    assert again.control.sentence() == run.control.sentence()
    record = json.loads((path / "control.json").read_text())
    assert record["sentence"] == run.control.sentence()
    assert record["seeds"] == [0, 1]
    refitted = again.refit(estimator="ols", level=0.9)
    assert refitted.control.level == 0.9
    inner = refitted.layers[refitted.layers.kind != "input"]
    assert list(refitted.control.layers.exponent) == list(inner.exponent)
    assert not np.allclose(refitted.control.layers.seed_0, run.control.layers.seed_0)
    path = refitted.save(tmp_path / "refit", report=False)
    assert natstats.Run.open(path).control.layers.equals(refitted.control.layers)


def test_a_damaged_control_is_an_error(run, tmp_path):
    path = run.save(tmp_path / "run", report=False)
    (path / "control" / "seed-1" / "spectra.npz").write_bytes(b"no")
    with pytest.raises(natstats.NatstatsError, match="expected a whole run in .*seed-1"):
        natstats.Run.open(path)
    shutil.rmtree(path / "control")
    assert natstats.Run.open(path).control is None


@pytest.mark.slow
def test_the_report_says_what_training_did(run, saved, tmp_path):
    text = (saved / "report.html").read_text(encoding="utf-8")
    part = text[text.index('<section id="control">') :].partition("</section>")[0]
    assert "What training did" in part
    assert "Training" in part
    assert "<img" in part
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    bare = Run(run.spectra, (), {**run.info, "options": {}}, run.options)
    plain = (bare.save(tmp_path / "bare") / "report.html").read_text(encoding="utf-8")
    assert "control" not in plain[plain.index("<main>") : plain.index("</main>")]
    assert not (tmp_path / "bare" / "control.json").exists()


def test_how_to_repeat_it_from_python(saved):
    text = (saved / "report.html").read_text(encoding="utf-8")
    assert "control=&#39;random-weights&#39;" in text
    assert "control_seeds=2" in text


@pytest.mark.slow
def test_layers_dead_with_random_weights_have_a_reason(run):
    dead, missing = run.random_weights
    spectra = list(dead.spectra)
    values = {**vars(spectra[2].spectrum), "power": 0 * spectra[2].spectrum.power}
    spectra[2] = LayerSpectrum(spectra[2].layer, type(spectra[2].spectrum)(**values))
    skipped = [natstats.spectra.records.SkippedLayer("4", "conv", "maps of 2 x 2 pixels")]
    random = [
        RandomWeights(0, dead.info, spectra, []),
        RandomWeights(1, missing.info, [*missing.spectra[:4], *missing.spectra[5:]], skipped),
    ]
    control = Run(run.spectra, (), run.info, run.options, random).control
    rows = control.layers
    assert rows.difference.isna().tolist() == [False, False, True, False, True, False]
    assert rows.reason[2] == "seed 0: constant"
    assert rows.reason[4] == "seed 1: maps of 2 x 2 pixels"
    assert control.n_layers == 4
    assert np.isnan(control.slope.value)
    assert "4 layers" in control.sentence()


@pytest.mark.slow
def test_no_layer_in_common_is_said(run, tmp_path):
    random = [RandomWeights(seed, {}, [], []) for seed in (0, 1)]
    bare = Run(run.spectra, (), run.info, run.options, random)
    assert "no layer has an exponent" in bare.control.sentence()
    assert bare.control.layers.reason[0] == "seed 0: not measured, seed 1: not measured"
    assert "no layer has" in (bare.save(tmp_path / "run") / "report.html").read_text()


def test_progress_counts_every_pass(images):
    seen = []
    natstats.measure(
        network(), images, control="random-weights", control_seeds=2, batch_size=10,
        progress=lambda *state: seen.append(state),
    )  # fmt: skip
    assert seen == [(10 * n, 60) for n in range(1, 7)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"control": "random"}, "^control: expected one of random-weights; got 'random'"),
        ({"control": "random-weights", "control_seeds": 1}, "^control_seeds: .*at least 2; got 1"),
    ],
)
def test_bad_arguments_are_named(images, arguments, words):
    with pytest.raises(natstats.UsageError, match=words):
        natstats.measure(network(), images, **arguments)


def test_an_untrained_network_has_no_control(images):
    with pytest.raises(natstats.UsageError, match=r"^control: expected a trained network; got"):
        natstats.measure("cifar_resnet20", images, weights="none", control="random-weights")


class Scaled(nn.Module):
    """Owns a parameter and has no word on how to reset it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gain * self.conv(x)


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (nn.Sequential(Scaled()), "0.gain"),
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 3))),
            "0.parametrizations.weight.original0",
        ),
    ],
)
def test_parameters_that_nothing_resets_are_named(images, model, named):
    with pytest.raises(natstats.UsageError, match=rf"^control: .*none covers {re.escape(named)}"):
        natstats.measure(model, images, control="random-weights")


def test_the_controls_hold_no_images(run):
    for one in run.random_weights:
        assert all(m.layer.kind != "input" for m in one.spectra)
        assert all(len(m.spectrum.image_power) == 0 for m in one.spectra)
    fits = fit_layers(run.random_weights[0].spectra, FitOptions())
    assert np.isfinite(fits.exponents).all()
