"""Planned contrasts: the pooled variance, what is left out of it, pairs, corrections, verdicts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.formula.api import ols

from natstats.distill.comparison.compare import compare_runs
from natstats.distill.comparison.contrasts import contrast_frame, contrast_rows, with_verdicts
from natstats.distill.comparison.crossed import crossed_difference
from natstats.distill.comparison.pooled import FEWEST_SEEDS, pooled_difference, pooled_variance
from natstats.distill.report.contrast_figures import plot_contrasts
from natstats.distill.report.contrast_tables import contrast_sentences
from natstats.errors import UsageError
from natstats.files.ownership import KINDS
from natstats.law.differences import holm


def made_up(sds, n_seeds=8, random=0, means=0.0):
    """Accuracies of methods m0, m1, ... as method + seed + residual."""
    rng = np.random.default_rng(random)
    sds = np.asarray(sds, dtype=float)
    values = sds[:, None] * rng.normal(size=(len(sds), n_seeds)) + 3 * rng.normal(size=n_seeds)
    values += np.broadcast_to(means, len(sds))[:, None]
    return {f"m{place}": dict(enumerate(row.tolist())) for place, row in enumerate(values)}


# The variance.


@pytest.mark.parametrize("missing", [(), (("m1", 3), ("m4", 0), ("m4", 1))])
def test_it_is_that_of_the_two_way_analysis_of_variance(missing):
    runs = made_up([1.0] * 5)
    for name, seed in missing:
        del runs[name][seed]
    long = pd.DataFrame([(m, s, y) for m, own in runs.items() for s, y in own.items()])
    long.columns = pd.Index(["method", "seed", "y"])
    fitted = ols("y ~ C(method) + C(seed)", long).fit()
    found = pooled_variance(runs)
    assert found.apart == {}
    assert found.dof == fitted.df_resid
    assert found.variance == pytest.approx(fitted.mse_resid)
    assert found.members == tuple(runs)


def test_degrees_of_freedom_and_interval():
    runs = made_up([1.0] * 6, n_seeds=8)
    pool = pooled_variance(runs)
    assert pool.dof == 5 * 7
    found = pooled_difference(runs, "m1", "m0", pool, level=0.9)
    expected = np.mean([runs["m1"][s] - runs["m0"][s] for s in range(8)])
    assert found.value == pytest.approx(expected)
    reach = stats.t.ppf(0.95, 35) * np.sqrt(2 * pool.variance / 8)
    assert (found.low, found.high) == pytest.approx((expected - reach, expected + reach))


def test_two_methods_are_the_paired_t_test():
    runs = made_up([1.0, 1.0])
    pair = [list(own.values()) for own in runs.values()]
    found = pooled_difference(runs, "m0", "m1", pooled_variance(runs))
    assert found.p == pytest.approx(stats.ttest_rel(*pair).pvalue)
    assert found.dof == 7


def test_what_a_seed_does_to_all_changes_nothing():
    runs = made_up([1.0] * 4)
    shifted = {name: {s: y + 10 * s for s, y in own.items()} for name, own in runs.items()}
    first, second = (pooled_variance(each) for each in (runs, shifted))
    assert second.variance == pytest.approx(first.variance)


@pytest.mark.parametrize("n_methods", [4, 12])
def test_a_method_that_broke_down_does_not_spoil_the_others(n_methods):
    runs = made_up([1.0] * (n_methods - 1) + [15.0])
    last = f"m{n_methods - 1}"
    pool = pooled_variance(runs)
    assert last in pool.apart
    assert last not in pool.members
    assert pool.variance < 3
    own = pooled_difference(runs, last, "m0", pool)
    pair = [list(runs[name].values()) for name in (last, "m0")]
    assert own.p == pytest.approx(stats.ttest_rel(*pair).pvalue)
    assert own.dof == 7
    assert pooled_difference(runs, "m1", "m0", pool).dof == pool.dof > 7


def test_variances_that_differ_all_over_are_not_pooled():
    runs = made_up(np.geomspace(0.1, 10, 10), random=3)
    pool = pooled_variance(runs)
    pair = pooled_difference(runs, "m0", "m1", pool)
    assert not pool.holds("m0", "m9")
    assert pair.high - pair.low < 2


@pytest.mark.parametrize("n_seeds", range(1, FEWEST_SEEDS))
def test_few_seeds_have_the_variance_of_the_pair(n_seeds):
    runs = made_up([1.0, 1.0, 1.0], n_seeds=n_seeds)
    pool = pooled_variance(runs)
    found = pooled_difference(runs, "m1", "m0", pool)
    assert pool.dof == 0
    assert np.isfinite(found.value)
    assert not found.is_pooled
    if n_seeds == 1:
        assert np.isnan(found.p)
        return
    pair = [list(runs[name].values()) for name in ("m1", "m0")]
    assert found.p == pytest.approx(stats.ttest_rel(*pair).pvalue)
    assert "fewer than the 6" in found.reason


def test_a_pair_that_shares_few_seeds_is_not_pooled_with_those_that_share_many():
    runs = made_up([1.0] * 5, n_seeds=10)
    runs["m1"] = {seed: y for seed, y in runs["m1"].items() if seed > 3}
    runs["m0"] = {seed: y for seed, y in runs["m0"].items() if seed < 6}
    pool = pooled_variance(runs)
    assert pool.holds("m0", "m1")
    assert not pooled_difference(runs, "m0", "m1", pool).is_pooled
    assert pooled_difference(runs, "m2", "m1", pool).is_pooled


def test_what_the_error_is_of_does_not_hang_on_rounding():
    n_pooled = 0
    for random in range(60):
        runs = made_up([1.0] * 5, n_seeds=6 + random % 4, random=random)
        pool = pooled_variance(runs)
        (row,) = contrast_rows(runs, [("m1", "m0")])
        se = np.sqrt(2 * pool.variance / row["n_seeds"])
        assert (row["error"] == "pooled") == (row["se"] == pytest.approx(se, rel=1e-12))
        assert (row["error"] == "pooled") == (row["n_pooled"] > 0) == (row["dof"] == pool.dof)
        n_pooled += row["error"] == "pooled"
    assert 30 < n_pooled < 60


# No spread.


@pytest.mark.parametrize("gain", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("n_seeds", [3, 8])
def test_equal_differences_have_the_error_of_one_image_at_one_seed(gain, n_seeds):
    ce = np.random.default_rng(0).integers(200, 300, n_seeds) / 1000
    runs = {"ce": dict(enumerate(ce)), "kd": dict(enumerate(ce + gain))}
    (row,) = contrast_rows(runs, [("kd", "ce")], n_images=1000)
    assert row["se"] == pytest.approx(1 / (1000 * n_seeds))
    assert row["p"] == pytest.approx(2 * stats.t.sf(gain * 1000 * n_seeds, n_seeds - 1))
    assert "one image at one seed" in row["reason"]
    # Without the number of images nothing is known of the error, rounded or not.
    (row,) = contrast_rows(runs, [("kd", "ce")])
    assert np.isnan(row["p"])
    assert np.isnan(row["low"]) or row["low"] == row["high"]
    assert "nothing tells how large" in row["reason"]


def test_one_image_at_one_seed_is_an_error_of_its_own():
    runs = {"ce": dict.fromkeys(range(4), 0.5), "kd": {0: 0.51, 1: 0.5, 2: 0.5, 3: 0.5}}
    (row,) = contrast_rows(runs, [("kd", "ce")], n_images=100)
    assert row["p"] == pytest.approx(stats.ttest_rel([0.51, 0.5, 0.5, 0.5], [0.5] * 4).pvalue)
    assert "one image" not in row["reason"]


def test_one_method_that_varies_among_some_that_do_not_is_apart():
    runs = {
        name: dict.fromkeys(range(8), value)
        for name, value in zip("abc", (0.1, 0.3, 0.7), strict=True)
    }
    runs["d"] = dict(enumerate(np.linspace(0.2, 0.6, 8)))
    for n_images in (None, 100):
        pool = pooled_variance(runs, n_images)
        assert list(pool.apart) == ["d"]
        assert not pooled_difference(runs, "d", "a", pool).is_pooled


@pytest.mark.parametrize("value", [np.ones((3, 3)), np.eye(3)])
def test_other_images_and_seeds_that_say_the_same_have_the_error_of_one_step(value):
    found = crossed_difference(value)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 2) / 9)


def test_equal_accuracies_have_no_error():
    runs = {name: dict.fromkeys(range(4), 0.5) for name in ("a", "b", "c")}
    found = pooled_difference(runs, "a", "b", pooled_variance(runs))
    assert (found.value, found.p) == (0.0, 1.0)


def test_bad_accuracies():
    with pytest.raises(UsageError, match="accuracies: expected finite numbers; b has nan"):
        pooled_variance({"a": {0: 0.5}, "b": {0: float("nan")}})
    runs = made_up([1.0, 1.0])
    with pytest.raises(UsageError, match="contrast: expected one of m0, m1"):
        contrast_rows(runs, [("m0", "m7")])


@pytest.mark.slow
@pytest.mark.parametrize("sds", [[1.0] * 8, [1.0] * 7 + [5.0]])
def test_false_positives_are_as_many_as_was_said(sds):
    n_times, hits = 400, 0
    for random in range(n_times):
        runs = made_up(sds, random=random)
        found = pooled_difference(runs, "m1", "m0", pooled_variance(runs))
        hits += found.p < 0.05
    assert stats.binomtest(hits, n_times, 0.05, "greater").pvalue > 0.01
    assert hits > 4


@pytest.mark.slow
def test_pooling_sees_more_than_pairs_do():
    seen = np.zeros(2)
    for random in range(200):
        runs = made_up([1.0] * 8, n_seeds=6, random=random, means=[1.2, *[0.0] * 7])
        found = pooled_difference(runs, "m0", "m1", pooled_variance(runs))
        pair = [list(runs[name].values()) for name in ("m0", "m1")]
        seen += [found.p < 0.05, stats.ttest_rel(*pair).pvalue < 0.05]
    assert seen[0] > 1.1 * seen[1]


# Rows and verdicts.


def test_holm_counts_what_was_planned_known_or_not():
    runs = {**made_up([1.0] * 4, means=[0.0, 1.5, 2.0, 2.5]), "later": {}}
    pairs = [("m1", "m0"), ("m2", "m0"), ("later", "m0")]
    rows = contrast_rows(runs, pairs)
    p = np.array([row["p"] for row in rows])
    assert np.isnan(p[2])
    assert rows[2]["reason"] == "no seed is in both"
    expected = holm(np.array([p[0], p[1], 1.0]))
    np.testing.assert_allclose([row["p_corrected"] for row in rows[:2]], expected[:2])
    assert np.isnan(rows[2]["p_corrected"])


def test_no_effect_is_said_only_where_a_control_is_seen():
    runs = made_up([1.0] * 3, random=1, means=[0.0, 5.0, 5.0])
    nothing = contrast_rows(runs, [("m2", "m1")])
    (row, control) = with_verdicts(nothing, contrast_rows(runs, [("m1", "m0")]))
    assert (row["verdict"], control["verdict"]) == ("no effect seen", "better")
    assert (row["control"], control["control"]) == (False, True)
    alike = nothing
    assert {one["verdict"] for one in with_verdicts(nothing, alike)} == {"too little to tell"}
    # A control that makes things worse shows nothing.
    worse = with_verdicts(nothing, contrast_rows(runs, [("m0", "m1")]))
    assert [one["verdict"] for one in worse] == ["too little to tell", "worse"]
    assert [one["verdict"] for one in with_verdicts(nothing, [])] == ["too little to tell"]


def test_no_effect_needs_an_interval_without_half_the_gain_of_a_control():
    control = {"difference": 0.02, "low": 0.01, "high": 0.03, "p_corrected": 0.01}
    larger = {**control, "difference": 0.05}
    for low, high, verdict in (
        (-0.005, 0.0099, "no effect seen"),
        (-0.005, 0.0101, "too little to tell"),
        (-0.0101, 0.005, "too little to tell"),
        (np.nan, np.nan, "too little to tell"),
    ):
        row = {"difference": 0.0, "low": low, "high": high, "p_corrected": 0.5}
        judged = with_verdicts([row], [larger, control])
        assert [one["verdict"] for one in judged] == [verdict, "better", "better"]


# Of runs.


@pytest.fixture
def runs(made_runs):
    made = made_runs(n_images=400)

    def several(method, accuracy, seeds=range(6), **settings):
        return [made.run(method, seed=s, accuracy=accuracy, **settings) for s in seeds]

    return several


@pytest.mark.slow
def test_every_spectral_over_the_same_without_it_by_default(runs):
    hot = {"kd": {"temperature": 4.0}}
    cold = {"kd": {"temperature": 1.0}}
    found = compare_runs([
        *runs("ce", 0.5), *runs("kd", 0.6, arguments=hot), *runs("kd", 0.55, arguments=cold),
        *runs("kd+spectral", 0.7, arguments={**hot, "spectral": {"weight": 3.0}}),
        *runs("spectral", 0.6), *runs("at+spectral", 0.6),
    ])  # fmt: skip
    planned = found.contrasts[~found.contrasts.control]
    assert set(zip(planned.label, planned.reference_label, strict=True)) == {
        ("kd+spectral", "kd (temperature=4.0)"), ("spectral", "ce"),
    }  # fmt: skip
    controls = found.contrasts[found.contrasts.control]
    assert set(controls.label) == {"kd (temperature=4.0)", "kd (temperature=1.0)"}
    assert (found.contrasts.n_pooled[found.contrasts.error == "pooled"] > 2).all()


@pytest.mark.slow
def test_a_planned_control_with_arguments_in_its_label_is_a_control_still(runs):
    hot, cold = ({"kd": {"temperature": t}} for t in (4.0, 1.0))
    found = compare_runs([
        *runs("ce", 0.5), *runs("kd", 0.7, arguments=hot), *runs("kd", 0.69, arguments=cold),
        *runs("spectral", 0.5),
    ], contrasts=[("kd", "ce"), ("spectral", "ce")])  # fmt: skip
    assert not found.contrasts.control.any()
    *_, last = contrast_sentences(found.contrasts)
    assert last.startswith("That a gain can be seen here is shown by kd (temperature=4.0) over ce")


@pytest.mark.slow
def test_other_images_are_a_second_source_of_error(runs):
    ce, kd = runs("ce", 0.5), runs("kd", 0.6)
    found = compare_runs([*ce, *kd, *runs("at", 0.6)], contrasts=[("kd", "ce")])
    (row,) = found.contrasts[~found.contrasts.control].to_dict("records")
    apart = np.stack([a.outcomes.correct.astype(int) - b.outcomes.correct.astype(int)
                      for a, b in zip(kd, ce, strict=True)])  # fmt: skip
    expected = crossed_difference(apart, 0.95, (row["se"] ** 2, row["dof"]))
    assert (row["low_images"], row["high_images"]) == pytest.approx((expected.low, expected.high))
    # The degrees of freedom may be a few more, the variance is no smaller.
    assert row["high_images"] - row["low_images"] >= 0.98 * (row["high"] - row["low"])
    # A control that was planned is corrected with the others, and stands once.
    assert found.contrasts.label.tolist() == ["kd", "at"]


@pytest.mark.slow
def test_contrasts_by_name_label_and_task(runs):
    one = [*runs("ce", 0.5), *runs("kd", 0.6)]
    other = [*runs("ce", 0.5, student={"name": "tiny"}), *runs("at", 0.6, student={"name": "tiny"})]
    found = compare_runs([*one, *other], contrasts=[("kd", "ce"), ("at", "ce")])
    planned = found.contrasts[~found.contrasts.control]
    # What was planned counts in every task, whether it can be formed there or not.
    pairs = list(zip(planned.task, planned.label, strict=True))
    assert pairs == [(0, "kd"), (0, "at"), (1, "kd"), (1, "at")]
    reasons = ["there is no at in this task", "there is no kd in this task"]
    assert planned.reason[np.isnan(planned.difference)].tolist() == reasons
    np.testing.assert_allclose(planned.p_corrected, np.fmin(2 * planned.p, 1.0) + 0 * planned.p)
    (said,) = [text for text in found.sentences() if "at over ce was planned" in text]
    assert (
        f"at over ce was planned and is not tested, but counts in Holm's rule: {reasons[0]}."
        in said
    )
    assert not any(reason in note for reason in reasons for note in found.notes)


@pytest.mark.slow
def test_contrasts_of_unlike_recipes_and_teachers_are_neither_formed_nor_pooled(runs):
    long, short = {"recipe": {"epochs": 30}}, {"recipe": {"epochs": 6}}
    found = compare_runs(
        [*runs("ce", 0.5, **long), *runs("kd", 0.6, **long), *runs("hint", 0.6, **long),
         *runs("at", 0.6, **short), *runs("rkd", 0.6, **short)],
        contrasts=[("kd", "ce"), ("at", "ce")],
    )  # fmt: skip
    kd, at = found.contrasts[~found.contrasts.control].to_dict("records")
    assert kd["n_pooled"] in (0, 3)
    assert kd["p_corrected"] == pytest.approx(min(2 * kd["p"], 1.0))
    assert at["reason"] == "no two of their rows have the same recipe and teacher"
    assert at["verdict"] == "too little to tell"


def test_bad_contrasts(runs):
    own = [*runs("ce", 0.5), *runs("kd", 0.6)]
    for given, sentence in (
        ([("kd", "kc")], "contrast: expected one of ce, kd; got 'kc'"),
        ([("kd", "kd")], "expected two methods; got kd twice"),
        ([("kd", "ce"), ("kd", "ce")], "expected each once; got kd:ce twice"),
        ([("kd", "ce"), ("ce", "kd")], "kd:ce and ce:kd, which is the same the other way"),
        ("kd:ce", "contrasts: expected pairs"),
        (["kd:ce"], "contrasts: expected pairs"),
    ):
        with pytest.raises(UsageError, match=sentence):
            compare_runs(own, contrasts=given)


@pytest.mark.slow
def test_words_files_and_figure(runs, tmp_path):
    found = compare_runs([*runs("ce", 0.5), *runs("kd", 0.65), *runs("kd+spectral", 0.65)])
    text = " ".join(found.sentences())
    assert "kd+spectral over kd" in text
    assert ": no effect seen" in text
    assert "That a gain can be seen here is shown by kd over ce" in text
    assert "| kd+spectral over kd |" in found.markdown()
    found.save(tmp_path / "table")
    assert "kd over ce (control)" in (tmp_path / "table" / "report.html").read_text()
    assert (tmp_path / "table" / "contrasts.csv").is_file()
    # natstats knows all of its files, also in a folder whose record lists none.
    written = [p for p in (tmp_path / "table").rglob("*") if p.is_file()]
    names = {p.relative_to(tmp_path / "table").as_posix() for p in written}
    assert {name for name in names if not KINDS["table"].known.fullmatch(name)} == set()
    record = json.loads((tmp_path / "table" / "table.json").read_text())
    assert [row["label"] for row in record["contrasts"]] == ["kd+spectral", "kd"]
    ax = plot_contrasts(found.contrasts)
    marks = [line for line in ax.lines if line.get_marker() == "D"]
    shown = sorted(float(np.atleast_1d(line.get_xdata())[0]) for line in marks)
    np.testing.assert_allclose(shown, sorted(100 * found.contrasts.difference))
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["kd+spectral over kd", "kd over ce"]


def test_an_empty_frame_keeps_its_columns():
    frame = contrast_frame([])
    assert frame.difference.dtype == float
    assert len(frame) == 0
