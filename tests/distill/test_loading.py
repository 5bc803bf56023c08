"""Batches: an epoch is the same however it is read, cut or shared out."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from natstats.distill.training.augmentation import Draws, crop_flip, resized_crop_flip
from natstats.distill.training.data import open_labelled
from natstats.distill.training.labelled import LabelledImages
from natstats.distill.training.loading import TrainBatches, eval_batches, normalise, resolved
from natstats.distill.training.recipes import Recipe
from natstats.errors import NatstatsError, UsageError
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs
from natstats.networks.preprocessing import Preprocessing

RECIPES = {
    name: Recipe(augmentation=name, size=12, batch_size=8, padding=2)
    for name in ("crop-flip", "resized-crop", "none")
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    chance = np.random.default_rng(0)
    for split, n in (("train", 14), ("val", 7)):
        for name in ("a", "b", "c"):
            (root / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = chance.integers(0, 256, (16, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return f"imagefolder:{root}"


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request):
    return RECIPES[request.param]


@pytest.fixture(scope="module")
def data(source, recipe):
    return open_labelled(source, recipe)


def same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for part, of_other in zip(one, other, strict=True):
            assert part.dtype == of_other.dtype
            assert torch.equal(part, of_other)


def test_an_epoch_cut_anywhere_goes_on_as_the_uncut_one(data, recipe):
    batches = TrainBatches(data.train, recipe, 5)
    whole = list(batches.epoch("main", 3))
    assert len(whole) == batches.n_steps == 6
    for start in range(7):
        again = TrainBatches(data.train, recipe, 5)
        same(again.epoch("main", 3, start), whole[start:])


def test_images_before_the_start_are_not_read(source, recipe, monkeypatch):
    data = open_labelled(source, recipe, memory_limit=0)
    read = []
    original = type(data.train.photographs).open
    monkeypatch.setattr(
        type(data.train.photographs),
        "open",
        lambda self, number: read.append(number) or original(self, number),
    )
    batches = TrainBatches(data.train, recipe, 5)
    (last,) = batches.epoch("main", 3, 5)
    assert read == last.places.tolist()


def test_seed_stage_and_epoch_each_give_another_order(data, recipe):
    def places(seed=0, stage="main", epoch=1):
        batches = TrainBatches(data.train, recipe, seed).epoch(stage, epoch)
        return tuple(torch.cat([batch.places for batch in batches]).tolist())

    assert len({places(), places(seed=1), places(stage="hint"), places(epoch=2)}) == 4
    assert places() == places()


def test_every_image_comes_once_in_an_epoch(data, recipe):
    batches = list(TrainBatches(data.train, recipe, 0).epoch("main", 1))
    places = torch.cat([batch.places for batch in batches])
    assert [len(batch.labels) for batch in batches] == [8] * 5 + [2]
    assert sorted(places.tolist()) == list(range(42))
    assert torch.equal(torch.cat([batch.labels for batch in batches]), data.train.labels[places])
    full = TrainBatches(data.train, recipe.changed(batch_size=14), 0)
    places = torch.cat([batch.places for batch in full.epoch("main", 1)])
    assert sorted(places.tolist()) == list(range(42))


@pytest.mark.parametrize(
    ("n", "batch_size", "world", "sizes"),
    [
        (42, 8, 1, [8] * 5 + [2]),
        (41, 8, 1, [8, 8, 8, 8, 9]),  # a single image has no batch statistics
        (40, 8, 1, [8] * 5),
        (5, 1, 1, [1] * 5),
        (5, 2, 1, [2, 3]),
        (1, 8, 1, [1]),
        (7, 8, 1, [7]),
        (42, 8, 2, [8, 8, 8, 8, 10]),  # one each would be left for two processes
        (45, 8, 2, [8] * 5 + [4]),  # and the one over is left out
        (42, 8, 4, [8] * 5),
        (7, 8, 4, [4]),
        (7, 4, 4, [4]),
    ],
)
def test_images_that_do_not_fill_a_batch(n, batch_size, world, sizes):
    held = torch.zeros(n, 3, 8, 8, dtype=torch.uint8)
    photographs = Photographs(n, Framing(8), None, 0, "black")
    images = LabelledImages(photographs, torch.zeros(n, dtype=torch.int64), held=held)
    ranks = [
        TrainBatches(images, Recipe(batch_size=batch_size), 0, rank=rank, world=world)
        for rank in range(world)
    ]
    batches = [list(one.epoch("main", 0)) for one in ranks]
    assert [one.n_steps for one in ranks] == [len(sizes)] * world
    assert [[len(b.labels) * world for b in own] for own in batches] == [sizes] * world
    places = torch.cat([batch.places for own in batches for batch in own])
    assert len(places.unique()) == len(places) == sum(sizes)
    for one in ranks:  # an epoch that is resumed has the same batches
        assert [b.places.tolist() for b in one.epoch("main", 0, len(sizes) - 1)] == [
            batches[one.rank][-1].places.tolist()
        ]


def test_an_image_is_changed_alike_whatever_batch_it_is_in(data, recipe):
    by_place = []
    for size in (8, 42):
        batches = TrainBatches(data.train, recipe.changed(batch_size=size), 0).epoch("main", 1)
        by_place.append(
            {int(p): image for b in batches for p, image in zip(b.places, b.images, strict=True)}
        )
    for place, image in by_place[0].items():
        assert torch.equal(image, by_place[1][place])


def test_chance_changes_an_image_from_epoch_to_epoch(data, recipe):
    def image(epoch):
        for batch in TrainBatches(data.train, recipe.changed(batch_size=42), 0).epoch("m", epoch):
            return batch.images[batch.places == 7][0]
        raise AssertionError

    distinct = {image(epoch).numpy().tobytes() for epoch in range(6)}
    assert len(distinct) == 1 if recipe.augmentation == "none" else len(distinct) >= 4


@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_together_are_one_process(data, recipe, world):
    whole = list(TrainBatches(data.train, recipe, 1).epoch("main", 2, 1))
    ranks = [
        list(TrainBatches(data.train, recipe, 1, rank=rank, world=world).epoch("main", 2, 1))
        for rank in range(world)
    ]
    for step, batch in enumerate(whole[:3]):  # those behind are shared out another way
        for part in range(3):
            shares = [ranks[rank][step][part] for rank in range(world)]
            assert {len(share) for share in shares} == {8 // world}
            assert torch.equal(torch.stack(shares, 1).flatten(0, 1), batch[part])


@pytest.mark.slow
def test_neither_workers_nor_memory_matter(source, data, recipe):
    whole = list(TrainBatches(data.train, recipe, 1).epoch("main", 2))
    files = open_labelled(source, recipe, memory_limit=0)
    assert files.train.held is None
    assert data.train.held is not None
    assert files.digest == data.digest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch on a machine with few cores
        for images in (files.train, data.train):
            same(TrainBatches(images, recipe, 1, workers=2).epoch("main", 2), whole)
        same(TrainBatches(files.train, recipe, 1).epoch("main", 2), whole)
        same(eval_batches(files.evaluation, recipe, 1), eval_batches(data.evaluation, recipe))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_torchs_random_state_is_neither_used_nor_changed(source, recipe, workers):
    data = open_labelled(source, recipe, memory_limit=0)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first = list(TrainBatches(data.train, recipe, 1, workers).epoch("main", 2, 3))
    list(eval_batches(data.evaluation, recipe, workers))
    open_labelled(source, recipe, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    same(TrainBatches(data.train, recipe, 1, workers).epoch("main", 2, 3), first)


def test_evaluation_is_in_order_whole_and_unchanged(data, recipe):
    batches = list(eval_batches(data.evaluation, recipe))
    assert [len(batch.labels) for batch in batches] == [8, 8, 5]
    assert torch.cat([batch.places for batch in batches]).tolist() == list(range(21))
    assert torch.equal(torch.cat([batch.images for batch in batches]), data.evaluation.held)


def test_a_set_smaller_than_a_batch_is_one_batch(data, recipe):
    large = recipe.changed(batch_size=100)
    batches = TrainBatches(data.train, large, 0)
    (batch,) = batches.epoch("main", 1)
    assert batches.n_steps == 1
    assert sorted(batch.places.tolist()) == list(range(42))
    shares = [
        len(next(TrainBatches(data.train, large, 0, rank=rank, world=4).epoch("main", 1)).labels)
        for rank in range(4)
    ]
    assert shares == [10] * 4


def test_one_image_of_each_of_two_classes_is_enough(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (9, 9), 128).save(tmp_path / split / name / "x.png")
    data = open_labelled(f"imagefolder:{tmp_path}")
    (batch,) = TrainBatches(data.train, Recipe(), 0).epoch("main", 1)
    assert batch.images.shape == (2, 3, 9, 9)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_later_is_named(tmp_path, workers):
    for split in ("train", "val"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (9, 9), 128).save(tmp_path / split / name / "x.png")
    data = open_labelled(f"imagefolder:{tmp_path}", size=9, memory_limit=0)
    (tmp_path / "train" / "b" / "x.png").write_bytes(b"broken")
    with pytest.raises(NatstatsError, match=r"^data: .*cannot read train/b/x.png: [^\n]*$"):
        list(TrainBatches(data.train, Recipe(), 0, workers).epoch("main", 1))


def test_what_cannot_be_is_named(data, recipe):
    with pytest.raises(UsageError, match="^batch_size: expected a multiple of the 3 processes"):
        TrainBatches(data.train, recipe, 0, world=3)
    with pytest.raises(UsageError, match="^rank: expected a number below the 2 processes; got 2"):
        TrainBatches(data.train, recipe, 0, rank=2, world=2)
    with pytest.raises(UsageError, match="^size: expected the 12 pixels"):
        TrainBatches(data.train, recipe.changed(size=16), 0)
    with pytest.raises(UsageError, match="^start_step: expected at most the 6 steps"):
        TrainBatches(data.train, recipe, 0).epoch("main", 1, 7)
    with pytest.raises(UsageError, match="^seed: expected"):
        TrainBatches(data.train, recipe, -1)
    with pytest.raises(UsageError, match="^data: expected at least a training image for each"):
        TrainBatches(data.train, recipe.changed(batch_size=64), 0, world=64)
    other = "none" if recipe.augmentation == "resized-crop" else "resized-crop"
    with pytest.raises(UsageError, match="^augmentation: expected the one that the images"):
        TrainBatches(data.train, recipe.changed(augmentation=other), 0)


@pytest.mark.parametrize("pad_mode", ["zero", "reflect"])
def test_a_cut_is_that_of_torchvision(pad_mode):
    chance = np.random.default_rng(0)
    images = torch.from_numpy(chance.integers(0, 256, (50, 3, 10, 7), dtype=np.uint8))
    draws = Draws.of_epoch(50, 3, 0, "main", 1)
    tops, lefts, flips = map(torch.from_numpy, (draws.tops, draws.lefts, draws.flips))
    cut = crop_flip(images, tops, lefts, flips, 3, pad_mode)
    mode = {"zero": "constant"}.get(pad_mode, pad_mode)
    for place, image in enumerate(images):
        padded = v2.functional.pad(image, [3] * 4, padding_mode=mode)
        expected = v2.functional.crop(padded, int(tops[place]), int(lefts[place]), 10, 7)
        if flips[place]:
            expected = v2.functional.horizontal_flip(expected)
        assert torch.equal(cut[place], expected)


def test_every_cut_is_as_likely():
    """Chi-squared over the 81 places and the flip; bounds are its 0.001 and 0.999 quantiles."""
    draws = Draws.of_epoch(81 * 2 * 50, 4, 0, "main", 1)
    cells = (draws.tops * 9 + draws.lefts) * 2 + draws.flips
    n = np.bincount(cells, minlength=162)
    assert len(n) == 162
    assert 111.2 < ((n - 50) ** 2 / 50).sum() < 222.2


def test_a_random_part_is_that_of_torchvision_and_its_seed():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8))
    cut = resized_crop_flip(image, 32, 11)
    state = torch.get_rng_state()
    torch.manual_seed(11)
    expected = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()])(image)
    torch.set_rng_state(state)
    assert torch.equal(cut, expected)
    assert not torch.equal(cut, resized_crop_flip(image, 32, 12))


def test_an_image_too_small_to_be_reflected_is_refused():
    with pytest.raises(UsageError, match="^padding: expected less than the 4 pixels"):
        crop_flip(
            torch.zeros(1, 3, 4, 6, dtype=torch.uint8), *torch.zeros(2, 1, dtype=torch.int64),
            torch.zeros(1, dtype=torch.bool), 4, "reflect",
        )  # fmt: skip


def test_normalising_is_what_measuring_does():
    images = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    expects = Preprocessing(Framing(5), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    values = normalise(images, expects.mean, expects.std)
    assert values.dtype == torch.float32
    assert torch.equal(values, expects.normalize(images.float() / 255))
    last = images.contiguous(memory_format=torch.channels_last)
    assert normalise(last, expects.mean, expects.std).is_contiguous(
        memory_format=torch.channels_last
    )


def test_open_fields_are_filled_from_the_training_images(source):
    data = open_labelled(source)
    recipe = resolved(Recipe(mean=None, std=None), data.train)
    assert recipe.size == data.size == 16
    pixels = data.train.held.double() / 255
    assert recipe.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist(), rel=1e-12)
    assert recipe.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), rel=1e-9)
    files = open_labelled(source, memory_limit=0)
    assert resolved(Recipe(mean=None, std=None), files.train) == recipe
    stated = Recipe(size=16)
    assert resolved(stated, data.train) == stated
