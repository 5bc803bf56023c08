"""Fields of the recipe that change images, weights or steps: by hand, resumed, refused by name."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from natstats.distill.results import DistillationRun
from natstats.distill.training.augmentation import (
    Draws,
    augmented,
    rand_augmented,
    resized_crop_flip,
)
from natstats.distill.training.averaging import WeightAverage
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import WEIGHTS, distill
from natstats.distill.training.distributed import Processes, synchronised
from natstats.distill.training.evaluation import Looks
from natstats.distill.training.labelled import LabelledImages
from natstats.distill.training.loading import TrainBatches, resolved
from natstats.distill.training.mixing import mixed
from natstats.distill.training.objective import Objective
from natstats.distill.training.out_folders import finished
from natstats.distill.training.program import TrainingStage
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.state import TrainingState, refuse_other_settings
from natstats.distill.training.stepping import Stepper
from natstats.distill.training.trainer import Trainer
from natstats.errors import UsageError
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs

CPU = torch.device("cpu")


class Cut(BaseException):
    """Stands for a machine that goes away."""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", "yes"),
        ("flip", 0),
        ("mixup", -0.1),
        ("cutmix", float("inf")),
        ("cutmix", True),
        ("randaugment", 31),
        ("randaugment", 1.5),
        ("randaugment", -1),
        ("ema", 1),
        ("ema", -0.1),
        ("sync_bn", 1),
        ("accumulate", 0),
        ("accumulate", 33),  # of 64 images: parts of a single one
    ],
)
def test_a_field_that_cannot_be_is_named(field, value):
    with pytest.raises(UsageError, match=f"^{field}: expected .* got "):
        Recipe(**{field: value})


def test_flips_go_with_an_augmentation():
    with pytest.raises(UsageError, match="^flip: expected an augmentation beside it; got none"):
        Recipe(augmentation="none", flip=True)
    assert Recipe(flip=True).changed(augmentation="none").flip is None
    assert Recipe(augmentation="none", flip=False).flip is False


def noise(n, size=12, flips=True, seed=0):
    chance = np.random.default_rng(seed)
    held = torch.from_numpy(chance.integers(0, 256, (n, 3, size, size), dtype=np.uint8))
    photographs = Photographs(n, Framing(size), None, 0, "noise")
    return LabelledImages(photographs, torch.arange(n) % 3, held=held, flips=flips)


class TestFlips:
    @pytest.mark.parametrize(
        ("asked", "flips", "flipped"),
        [(None, True, True), (None, False, False), (True, False, True), (False, True, False)],
    )
    def test_the_recipe_comes_before_the_data(self, asked, flips, flipped):
        images = noise(64, flips=flips)
        recipe = Recipe(batch_size=64, padding=0, flip=asked)
        for one in (recipe, resolved(recipe, images)):
            (batch,) = TrainBatches(images, one, 0).epoch("main", 0)
            plain = images.held[batch.places]
            is_plain = (batch.images == plain).flatten(1).all(1)
            is_mirror = (batch.images == plain.flip(3)).flatten(1).all(1)
            assert bool((is_plain | is_mirror).all())
            assert bool(is_mirror.any()) == flipped

    def test_a_part_without_a_flip_is_the_same_part(self):
        image = noise(1, 40).held[0]
        parts = [(resized_crop_flip(image, 16, s), resized_crop_flip(image, 16, s, False))
                 for s in range(12)]  # fmt: skip
        same = [torch.equal(one, other) for one, other in parts]
        assert True in same
        assert False in same
        for one, other in parts:
            assert torch.equal(one, other) or torch.equal(one.flip(2), other)

    @pytest.mark.parametrize(("name", "flips"), [("mnist", False), ("fashionmnist", True)])
    def test_digits_are_not_flipped(self, name, flips, monkeypatch, folder, recipe):
        from natstats.distill.training import data as module

        original = module.find_source

        def found(source):
            there = original(source)
            return type(there)(name, there.root, there.classes, there.training)

        monkeypatch.setattr(module, "find_source", found)
        data = open_labelled(f"imagefolder:{folder}", recipe, holdout=0.3)
        assert data.train.flips is flips
        assert resolved(recipe, data.train).flip is (None if flips else False)


class TestRandAugment:
    def test_it_is_that_of_torchvision_and_its_seed(self):
        image = noise(1, 20).held[0]
        state = torch.get_rng_state()
        torch.manual_seed(7)
        expected = v2.RandAugment(2, 14)(image)
        torch.set_rng_state(state)
        assert torch.equal(rand_augmented(image, 14, 7), expected)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("augmentation", ["none", "crop-flip", "resized-crop"])
    def test_it_comes_after_cut_and_flip_whatever_the_batch(self, augmentation):
        images = noise(10).held
        draws = Draws.of_epoch(10, 2, 0, "main", 0)
        plain = Recipe(augmentation=augmentation, padding=2)
        strong = plain.changed(randaugment=20)
        cut = augmented(images, np.arange(10), draws, plain, 12)
        changed = augmented(images, np.arange(10), draws, strong, 12)
        for place in range(10):
            seed = int(draws.seeds[place]) + 2**62
            assert torch.equal(changed[place], rand_augmented(cut[place], 20, seed))
        some = np.array([7, 2])
        assert torch.equal(augmented(images[[7, 2]], some, draws, strong, 12), changed[[7, 2]])


class TestMixing:
    def batch(self):
        draw = torch.Generator().manual_seed(0)
        return torch.rand(16, 3, 10, 10, generator=draw), torch.arange(16) % 3

    def test_nothing_is_mixed_where_nothing_is_asked_for(self):
        images, labels = self.batch()
        same = mixed(images, labels, Recipe(), 3, 0)
        assert same[0] is images
        assert same[1] is labels

    def test_mixup_blends_with_the_image_before(self):
        images, labels = self.batch()
        found, shares = mixed(images, labels, Recipe(mixup=0.8), 3, 5)
        hard = nn.functional.one_hot(labels, 3).float()
        own = float(shares[1, labels[1]])
        torch.testing.assert_close(found, own * images + (1 - own) * images.roll(1, 0))
        torch.testing.assert_close(shares, own * hard + (1 - own) * hard.roll(1, 0))

    def test_cutmix_takes_a_rectangle_and_its_share(self):
        images, labels = self.batch()
        for seed in range(5):
            found, shares = mixed(images, labels, Recipe(cutmix=1.0), 3, seed)
            other = (found != images).any(1)
            assert torch.equal(torch.where(other[:, None], images.roll(1, 0), images), found)
            share = float(other[0].float().mean())
            assert float(shares[1, labels[1]]) == pytest.approx(1 - share, abs=1e-6)

    def test_both_take_turns_and_a_seed_decides(self):
        images, labels = self.batch()
        recipe = Recipe(mixup=1.0, cutmix=1.0)
        state = torch.get_rng_state()
        found = [mixed(images, labels, recipe, 3, seed)[0] for seed in range(24)]
        again = [mixed(images, labels, recipe, 3, seed)[0] for seed in range(24)]
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
        # CutMix alone gives back pixels of the images as they are.
        kept = [bool(((f == images) | (f == images.roll(1, 0))).all()) for f in found]
        assert 4 <= sum(kept) <= 20

    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_the_cross_entropy_takes_shares(self, smoothing):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(300, 3))
        images, labels = self.batch()
        objective = Objective(model, None, (), images[:1], smoothing)
        found, shares = mixed(images, labels, Recipe(mixup=0.8), 3, 5)
        own = float(shares[1, labels[1]])
        values = objective(found, shares)
        scores = model(found)
        expected = [
            nn.functional.cross_entropy(scores, one, label_smoothing=smoothing)
            for one in (labels, labels.roll(1))
        ]
        by_hand = own * expected[0] + (1 - own) * expected[1]
        torch.testing.assert_close(values.objective_ce, by_hand)
        larger = labels if own > 0.5 else labels.roll(1)
        assert int(values.n_right) == int((scores.argmax(1) == larger).sum())

    def test_a_method_that_needs_labels_is_refused(self, data, teacher, setup_of, recipe):
        with pytest.raises(UsageError, match=r"^cutmix: expected 0 beside the term jacobian"):
            setup_of(data, teacher, "jacobian", recipe=recipe.changed(cutmix=1.0))
        setup_of(data, teacher, "kd", recipe=recipe.changed(cutmix=1.0))


class TestAverage:
    def test_weights_and_statistics_are_averaged(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        average = WeightAverage(model, 0.3)
        expected = {k: v.clone() for k, v in model.state_dict().items()}
        for step in range(1, 7):
            with torch.no_grad():
                model[0].weight.add_(1.0)
            model(torch.randn(4, 3))
            average.update()
            decay = min(0.3, step / (9 + step))
            for key, value in model.state_dict().items():
                old = expected[key]
                expected[key] = (
                    decay * old + (1 - decay) * value if value.is_floating_point() else value
                ).clone()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with contextlib.suppress(ZeroDivisionError), average.in_place():
            for key, value in model.state_dict().items():
                torch.testing.assert_close(value, expected[key], msg=key)
            raise ZeroDivisionError
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key

    @pytest.mark.slow
    def test_what_is_saved_was_evaluated(self, tmp_path, data, setup_of, recipe):
        run = distill(
            setup_of(data, None, "ce", recipe=recipe.changed(ema=0.9)), tmp_path, report=False
        )
        plain = distill(setup_of(data, None, "ce"), tmp_path / "plain", report=False)
        assert run.history.loss.tolist() == plain.history.loss.tolist()
        assert run.history.eval_loss.tolist() != plain.history.eval_loss.tolist()
        assert run.accuracy == run.history.eval_accuracy.iloc[-1]


def one_step(recipe, images, labels, model):
    stage = TrainingStage("main", (), ce_weight=1.0, epochs=1)
    objective = Objective(model, None, (), images[:1], recipe.label_smoothing)
    stepper = Stepper(stage, objective, recipe, torch.amp.GradScaler(enabled=False), CPU)
    sums = stepper.sums()
    stepper.backward(images, labels, {"ce": 1.0}, sums, 0)
    stepper.follow()
    return sums


@pytest.mark.parametrize("n", [16, 15, 5, 3])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(n):
    images, labels = torch.randn(n, 3, 6, 6), torch.arange(n) % 3
    found = []
    for accumulate in (1, 4):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        recipe = Recipe(batch_size=16, accumulate=accumulate, clip=0.5, label_smoothing=0.1)
        sums = one_step(recipe, images, labels, model)
        found.append((model.state_dict(), sums.sums / sums.right[1], sums.right))
    for key, value in found[0][0].items():
        torch.testing.assert_close(found[1][0][key], value, msg=key)
    torch.testing.assert_close(found[1][1], found[0][1])
    assert torch.equal(found[1][2], found[0][2])


def test_no_part_is_a_single_image():
    model = nn.Sequential(nn.Conv2d(3, 4, 6), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))
    one_step(
        Recipe(batch_size=16, accumulate=8), torch.randn(5, 3, 6, 6), torch.arange(5) % 3, model
    )


class TestSynchronised:
    def test_a_single_process_changes_nothing(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        own = model[1]
        with synchronised(model, Processes(0, 1, CPU)):
            assert model[1] is own

    def test_cpus_are_refused(self):
        model = nn.Sequential(nn.BatchNorm2d(4))
        with (
            pytest.raises(UsageError, match="^sync_bn: expected CUDA devices .* got cpu"),
            synchronised(model, Processes(0, 2, CPU)),
        ):
            pass
        with synchronised(model, Processes(0, 2, CPU), False):
            assert type(model[0]) is nn.BatchNorm2d

    def test_the_models_own_come_back_with_what_was_learnt(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4)))
        own, names = model[1][0], list(model.state_dict())
        with synchronised(model, Processes(0, 2, torch.device("cuda"))):
            assert type(model[1][0]) is nn.SyncBatchNorm
            assert model[1][0].weight is own.weight
            assert list(model.state_dict()) == names
            model[1][0].running_mean.add_(2.0)
            model.eval()
        assert model[1][0] is own
        assert own.running_mean.tolist() == [2.0] * 4
        assert not own.training


FIELDS = [
    {"mixup": 0.4, "cutmix": 1.0},
    {"ema": 0.8},
    {"randaugment": 9, "flip": False},
    {"accumulate": 2, "mixup": 0.2, "ema": 0.5, "label_smoothing": 0.1},
]


@pytest.mark.slow
@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: "+".join(fields))
def test_a_training_that_was_cut_ends_as_if_it_had_not_been(
    tmp_path, data, teacher, setup_of, recipe, fields
):
    own = recipe.changed(**fields)

    def run(name, **settings):
        setup = setup_of(data, teacher, "kd+spectral", recipe=own)
        return distill(setup, tmp_path / name, report=False, keep_seconds=0.0, **settings)

    whole = run("whole")
    assert {key: whole.info["recipe"][key] for key in fields} == fields
    assert {key: whole.info["identity"]["recipe"][key] for key in fields} == fields
    for cut in (2, 5):

        def stop(done, total, cut=cut):
            if done == cut:
                raise Cut

        with pytest.raises(Cut):
            run("cut", progress=stop)
    resumed = run("cut")
    assert (tmp_path / "cut" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert resumed.history.loss.tolist() == whole.history.loss.tolist()
    assert resumed.history.eval_loss.tolist() == whole.history.eval_loss.tolist()


LATER = ("flip", "randaugment", "mixup", "cutmix", "ema", "sync_bn", "accumulate")


def as_before(settings):
    recipe = {key: value for key, value in settings["recipe"].items() if key not in LATER}
    return {**settings, "recipe": recipe}


@pytest.mark.slow
def test_runs_and_states_of_before_these_fields_are_known(tmp_path, data, setup_of, recipe):
    def stop(done, total):
        if done == 5:
            raise Cut

    with pytest.raises(Cut):
        distill(setup_of(data, None, "ce"), tmp_path / "run", report=False, progress=stop)
    state = TrainingState(tmp_path / "run", {})
    kept = torch.load(state.path, weights_only=True)
    kept["identity"] = as_before(kept["identity"])
    del kept["average"]
    for row in kept["trained"]["history"]:
        for name in ("eval_images", "images_per_second", "memory_mib"):
            del row[name]
    torch.save(kept, state.path)
    run = distill(setup_of(data, None, "ce"), tmp_path / "run", report=False)
    assert run.info["costs"]["sittings"] == 2
    whole = distill(setup_of(data, None, "ce"), tmp_path / "whole", report=False)
    assert run.history.loss.tolist() == whole.history.loss.tolist()
    assert np.isnan(run.history.eval_images.iloc[0])

    record = tmp_path / "run" / "distill.json"
    info = json.loads(record.read_text())
    info["identity"] = as_before(info["identity"])
    record.write_text(json.dumps(info))
    table = run.history.drop(columns=["eval_images", "images_per_second", "memory_mib"])
    table.to_csv(tmp_path / "run" / "history.csv", index=False)
    assert finished(setup_of(data, None, "ce"), tmp_path / "run") is not None
    opened = DistillationRun.open(tmp_path / "run")
    assert opened.terms == run.terms
    assert opened.history.eval_images.isna().all()
    with pytest.raises(UsageError, match=r"recipe\.mixup was 0\.0, is 0\.1"):
        finished(setup_of(data, None, "ce", recipe=recipe.changed(mixup=0.1)), tmp_path / "run")


@pytest.mark.parametrize(
    ("augmentation", "flip", "is_same"),
    [("crop-flip", None, True), ("crop-flip", True, True), ("crop-flip", False, False),
     ("none", None, True), ("none", False, True)],
)  # fmt: skip
def test_what_was_not_said_of_flips_was_that_all_are(augmentation, flip, is_same):
    now = {"recipe": Recipe(augmentation=augmentation, flip=flip).to_dict()}
    if is_same:
        refuse_other_settings(as_before(now), now, "is there")
    else:
        with pytest.raises(UsageError, match=r"recipe\.flip was True, is False"):
            refuse_other_settings(as_before(now), now, "is there")


def test_a_mean_over_an_epoch_is_over_its_images(data, setup_of, recipe):
    """The last batch is smaller than the others: 30 images in batches of 8."""
    setup = setup_of(data, None, "ce", recipe=recipe.changed(epochs=1, learning_rate=1e-12))
    batches = TrainBatches(data.train, setup.recipe, 0)
    trainer = Trainer(
        setup.student.model, None, setup.program, batches, setup.recipe, Looks(lambda: (0.0, 0.0)),
        together=Processes(0, 1, CPU),
    )  # fmt: skip
    weights = {k: v.clone() for k, v in setup.student.model.state_dict().items()}
    (row,) = trainer.train().history
    setup.student.model.load_state_dict(weights)
    model = setup.student.model.train()
    total = 0.0
    for batch in batches.epoch("main", 0):
        images, _ = trainer._batch(batch, ("main", 0, 0))
        total += float(
            nn.functional.cross_entropy(model(images), batch.labels, reduction="sum").detach()
        )
    assert row["loss"] == pytest.approx(total / 30, rel=1e-5)
