"""The teacher's outputs kept on disk: the same trainings, fewer passes, nothing half-written."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from natstats.distill import distill
from natstats.distill.training.cache_room import Needed, in_words, most_bytes
from natstats.distill.training.distributed import Processes
from natstats.distill.training.loading import TrainBatches
from natstats.distill.training.teacher_cache import CacheKey
from natstats.distill.training.training_cache import cache_of, room_text
from natstats.errors import UsageError

pytestmark = pytest.mark.slow


def weights_of(setup):
    return {name: value.clone() for name, value in setup.student.model.state_dict().items()}


def trained(setup, out, **options):
    run = distill(setup, out, report=False, **options)
    return run, weights_of(setup)


@pytest.fixture
def passes(teacher):
    """Counts the images that the teacher sees in training mode of nothing: its forward passes."""
    seen = []
    handle = teacher.model.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
    yield seen
    handle.remove()


@pytest.mark.parametrize("method", ["kd", "at", "kd+spectral", "fitnets", "ft"])
def test_a_training_with_a_cache_is_the_training_without(
    method, setup_of, data, teacher, recipe, tmp_path
):
    # The teacher sees the images in other batches, which may round otherwise in the last digit;
    # eight long steps make a thousandth of that.
    small = recipe.changed(learning_rate=0.001)
    plain, expected = trained(setup_of(data, teacher, method, recipe=small), tmp_path / "plain")
    cached, found = trained(
        setup_of(data, teacher, method, recipe=small), tmp_path / "cached",
        teacher_cache=tmp_path / "cache",
    )  # fmt: skip
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(cached.history.loss, plain.history.loss, rtol=1e-4)


def test_other_methods_and_seeds_share_the_passes(
    setup_of, data, teacher, recipe, tmp_path, passes
):
    shared = recipe.changed(augmentation_seed=7, draws=1)
    cache = tmp_path / "cache"
    counts = []
    for name, method, seed in (("a", "kd", 0), ("b", "dkd", 1), ("c", "kd", 2), ("d", "at", 0)):
        method = "kd" if method == "dkd" else method
        passes.clear()
        setup = setup_of(data, teacher, method, recipe=shared, seed=seed)
        distill(setup, tmp_path / name, report=False, teacher_cache=cache)
        counts.append(sum(passes))
    n = len(data.train)
    # The first fills the only draw and looks at the evaluation images; the gap is measured always;
    # the last adds maps to the scores.
    assert counts[0] - counts[1] == n + len(data.evaluation)
    assert counts[1] == counts[2]
    assert counts[3] - counts[1] >= n


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_predictions_of_the_teacher_are_kept_and_made_again_where_damaged(
    damage, setup_of, data, teacher, tmp_path, passes
):
    options = {"teacher_cache": tmp_path / "cache", "report": False}
    first = distill(setup_of(data, teacher), tmp_path / "a", **options)
    (path,) = (tmp_path / "cache").glob("evaluation-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:-30] if damage is None else damage)
    passes.clear()
    second = distill(setup_of(data, teacher), tmp_path / "b", **options)
    assert passes.count(8) >= len(data.evaluation) // 8
    assert path.read_bytes()[:2] == b"PK"
    assert second.teacher_accuracy == first.teacher_accuracy


def test_every_epoch_has_its_own_changes_or_takes_turns(data, recipe):
    def images(batches, epoch):
        return torch.cat([batch.images for batch in batches.every_image("main", epoch)])

    new = TrainBatches(data.train, recipe, seed=0)
    turns = TrainBatches(data.train, recipe.changed(draws=2), seed=0)
    shared = [TrainBatches(data.train, recipe.changed(augmentation_seed=5), s) for s in (0, 1)]
    assert not torch.equal(images(new, 0), images(new, 2))
    assert torch.equal(images(turns, 0), images(turns, 2))
    assert not torch.equal(images(turns, 0), images(turns, 1))
    assert torch.equal(images(shared[0], 3), images(shared[1], 3))
    orders = [batches.order("main", 3)[0].tolist() for batches in shared]
    assert orders[0] != orders[1]
    # What a training sees of an image is what the whole set has at its place.
    whole = images(turns, 1)
    for batch in turns.epoch("main", 1):
        assert torch.equal(batch.images, whole[batch.places])


def test_the_key_tells_apart_what_changes_the_outputs(recipe):
    key = CacheKey.of("t", "i", recipe, 0)
    same = (recipe.changed(epochs=9), recipe.changed(learning_rate=1.0), recipe.changed(clip=1.0))
    other = (
        recipe.changed(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)), recipe.changed(padding=1),
        recipe.changed(amp="bf16"), recipe.changed(size=12), recipe.changed(augmentation="none"),
    )  # fmt: skip
    assert {CacheKey.of("t", "i", one, 0).digest for one in same} == {key.digest}
    assert len({CacheKey.of("t", "i", one, 0).digest for one in other} | {key.digest}) == 6
    assert CacheKey.of("t", "i", recipe, 1) != key
    assert CacheKey.of("u", "i", recipe, 0) != key
    assert CacheKey.of("t", "j", recipe, 0) != key
    of_all = recipe.changed(augmentation_seed=4)
    assert CacheKey.of("t", "i", of_all, 0) == CacheKey.of("t", "i", of_all, 1)


def test_layers_that_give_the_same_maps_share_a_file(setup_of, data, teacher, recipe, tmp_path):
    shared = recipe.changed(augmentation_seed=1, draws=1)
    cache = tmp_path / "cache"
    distill(setup_of(data, teacher, "at", recipe=shared), tmp_path / "a", teacher_cache=cache)
    before = sorted(cache.rglob("*.bin"))
    distill(setup_of(data, teacher, "spectral", recipe=shared), tmp_path / "b", teacher_cache=cache)
    assert sorted(cache.rglob("*.bin")) == before


def test_half_precision_is_kept_as_it_is(setup_of, data, teacher, recipe, tmp_path):
    half = recipe.changed(amp="bf16")
    _, expected = trained(setup_of(data, teacher, "at", recipe=half), tmp_path / "plain")
    _, found = trained(
        setup_of(data, teacher, "at", recipe=half), tmp_path / "b", teacher_cache=tmp_path / "c"
    )
    assert any("bfloat16" in path.name for path in (tmp_path / "c").rglob("*.bin"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0.05, atol=0.05)


def test_a_training_that_was_cut_goes_on_with_its_cache(setup_of, data, teacher, tmp_path):
    options = {"teacher_cache": tmp_path / "cache"}
    _, expected = trained(setup_of(data, teacher), tmp_path / "whole", **options)
    n_calls = []

    def stop(done, total):
        n_calls.append(done)
        if len(n_calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(
            setup_of(data, teacher),
            tmp_path / "cut",
            progress=stop,
            keep_seconds=0,
            report=False,
            **options,
        )
    _, found = trained(setup_of(data, teacher), tmp_path / "cut", **options)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def notes(caplog):
    return [one.getMessage() for one in caplog.records if "teacher's outputs" in one.getMessage()]


def full(self, rows):
    raise OSError(28, "No space left on device")


def test_a_disk_that_gets_full_costs_passes_and_nothing_else(
    setup_of, data, teacher, tmp_path, monkeypatch, caplog
):
    """Nothing half-written is left, the weights are those without a cache, and a note says why."""
    _, expected = trained(setup_of(data, teacher), tmp_path / "plain")
    monkeypatch.setattr("natstats.distill.training.kept_outputs.OutputWriter.add", full)
    cache = tmp_path / "cache"
    _, found = trained(setup_of(data, teacher), tmp_path / "run", teacher_cache=cache)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    left = {path.name for path in cache.rglob("*") if path.is_file()}
    assert {name for name in left if not name.startswith("evaluation-")} == {
        "key.json", "probe.npy"
    }  # fmt: skip
    (note,) = notes(caplog)
    assert "epoch 1 of the stage main are not kept" in note
    assert "cannot be written: No space left" in note


def test_after_a_failure_the_teacher_does_not_fill_the_cache_in_vain(
    setup_of, data, teacher, tmp_path, monkeypatch, passes
):
    distill(setup_of(data, teacher), tmp_path / "plain", report=False, gap=False)
    without = sum(passes)
    passes.clear()
    monkeypatch.setattr("natstats.distill.training.kept_outputs.OutputWriter.add", full)
    options = {"report": False, "gap": False, "teacher_cache": tmp_path / "cache"}
    distill(setup_of(data, teacher), tmp_path / "run", **options)
    probe, first_batch = 4, 8
    assert sum(passes) - without <= probe + first_batch + 2


@pytest.mark.parametrize("draws", [None, 1])
def test_a_limit_keeps_what_there_is_room_for(
    draws, setup_of, data, teacher, recipe, tmp_path, caplog
):
    cache = tmp_path / "cache"
    n_values = [
        p.channels * p.height * p.width
        for pairs in setup_of(data, teacher, "at").program.taps.values()
        for _, p in pairs
    ]
    an_epoch = most_bytes(len(data.train), [3, *n_values])
    few = recipe.changed(draws=draws)
    _, expected = trained(setup_of(data, teacher, "at", recipe=few), tmp_path / "plain")
    run, found = trained(
        setup_of(data, teacher, "at", recipe=few), tmp_path / "run", teacher_cache=cache,
        teacher_cache_limit=1.5 * an_epoch / 2**30,
    )  # fmt: skip
    kept = sum(path.stat().st_size for path in cache.rglob("*.bin"))
    assert kept == an_epoch
    told = [note for note in run.notes if "read from a cache" in note]
    assert len(told) == 1
    assert ("in 1 of 2 epochs of the last sitting" in told[0]) == (draws is None)
    assert len(notes(caplog)) == (draws is None)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_what_another_process_does_not_find_is_used_by_none(
    setup_of, data, teacher, tmp_path, monkeypatch, caplog
):
    """Then all run the teacher, as their gradients are averaged."""
    monkeypatch.setattr(Processes, "total", lambda self, values: values + values.ndim)
    setup = setup_of(data, teacher)
    batches = TrainBatches(data.train, setup.recipe, setup.seed)
    cache = cache_of(setup, batches, Processes(0, 1, torch.device("cpu")), tmp_path / "c")
    (stage,) = setup.program.stages
    objective = stage.objective(setup.student.model, teacher.model, torch.zeros(1, 3, 16, 16))
    assert cache.epoch(objective, stage.name, 0) is None
    assert "is not found by all processes" in notes(caplog)[0]


def test_images_that_do_not_change_are_kept_once(setup_of, data, teacher, recipe, tmp_path, passes):
    cache = tmp_path / "cache"
    still = recipe.changed(augmentation="none")
    for name, seed in (("a", 0), ("b", 1)):
        passes.clear()
        setup = setup_of(data, teacher, "fitnets", recipe=still, seed=seed)
        distill(setup, tmp_path / name, report=False, gap=False, teacher_cache=cache)
    (scores,) = cache.rglob("scores*.bin")
    assert scores.parent.name == "unchanged"
    assert sum(passes) < len(data.train)
    text = room_text(setup_of(data, teacher, "fitnets", recipe=still), cache)
    assert "for 1 set of changed images" in text


@pytest.mark.parametrize("method", ["kd", "at+fitnets", "kd+spectral", "ft"])
@pytest.mark.parametrize("changes", [{}, {"draws": 1}, {"augmentation": "none"}, {"amp": "bf16"}])
def test_the_line_on_room_tells_what_is_written(
    method, changes, setup_of, data, teacher, recipe, tmp_path
):
    setup = setup_of(data, teacher, method, recipe=recipe.changed(**changes))
    needed = Needed.by(setup.program, setup.recipe, len(data.train), len(data.classes))
    cache = tmp_path / "cache"
    distill(setup, tmp_path / "run", report=False, gap=False, teacher_cache=cache)
    kept = list(cache.rglob("*.bin"))
    written = sum(path.stat().st_size for path in kept)
    assert len(needed.epochs) == len({path.parent for path in kept})
    if "amp" in changes:
        assert sum(needed.epochs) / 2 <= written <= sum(needed.epochs)
    else:
        assert written == sum(needed.epochs)
    assert f"up to {in_words(sum(needed.epochs))} in {cache}" in room_text(setup, cache)


def test_names_of_layers_are_not_taken_for_one_another(setup_of, data, tmp_path):
    """``~`` ends the name of a layer in the name of a file, and may be part of it."""

    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module("a", torch.nn.Conv2d(3, 4, 3))
            self.add_module("a~4x4", torch.nn.Conv2d(4, 6, 3))
            self.last = torch.nn.Linear(6, 3)

        def forward(self, images):
            one = self._modules["a"](images)
            return self.last(self._modules["a~4x4"](one).mean((2, 3)))

    odd = Odd()
    pairs = [("stage1.0.relu2", "a~4x4"), ("stage2.0.relu2", "a")]
    setup = setup_of(data, odd, "at", taps=pairs)
    batches = TrainBatches(data.train, setup.recipe, setup.seed)
    cache = cache_of(setup, batches, Processes(0, 1, torch.device("cpu")), tmp_path / "c")
    (stage,) = setup.program.stages
    objective = stage.objective(setup.student.model, odd, torch.zeros(1, 3, 16, 16))
    found = cache.epoch(objective, stage.name, 0)
    assert {name: kept.shape[1] for name, kept in found.maps.items()} == {"a": 4, "a~4x4": 6}


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), "3"])
def test_limits_that_are_none_are_refused(limit, setup_of, data, teacher, tmp_path):
    with pytest.raises(UsageError, match="teacher_cache_limit: expected a number"):
        distill(
            setup_of(data, teacher), tmp_path / "run", teacher_cache=tmp_path / "c",
            teacher_cache_limit=limit,
        )  # fmt: skip


def test_a_limit_without_a_cache_is_refused(setup_of, data, teacher, tmp_path):
    with pytest.raises(UsageError, match="teacher_cache_limit: expected a teacher_cache beside"):
        distill(setup_of(data, teacher), tmp_path / "run", teacher_cache_limit=1.0)


def test_a_cut_off_file_is_made_again(setup_of, data, teacher, tmp_path):
    options = {"teacher_cache": tmp_path / "cache"}
    _, expected = trained(setup_of(data, teacher), tmp_path / "whole", **options)
    for path in (tmp_path / "cache").rglob("*.bin"):
        path.write_bytes(path.read_bytes()[:-4])
    _, found = trained(setup_of(data, teacher), tmp_path / "again", **options)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("method", "reason"),
    [("ofd", "batch statistics.*ofd.teacher_bn=running"), ("jacobian", "differentiates")],
)
def test_what_cannot_be_kept_is_refused(method, reason, setup_of, data, teacher, tmp_path):
    with pytest.raises(UsageError, match=f"teacher_cache: expected .*{reason}"):
        distill(setup_of(data, teacher, method), tmp_path / "run", teacher_cache=tmp_path / "c")


def test_a_small_disk_is_left_alone(setup_of, data, teacher, tmp_path, monkeypatch, caplog):
    free = type("Usage", (), {"free": 2**29})
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    setup = setup_of(data, teacher, "at")
    text = room_text(setup, tmp_path / "c")
    assert "0.5 GiB are free; where there is no room left, the teacher runs in the steps" in text
    distill(setup, tmp_path / "run", teacher_cache=tmp_path / "c", report=False)
    assert not list((tmp_path / "c").rglob("*.bin"))
    (note,) = notes(caplog)
    assert "has 0.5 GiB free, of which 1 GiB is left alone" in note


def test_a_file_in_place_of_the_folder_is_refused(setup_of, data, teacher, tmp_path):
    (tmp_path / "c").write_text("x")
    for place in ("c", "c/d"):
        with pytest.raises(UsageError, match="teacher_cache: expected a folder; .*c is a file"):
            distill(setup_of(data, teacher), tmp_path / "run", teacher_cache=tmp_path / place)
        with pytest.raises(UsageError, match="teacher_cache: expected a folder; .*c is a file"):
            room_text(setup_of(data, teacher), tmp_path / place)


@pytest.mark.parametrize("record", ["distill.json", "table.json", "run.json"])
def test_the_folder_of_a_run_is_no_cache(record, setup_of, data, teacher, tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / record).write_text("{}")
    with pytest.raises(UsageError, match=f"teacher_cache: expected a folder of .* holds {record}"):
        room_text(setup_of(data, teacher), tmp_path / "r")


def test_the_student_alone_makes_no_cache(setup_of, data, tmp_path):
    distill(setup_of(data, None, "ce"), tmp_path / "run", teacher_cache=tmp_path / "c")
    assert not (tmp_path / "c").exists()


class Loud(torch.nn.Module):
    """A teacher whose weights do not tell what it answers."""

    def __init__(self, network, gain):
        super().__init__()
        self.network, self.gain = network, gain

    def forward(self, images):
        return self.gain * self.network(images)


def test_a_teacher_with_the_same_weights_and_other_answers_is_refused(
    setup_of, data, teacher, tmp_path
):
    def run(gain, name):
        taught = Loud(teacher.model, gain)
        distill(setup_of(data, taught), tmp_path / name, report=False, teacher_cache=tmp_path / "c")

    run(1.0, "a")
    with pytest.raises(UsageError, match="teacher_cache: .*same weights and other scores"):
        run(5.0, "b")
    run(1.0, "d")
