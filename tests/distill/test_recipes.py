"""Recipes: what is published stays as published, rates are those of torch's schedulers."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from natstats.distill.training.optimization import learning_rate, make_optimizer
from natstats.distill.training.recipes import PRESETS, Recipe
from natstats.errors import UsageError

# The columns of HobbitLong/RepDistiller b84f547, clovaai/overhaul-distillation 76344a8,
# megvii-research/mdistiller a08d46f and yoshitomo-matsubara/torchdistill 3e4373c:
# epochs, batch, rate, milestones, nesterov, weight decay, padding mode.
PUBLISHED = {
    "cifar100": (240, 64, 0.05, (150, 180, 210), False, 5e-4, "zero"),
    "cifar100-overhaul": (200, 128, 0.1, (100, 150), True, 5e-4, "reflect"),
    "imagenet": (100, 256, 0.1, (30, 60, 90), False, 1e-4, None),
    "imagenet-overhaul": (100, 256, 0.1, (30, 60, 90), True, 1e-4, None),
    "imagenet-mdistiller": (100, 512, 0.2, (30, 60, 90), False, 1e-4, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_recipe_is_as_published(name):
    recipe = Recipe.from_preset(name)
    epochs, batch, rate, milestones, nesterov, decay, pad_mode = PUBLISHED[name]
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (epochs, batch, rate)
    assert (recipe.optimizer, recipe.momentum, recipe.nesterov) == ("sgd", 0.9, nesterov)
    assert (recipe.weight_decay, recipe.decay_vectors) == (decay, True)
    assert recipe.schedule == "step"
    assert str(recipe.milestones) == str(milestones)
    assert recipe.gamma == 0.1
    assert recipe.warmup_epochs == 0
    if pad_mode:
        assert (recipe.augmentation, recipe.padding, recipe.size) == ("crop-flip", 4, 32)
        assert recipe.pad_mode == pad_mode
    else:
        assert (recipe.augmentation, recipe.size, recipe.resize) == ("resized-crop", 224, 256)
        assert recipe.mean == (0.485, 0.456, 0.406)


def test_every_preset_says_where_it_is_from():
    assert set(PRESETS) == {"default", *PUBLISHED}
    for preset in PRESETS.values():
        assert preset.title
        assert preset.source
    assert Recipe.from_preset("cifar100").mean == (0.5071, 0.4867, 0.4408)
    assert Recipe.from_preset("cifar100-overhaul").std == pytest.approx(
        (0.2471, 0.2435, 0.2616), 1e-3
    )


def test_an_unknown_preset_or_field_lists_what_there_is():
    with pytest.raises(UsageError, match=r"preset: expected one of default, cifar100, .*cifar10'"):
        Recipe.from_preset("cifar10")
    with pytest.raises(UsageError, match=r"recipe field: .*did you mean learning_rate"):
        Recipe.from_preset("cifar100", learning_rat=1)
    with pytest.raises(UsageError, match=r"recipe field: .*'lr' \(did you mean learning_rate\?\)"):
        Recipe.from_dict({"lr": 1})
    with pytest.raises(UsageError, match=r"'wd' \(did you mean weight_decay"):
        Recipe.from_dict({"wd": 1})


def test_what_hangs_on_a_changed_field_follows_it():
    assert Recipe.from_preset("cifar100", epochs=24).milestones == (15, 18, 21)
    assert Recipe.from_preset("cifar100", epochs=24, milestones=(20,)).milestones == (20,)
    assert Recipe.from_preset("cifar100", schedule="cosine").milestones == ()
    assert Recipe.from_preset("imagenet", size=112).resize == 128
    assert Recipe.from_preset("imagenet", size=112, resize=112).resize == 112
    assert Recipe(epochs=10, warmup_epochs=5).changed(epochs=5).warmup_epochs == 2.5
    assert Recipe(epochs=10, warmup_epochs=5).changed(epochs=4).warmup_epochs == 2
    assert str(Recipe(epochs=10, warmup_epochs=5).changed(epochs=4).warmup_epochs) == "2"


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_goes_through_json(name):
    recipe = Recipe.from_preset(name)
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 1.5),
        ("batch_size", 0),
        ("batch_size", True),
        ("optimizer", "adam"),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", "0.1"),
        ("momentum", 1),
        ("nesterov", 1),
        ("weight_decay", -1e-4),
        ("decay_vectors", None),
        ("schedule", "poly"),
        ("milestones", (3,)),  # without the schedule step
        ("gamma", 0),
        ("gamma", 1.1),
        ("warmup_epochs", -1),
        ("warmup_epochs", 60),
        ("clip", 0),
        ("clip", float("inf")),
        ("label_smoothing", 1),
        ("augmentation", "mixup"),
        ("pad_mode", "edge"),
        ("padding", -1),
        ("size", 4),
        ("resize", 4),
        ("mean", (0.5, 0.5)),
        ("mean", 0.5),
        ("std", (0.5, 0.0, 0.5)),
        ("std", None),  # the mean stays
        ("amp", "fp8"),
        ("channels_last", "yes"),
    ],
)
def test_a_field_that_cannot_be_is_named(field, value):
    with pytest.raises(UsageError, match=f"^{field}: expected .* got "):
        Recipe(**{field: value})


@pytest.mark.parametrize("milestones", [(), (5, 5), (8, 5), (0, 5), (5, 10), (5, 11), 5, ("5",)])
def test_milestones_rise_within_the_epochs(milestones):
    with pytest.raises(UsageError, match="^milestones: expected"):
        Recipe(epochs=10, schedule="step", milestones=milestones)


def test_fields_that_do_not_fit_together():
    with pytest.raises(UsageError, match="^resize: expected at least the size 64; got 32"):
        Recipe(size=64, resize=32)
    with pytest.raises(UsageError, match="^nesterov: expected a momentum above 0"):
        Recipe(momentum=0)
    assert Recipe(momentum=0, nesterov=False).momentum == 0


def rates_of_torch(schedule, n, rate=0.1):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    scheduler = schedule(optimizer)
    rates = []
    for _ in range(n):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates(recipe, n_per_epoch, **stage):
    n = n_per_epoch * stage.get("epochs", recipe.epochs)
    return [learning_rate(recipe, step, n_per_epoch, **stage) for step in range(n)]


def test_steps_are_those_of_torch():
    recipe = Recipe(epochs=12, learning_rate=0.1, schedule="step", milestones=(4, 8, 11), gamma=0.2)
    expected = rates_of_torch(
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [4 * 7, 8 * 7, 11 * 7], 0.2), 12 * 7
    )
    assert rates(recipe, 7) == pytest.approx(expected, rel=1e-12)


def test_the_cosine_is_that_of_torch():
    recipe = Recipe(epochs=9, learning_rate=0.1, schedule="cosine")
    expected = rates_of_torch(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 9 * 5), 9 * 5
    )
    assert rates(recipe, 5) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_warm_up_is_that_of_torch_before_a_cosine():
    recipe = Recipe(epochs=9, learning_rate=0.1, schedule="cosine", warmup_epochs=2)

    def schedule(optimizer):
        # torch's warm-up reaches the full rate at its last step: of 10 steps the tenth.
        rising = lr_scheduler.LinearLR(optimizer, 1 / 10, total_iters=9)
        falling = lr_scheduler.CosineAnnealingLR(optimizer, 35)
        return lr_scheduler.SequentialLR(optimizer, [rising, falling], [10])

    assert rates(recipe, 5) == pytest.approx(rates_of_torch(schedule, 45), rel=1e-9, abs=1e-12)


def test_the_warm_up_does_not_move_milestones():
    plain = Recipe(epochs=6, schedule="step", milestones=(3, 5))
    warm = plain.changed(warmup_epochs=1)
    assert rates(warm, 4)[4:] == rates(plain, 4)[4:]
    assert rates(warm, 4)[:4] == pytest.approx([0.05 * share for share in (0.25, 0.5, 0.75, 1)])


def test_a_constant_rate_stays():
    assert set(rates(Recipe(epochs=3, schedule="constant"), 4)) == {0.05}


def test_a_stage_of_another_length_keeps_the_shares():
    recipe = Recipe.from_preset("cifar100")
    short = Recipe.from_preset("cifar100", epochs=24)
    assert rates(recipe, 10, epochs=24) == rates(short, 10)
    cosine = Recipe(epochs=20, warmup_epochs=2)
    assert rates(cosine, 3, epochs=10) == rates(cosine.changed(epochs=10), 3)


def test_a_stage_may_have_a_schedule_of_its_own():
    recipe = Recipe.from_preset("cifar100")
    assert set(rates(recipe, 2, epochs=5, schedule="constant")) == {0.05}
    with pytest.raises(UsageError, match="^schedule: expected one of step, cosine, constant"):
        learning_rate(recipe, 0, 1, schedule="poly")


def test_steps_out_of_range():
    with pytest.raises(UsageError, match="^step: expected"):
        learning_rate(Recipe(), -1, 10)
    with pytest.raises(UsageError, match="^n_steps_per_epoch: expected"):
        learning_rate(Recipe(), 0, 0)
    assert learning_rate(Recipe(), 10**6, 10) == pytest.approx(0, abs=1e-17)


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def test_the_optimiser_is_the_one_asked_for():
    sgd = make_optimizer(Recipe.from_preset("cifar100-overhaul"), network().parameters())
    assert type(sgd) is torch.optim.SGD
    (group,) = sgd.param_groups
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.1, 0.9, True)
    assert group["weight_decay"] == 5e-4
    assert len(group["params"]) == 6
    adamw = make_optimizer(Recipe(optimizer="adamw", momentum=0.8), network().parameters())
    assert type(adamw) is torch.optim.AdamW
    assert adamw.param_groups[0]["betas"] == (0.8, 0.999)


def test_parameters_of_one_axis_decay_unless_the_recipe_says_no():
    recipe = Recipe(decay_vectors=False)
    decayed, others = make_optimizer(recipe, network().parameters()).param_groups
    assert decayed["weight_decay"] == 5e-4
    assert [one.ndim for one in decayed["params"]] == [4, 2]
    assert others["weight_decay"] == 0
    assert [one.ndim for one in others["params"]] == [1, 1, 1, 1]


def test_groups_keep_what_they_say():
    model = network()
    groups = [
        {"params": model[0].parameters(), "weight_decay": 0.0},
        {"params": model[2].weight, "name": "connector"},
    ]
    first, second = make_optimizer(Recipe(), groups).param_groups
    assert first["weight_decay"] == 0
    assert second["weight_decay"] == 5e-4
    assert second["name"] == "connector"


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    (group,) = make_optimizer(Recipe(), model.parameters()).param_groups
    assert len(group["params"]) == 4
    with pytest.raises(UsageError, match="^parameters: expected at least one to train"):
        make_optimizer(Recipe(), network().requires_grad_(False).parameters())
    with pytest.raises(UsageError, match="^parameters: expected at least one to train"):
        make_optimizer(Recipe(), [])
