"""Methods compared: pairing, intervals that cover, corrections, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from natstats.distill.comparison.association import associate
from natstats.distill.comparison.compare import compare_runs
from natstats.distill.comparison.crossed import crossed_difference, exact_difference
from natstats.distill.report.method_tables import percent
from natstats.errors import UsageError
from natstats.law.differences import holm


def answers(made, run, right):
    """The run with other answers."""
    label = run.outcomes.label
    outcomes = replace(run.outcomes, predicted=np.where(right, label, (label + 1) % 5))
    return replace(run, outcomes=outcomes, info={**run.info, "accuracy": outcomes.accuracy})


# The paired test.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_seeds", "seed_sd", "image_sd"), [(5, 0.1, 0.5), (5, 0.3, 0.0), (4, 0.0, 0.5)]
)
def test_intervals_cover_under_crossed_random_effects(n_seeds, seed_sd, image_sd):
    """Answers with effects of seeds and images of each method; the true difference is zero."""
    rng = np.random.default_rng(7)
    n_images, n_times, hits = 150, 600, 0
    for _ in range(n_times):
        shared = rng.normal(size=n_images)
        right = [
            shared
            + image_sd * rng.normal(size=n_images)
            + seed_sd * rng.normal(size=(n_seeds, 1))
            + rng.normal(size=(n_seeds, n_images))
            > 0
            for _ in range(2)
        ]
        found = crossed_difference(right[0].astype(int) - right[1].astype(int))
        hits += found.low <= 0 <= found.high
    # The floor makes the interval longer, never shorter: too few hits are an error, and many too
    # many would be, as 99 % is more than the floor explains.
    assert stats.binomtest(hits, n_times, 0.95, "less").pvalue > 0.01
    assert hits / n_times < 0.99


@pytest.mark.slow
def test_one_way_clusters_alone_would_cover_too_little():
    """The test above can fail: an interval over images alone misses what seeds add."""
    rng = np.random.default_rng(8)
    hits, n_times = 0, 300
    for _ in range(n_times):
        right = [0.3 * rng.normal(size=(5, 1)) + rng.normal(size=(5, 150)) > 0 for _ in range(2)]
        of_images = (right[0].astype(int) - right[1].astype(int)).mean(axis=0)
        low, high = stats.t.interval(0.95, 149, of_images.mean(), stats.sem(of_images))
        hits += low <= 0 <= high
    assert stats.binomtest(hits, n_times, 0.95, "less").pvalue < 1e-6


def test_the_variance_is_that_of_the_analysis_of_variance():
    """(MS_seeds + MS_images - MS_cell) / (S n), with the mean squares by hand."""
    rng = np.random.default_rng(1)
    values = rng.integers(-1, 2, (4, 30)) + 0.0
    values[0] += 1
    values[:, :9] += 1
    mean, rows, columns = values.mean(), values.mean(1), values.mean(0)
    ms_rows = 30 * np.sum((rows - mean) ** 2) / 3
    ms_columns = 4 * np.sum((columns - mean) ** 2) / 29
    rest = np.sum((values - mean) ** 2) - 3 * ms_rows - 29 * ms_columns
    ms_rest = rest / 87
    assert ms_rest < min(ms_rows, ms_columns)
    found = crossed_difference(values)
    variance = (ms_rows + ms_columns - ms_rest) / 120
    dof = (ms_rows + ms_columns - ms_rest) ** 2 / (
        ms_rows**2 / 3 + ms_columns**2 / 29 + ms_rest**2 / 87
    )
    assert found.dof == pytest.approx(dof)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, dof) * variance**0.5)


def test_where_only_seeds_differ_it_is_the_t_test_over_seeds():
    values = np.repeat([[0.1], [0.4], [0.2], [0.25]], 50, axis=1)
    found = crossed_difference(values)
    expected = stats.ttest_1samp([0.1, 0.4, 0.2, 0.25], 0.0)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.dof == 3


def test_methods_that_answer_alike_do_not_differ():
    found = crossed_difference(np.zeros((3, 20)))
    assert (found.value, found.p) == (0.0, 1.0)
    assert exact_difference(np.zeros(20)).p == 1.0


@pytest.mark.parametrize(("first", "second"), [(12, 3), (5, 5), (0, 7)])
def test_one_seed_is_mcnemars_test(first, second):
    values = np.array([1] * first + [-1] * second + [0] * 40)
    found = exact_difference(values)
    assert found.p == pytest.approx(mcnemar([[20, first], [second, 20]], exact=True).pvalue)
    assert found.value == pytest.approx((first - second) / len(values))
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


@pytest.mark.parametrize("values", [np.zeros((1, 5)), np.zeros((5, 1)), np.zeros(5)])
def test_a_crossed_difference_takes_two_of_each(values):
    with pytest.raises(UsageError, match="two or more of each"):
        crossed_difference(values)


# Gathering.


@pytest.fixture
def made(made_runs):
    return made_runs(n_images=600)


def several(made, method, accuracy, seeds=range(5), **settings):
    return [made.run(method, seed=s, accuracy=accuracy, **settings) for s in seeds]


@pytest.mark.slow
def test_a_table_has_the_means_gains_and_corrected_p(made):
    runs = [
        *several(made, "ce", 0.6), *several(made, "kd", 0.7), *several(made, "at", 0.62),
        *several(made, "kd+spectral", 0.8),
    ]  # fmt: skip
    found = compare_runs(runs)
    rows = found.methods.set_index("label")
    assert list(rows.index) == sorted(rows.index, key=lambda name: -rows.accuracy[name])
    assert found.references == ("ce", "kd")
    by_label = {name: [r for r in runs if r.method == name] for name in rows.index}
    for name, own in by_label.items():
        accuracies = [run.accuracy for run in own]
        assert rows.accuracy[name] == pytest.approx(np.mean(accuracies))
        ends = stats.t.interval(0.95, 4, np.mean(accuracies), stats.sem(accuracies))
        assert (rows.low[name], rows.high[name]) == pytest.approx(ends)
        for reference in ("ce", "kd"):
            gain = rows.accuracy[name] - rows.accuracy[reference]
            known = rows[f"gain_{reference}"][name]
            assert np.isnan(known) if name == reference else known == pytest.approx(gain)
    assert (rows.interval_of == "seeds").all()
    over = found.gains[found.gains.reference == "ce"]
    np.testing.assert_allclose(over.p_corrected, holm(over.p.to_numpy()))
    assert (over.test == "seeds and images").all()
    assert rows.gain_ce_p_holm["kd+spectral"] < 0.001
    assert rows.teacher_accuracy["kd"] == pytest.approx(runs[5].teacher_accuracy)
    assert rows.teacher["ce"] == ""


@pytest.mark.slow
def test_the_order_of_the_runs_does_not_matter(made):
    runs = [*several(made, "ce", 0.6), *several(made, "kd", 0.7)]
    first, second = compare_runs(runs), compare_runs(runs[::-1])
    assert first.table() == second.table()
    assert first.methods.equals(second.methods)


@pytest.mark.slow
def test_seeds_that_are_not_shared_are_left_out_and_counted(made):
    ce, kd = several(made, "ce", 0.6, range(4)), several(made, "kd", 0.7, range(2, 7))
    found = compare_runs([*ce, *kd])
    (gain,) = found.gains[found.gains.reference == "ce"].to_dict("records")
    assert (gain["n_seeds"], gain["n_left_out"]) == (2, 5)
    pairs = [kd[k].accuracy - ce[k + 2].accuracy for k in range(2)]
    assert gain["difference"] == pytest.approx(np.mean(pairs))
    assert any("5 seeds are in one of them only" in note for note in found.notes)
    assert any("Two seeds are few" in note for note in found.notes)


def test_no_seed_in_common_is_not_tested(made):
    found = compare_runs([*several(made, "ce", 0.6, [0]), *several(made, "kd", 0.7, [1])])
    assert found.gains.p.isna().all()
    assert any("no seed is in both" in note for note in found.notes)


@pytest.mark.slow
def test_one_seed_speaks_of_the_trained_networks_only(made):
    runs = [made.run("ce", accuracy=0.5), made.run("kd", accuracy=0.8)]
    found = compare_runs(runs)
    assert (found.methods.interval_of == "images").all()
    for run in runs:
        row = found.methods.set_index("method").loc[run.method]
        assert (row.low, row.high) == run.interval()
    assert set(found.gains.test) == {"images"}
    assert any("these trained networks only" in note for note in found.notes)
    assert "images" in found.table()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["image", "label"])
def test_other_images_or_labels_are_not_paired(made, what):
    ce, kd = several(made, "ce", 0.6), several(made, "kd", 0.7)
    outcomes = kd[0].outcomes
    if what == "image":
        other = replace(outcomes, image=outcomes.image[::-1])
    else:
        label = outcomes.label.copy()
        label[:2] = (label[:2] + 1) % 5
        predicted = np.where(outcomes.correct, label, (label + 1) % 5)
        other = replace(outcomes, label=label, predicted=predicted)
    kd[0] = replace(kd[0], outcomes=other)
    found = compare_runs([*ce, *kd])
    assert found.methods.gain_ce.isna().all()
    assert any(f"the {what}s of their outcomes differ" in note for note in found.notes)


@pytest.mark.slow
def test_splits_images_and_students_are_never_pooled(made):
    runs = [
        *several(made, "ce", 0.6), *several(made, "kd", 0.7),
        *several(made, "kd", 0.7, data={"split": "held-out"}),
        *several(made, "kd", 0.7, data={"digest": "other"}),
        *several(made, "kd", 0.7, student={"name": "tiny"}),
    ]  # fmt: skip
    found = compare_runs(runs)
    assert len(found.tasks) == 4
    assert (found.methods.n_seeds == 5).all()
    assert "held-out" in found.tasks[1].title
    titles = [task.title for task in found.tasks]
    assert len(set(titles)) == 4
    assert "digest other" in titles[2]
    tested = found.gains[found.gains.p.notna()]
    assert set(tested.task) == {0}
    assert found.table().count("\n\n") == 3
    assert found.markdown().count("| method |") == 8


def test_tasks_of_the_same_words_are_told_apart(made):
    few, many = {"n_train": 100, "digest": "a" * 16}, {"n_train": 200, "digest": "b" * 16}
    found = compare_runs([made.run("ce", data=few), made.run("ce", data=many)])
    assert [task.apart for task in found.tasks] == ["100 training images", "200 training images"]
    # Where the number of images tells not all of them apart, the digest is there, too.
    third = made.run("ce", data={**few, "digest": "c" * 16})
    found = compare_runs([made.run("ce", data=few), made.run("ce", data=many), third])
    assert len({task.title for task in found.tasks}) == 3


def test_the_weight_of_the_labels_is_in_a_label_once(made):
    runs = [
        made.run("kd", arguments={"kd": {"ce_weight": weight}}, ce_weight=weight)
        for weight in (0.1, 1.0)
    ]
    assert set(compare_runs(runs).methods.label) == {"kd (ce_weight=0.1)", "kd (ce_weight=1.0)"}


@pytest.mark.slow
def test_arguments_that_differ_are_in_the_label_and_apart(made):
    hot = several(made, "kd", 0.7, arguments={"kd": {"temperature": 4.0, "weight": 0.9}})
    cold = several(made, "kd", 0.6, arguments={"kd": {"temperature": 1.0, "weight": 0.9}})
    other = several(made, "at", 0.6, arguments={"at": {"weight": 1000.0}})
    found = compare_runs([*hot, *cold, *other])
    labels = set(found.methods.label)
    assert labels == {"kd (temperature=4.0)", "kd (temperature=1.0)", "at"}
    assert any("several rows are kd" in note for note in found.notes)
    over = compare_runs([*hot, *cold, *other], reference="kd (temperature=1.0)")
    assert over.gains.p.notna().all()
    assert set(over.gains.label) == {"kd (temperature=4.0)", "at"}


@pytest.mark.slow
def test_another_recipe_is_another_method_and_not_a_reference(made):
    runs = [
        *several(made, "ce", 0.6), *several(made, "kd", 0.7),
        *several(made, "kd", 0.8, epochs=12), *several(made, "at", 0.8, epochs=12),
    ]  # fmt: skip
    found = compare_runs(runs)
    labels = list(found.methods.label)
    assert {"kd (epochs=6)", "kd (epochs=12)"} <= set(labels)
    gains = found.gains.set_index(["reference", "label"])
    assert np.isfinite(gains.p["ce", "kd (epochs=6)"])
    assert np.isnan(gains.p["ce", "at"])
    # Of two rows that are kd, the one with its own recipe is the reference.
    assert gains.reference_label["kd", "at"] == "kd (epochs=12)"


@pytest.mark.slow
def test_another_teacher_is_another_method(made):
    kd = several(made, "kd", 0.7)
    other = {**kd[0].info["teacher"], "name": "huge", "digest": "beef"}
    found = compare_runs([*kd, *several(made, "kd", 0.7, teacher=other), *several(made, "ce", 0.6)])
    labels = set(found.methods.label)
    assert labels == {"kd (teacher=large)", "kd (teacher=huge)", "ce"}
    # The student alone is the reference of both.
    over = found.gains[found.gains.reference == "ce"]
    assert np.isfinite(over.p).all()
    assert len(over) == 2


def test_a_seed_twice(made):
    runs = several(made, "kd", 0.7)
    found = compare_runs([*runs, replace(runs[2])])
    assert found.methods.n_seeds.tolist() == [5]
    assert "repeats" in found.notes[0]
    with pytest.raises(UsageError, match="expected each seed of kd once"):
        compare_runs([*runs, made.run("kd", seed=2, accuracy=0.7)])


def test_a_method_by_itself_is_no_reference(made):
    found = compare_runs(several(made, "kd", 0.7))
    assert found.references == ()
    assert "p (Holm)" not in found.markdown()


def test_bad_requests(made):
    with pytest.raises(UsageError, match="got none"):
        compare_runs([])
    with pytest.raises(UsageError, match="reference: expected one of kd; got 'ce'"):
        compare_runs(several(made, "kd", 0.7), reference="ce")
    with pytest.raises(UsageError, match="level: expected"):
        compare_runs(several(made, "kd", 0.7), level=95)


def test_seeds_of_one_accuracy_have_no_interval(made):
    run = made.run("kd", accuracy=0.7)
    runs = [replace(run, info={**run.info, "seed": seed}) for seed in range(3)]
    found = compare_runs(runs)
    assert found.methods.low.isna().all()
    assert any("no spread" in note for note in found.notes)


def test_costs_terms_and_gaps(made):
    found = compare_runs(
        [*several(made, "fsp", 0.7, epochs=10, epochs_before=4), *several(made, "ce", 0.6)]
    )
    row = found.methods.set_index("label").loc["fsp"]
    assert (row.epochs, row.epochs_before, row.epochs_total) == (10, 4, 14)
    assert row.ms_per_step == 26.0
    assert row.gap_before == pytest.approx(0.5)
    assert row.closed_exponent == pytest.approx(0.2, abs=0.02)
    terms = found.terms.set_index(["label", "term"])
    assert terms.ratio["fsp", "fsp"] == 2.0
    assert "14 (4 before)" in found.markdown()
    curve = found.curves[found.curves.label == "fsp"]
    assert list(curve.epoch) == list(range(1, 11))
    assert curve.accuracy.iloc[-1] == pytest.approx(row.accuracy)


# The gap.


@pytest.mark.slow
def test_a_gap_that_goes_with_accuracy_is_found_between_methods(made):
    runs = [
        run
        for k in range(7)
        for run in several(made, f"m{k}", 0.4 + 0.07 * k, range(2), closed=0.05 * k)
    ]
    found = compare_runs(runs)
    (_, teacher, exponent), (_, _, distance) = found.associations
    assert teacher == "large"
    assert (exponent.measure, distance.measure) == ("exponent", "distance")
    assert exponent.between == pytest.approx(1.0)
    # Of 7! orders, one up and one down are as extreme.
    assert exponent.between_p == pytest.approx(2 / 5040)
    assert np.isnan(exponent.within)
    assert any("associations" in text for text in found.sentences())


def test_between_and_within_are_told_apart():
    """Methods rise with the gap while the seeds of each fall with it: Simpson's paradox."""
    rng = np.random.default_rng(0)
    wobble = [rng.normal(size=6) for _ in range(8)]
    closed = [0.1 * k + 0.001 * w for k, w in enumerate(wobble)]
    accuracy = [0.5 + 0.05 * k - 0.001 * w for k, w in enumerate(wobble)]
    found = associate("exponent", closed, accuracy)
    assert found.between == pytest.approx(1.0)
    assert found.within == pytest.approx(-1.0)
    assert max(found.between_p, found.within_p) < 0.01
    assert (found.n_methods, found.n_within, found.n_seeds) == (8, 8, 48)
    assert "−1.00" in found.sentence()


@pytest.mark.slow
def test_the_permutation_test_within_methods_keeps_its_level():
    rng = np.random.default_rng(3)
    p = [associate("exponent", *(rng.normal(size=(2, 3, 5)))).within_p for _ in range(60)]
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_too_few_methods_say_so():
    found = associate("distance", [np.array([0.1])] * 3, [np.array([0.5])] * 3)
    assert np.isnan([found.between, found.within]).all()
    assert "cannot be said" in found.sentence()
    assert "there are 3" in found.sentence()


@pytest.mark.slow
def test_methods_without_a_gap_do_not_count(made):
    found = compare_runs([*several(made, "ce", 0.6), *several(made, "kd", 0.7)])
    assert [one.n_methods for _, _, one in found.associations] == [1, 1]
    assert compare_runs(several(made, "ce", 0.6)).associations == ()


# In words.


def test_the_markdown_is_a_table_whatever_the_names(made):
    evil = made.run("kd", data={"name": "a|b*c[d](e)"})
    text = compare_runs([evil]).markdown()
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("| "):
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert r"a\|b\*c\[d\](e)" in text


def test_rounding_does_not_lie():
    assert percent(0.99996) == "99.996"
    assert percent(1.0) == "100.0"
    assert percent(float("nan")) == "–"


@pytest.mark.slow
def test_comparing_loads_no_torch():
    code = "import natstats.distill.comparison.compare, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
