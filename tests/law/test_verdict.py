"""The verdict in words: what it is, how sure, and on what it depends, in three lines at most."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pandas as pd
import pytest

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.influence import LeftOut
from natstats.law.law import VERDICTS, Law, fit_law
from natstats.law.specifications import AGREEMENT, Specification, Specifications
from natstats.law.verdict import HEADLINES, Verdict, headline, judge
from natstats.runs.store import to_json

N = 16
RNG = np.random.default_rng(0)
RISING = 1 + 0.1 * np.arange(N) + 0.05 * RNG.standard_normal(N)
ROW = Specification("octave", "whole", "all", "layers", "left alone", 9, *[0.1] * 6, "rises")


def law_of(verdict="rises", **changes):
    depth = np.arange(1.0, N + 1)
    law = fit_law(depth, RISING, 0.01 * np.ones((20, N)) * depth, ["28"] * N)
    return replace(law, verdict=verdict, **changes)


def specifications(n_rises, n_no_trend=0, n_falls=0):
    outcomes = ["rises"] * n_rises + ["no trend"] * n_no_trend + ["falls"] * n_falls
    rows = [
        replace(ROW, outcome=one, estimator="octave" if one == outcomes[0] else "ols")
        for one in outcomes
    ]
    return Specifications(rows)


def left(name, outcome="rises", *, what="layer", is_changed=False):
    return LeftOut(what, name, N - 1, 0.1, 0.01, 0.01, outcome, is_changed)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("depth", DEPTH_AXES)
def test_every_verdict_has_a_headline_that_names_the_depth(verdict, depth):
    words = headline(law_of(verdict, depth=depth))
    assert words == HEADLINES[verdict].format(DEPTH_AXES[depth].name)
    assert len(words) < 90
    assert len(set(HEADLINES.values())) == len(HEADLINES) == len(VERDICTS)


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("changing", [[], ["a"], list("abcde")])
def test_at_most_three_short_lines(verdict, changing):
    hidden = [left(name, "no trend", is_changed=True) for name in changing]
    lines = Verdict(law_of(verdict), specifications(8, 3), hidden).lines()
    assert 2 <= len(lines) <= 3
    assert all(line.endswith(".") and not line.endswith("..") for line in lines)
    assert all(len(line) <= 200 and "\n" not in line for line in lines)
    assert all(line[:1] == line[:1].upper() for line in lines)


@pytest.mark.parametrize("verdict", [one for one in VERDICTS if not one.startswith("depends")])
def test_first_what_then_how_sure_then_on_what_it_depends(verdict):
    law = law_of(verdict)
    first, sure, depends = Verdict(law, specifications(19, 1), [left("a")]).lines()
    assert first.startswith(f"{HEADLINES[verdict].format('depth')}: ")
    assert f"{law.slope:+.4f} [{law.slope_low:+.4f}, " in first
    assert f"{N} layers" in first
    assert "by ranks" in sure
    assert f"{law.correlation:.2f}" in sure
    assert "of the variance" in sure
    assert depends == "Rises in 19 of 20 specifications, falls in none."


def test_disagreement_is_said_first():
    law = law_of("depends on the specification")
    first, sure, depends = Verdict(law, specifications(6, 4), []).lines()
    assert first == (
        "Depends on the specification: the exponent rises in 6 of 10 specifications, falls in none."
    )
    assert f"{law.slope:+.4f}" in sure
    assert depends == "Rises in 6 of 6 by octave, in 0 of 4 by ols."


def test_layers_that_change_it_are_named():
    verdict = Verdict(
        law_of("no trend"),
        specifications(0, 20),
        [left("a", "no trend"), left("conv9", "rises", is_changed=True)],
    )
    assert [one.name for one in verdict.changing] == ["conv9"]
    last = verdict.lines()[-1]
    assert "without conv9 it rises" in last
    assert last.startswith("Neither rises nor falls in any of 20 specifications; ")
    several = [left(name, "no trend", is_changed=True) for name in ("a", "b", "c", "d")]
    last = Verdict(law_of("rises"), specifications(20), several).lines()[-1]
    assert "without a or b or c or 1 other there is no trend" in last
    last = Verdict(law_of("rises"), specifications(20), [*several, several[0]]).lines()[-1]
    assert "or 2 others there" in last


def test_without_a_law_there_is_one_line_and_nothing_else(made_run):
    for n in (0, 3):
        law = fit_law(np.arange(n), np.ones(n), np.ones((20, n)), ["28"] * n)
        verdict = judge(law, [], pd.DataFrame(), np.ones((20, n)), made_run([1.0], [12]).options)
        assert verdict.lines() == [law.sentence()]
        assert verdict.specifications.rows == []
        assert (verdict.left_out, verdict.changing) == ([], [])
        assert verdict.word == "too little to tell"
        again = json.loads(to_json(verdict.to_dict()))
        assert again["specifications"] == {"n": 0, "outcomes": {}, "sentence": ""}
        assert again["influence"] == []


@pytest.fixture(scope="module")
def rising(made_run):
    return made_run(RISING, [24] * 6 + [16] * 6 + [6] * 4, ["conv", "act"] * 8)


def test_what_is_left_out_is_layers_stages_kinds_and_few_rings(rising):
    found = rising.verdict.left_out
    names = rising.layers.layer.tolist()
    assert [(one.what, one.name) for one in found if one.what == "layer"] == [
        ("layer", name) for name in names
    ]
    assert [(one.what, one.name, one.n_layers) for one in found if one.what != "layer"] == [
        ("stage", "the 6 layers with maps of 24 × 24", 10),
        ("stage", "the 6 layers with maps of 16 × 16", 10),
        ("stage", "the 4 layers with maps of 6 × 6", 12),
        ("kind", "the 8 conv layers", 8),
        ("kind", "the 8 act layers", 8),
        ("few rings", "the 4 layers of few rings", 12),
    ]
    one = next(one for one in found if one.name == "block.3")
    law = rising.refit(law_layers="-block.3").law
    assert (one.slope, one.p, one.rank_p) == pytest.approx((law.slope, law.trend_p, law.rank_p))


def test_a_clear_rise_under_nearly_all_specifications(rising):
    """Its word is that of the law, whose numbers stay as they are."""
    verdict, law = rising.verdict, rising.law
    assert verdict.specifications.agreement("rises") >= AGREEMENT
    assert verdict.word == law.verdict in ("linear law", "rises")
    assert verdict.law == law


@pytest.fixture(scope="module")
def steeper(made_run):
    """Exponents that rise with depth at low frequency and fall at high."""
    rising = np.linspace(1.0, 2.5, N) + 0.02 * RNG.standard_normal(N)
    runs = [
        made_run([alpha], [24], bend=-5.0 * place / N, seed=place)
        for place, alpha in enumerate(rising)
    ]
    spectra = []
    for place, own in enumerate(runs):
        (measured,) = own.spectra
        layer = replace(measured.layer, name=f"block.{place}", depth=place + 1, order=place + 1)
        spectra.append(replace(measured, layer=layer))
    return type(runs[0])(spectra, options=runs[0].options)


def test_what_the_band_turns_round_depends_on_the_specification(steeper):
    verdict = steeper.verdict
    assert verdict.specifications.agreement("rises") < AGREEMENT
    assert verdict.word == "depends on the specification"
    assert steeper.law.verdict != verdict.word
    assert verdict.law == replace(steeper.law, verdict=verdict.word)
    assert verdict.lines()[0].startswith("Depends on the specification: the exponent ")
    assert "octave" in verdict.lines()[-1]


def test_too_few_groups_tell_too_little_whatever_the_specifications_say(made_run, steeper):
    spectra = [
        replace(
            one,
            spectrum=replace(
                one.spectrum,
                power=one.spectrum.power[:5],
                normalized=one.spectrum.normalized[:5],
                count=one.spectrum.count[:5],
                offset=one.spectrum.offset[:5],
            ),
        )
        for one in steeper.spectra
    ]
    verdict = type(steeper)(spectra, options=steeper.options).verdict
    assert verdict.specifications.agreement("rises") < AGREEMENT
    assert verdict.word == "too little to tell"


def test_law_json_is_the_law_with_specifications_and_influence(rising, tmp_path):
    rising.save(tmp_path / "run", report=False)
    written = json.loads((tmp_path / "run" / "law.json").read_text(encoding="utf-8"))
    names = [field.name for field in fields(Law)]
    assert list(written) == [*names, "specifications", "influence"]
    law = Law.from_dict({name: written[name] for name in names})
    assert to_json(law.to_dict()) == to_json(rising.verdict.law.to_dict())
    assert written["verdict"] == rising.verdict.word
    found = rising.verdict.specifications
    assert written["specifications"] == {
        "n": len(found.rows),
        "outcomes": dict(found.counts),
        "sentence": found.sentence(),
    }
    assert len(written["influence"]) == len(rising.verdict.left_out)
    assert list(written["influence"][0]) == [field.name for field in fields(LeftOut)]
    assert {"slope", "slope_low", "line_share", "shape", "shape_share", "departures"} <= set(
        written["network"]
    )
    assert len(written["network"]["departures"]) == 5
