"""Images that a program holds: lists, data sets and loaders of torch, with labels or without."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import natstats
from natstats.images import Photographs, open_images
from natstats.images.arrays import ImageArray

N = 9
RNG = np.random.default_rng(0)
PIXELS = [RNG.integers(0, 256, (20, 24, 3), np.uint8) for _ in range(N)]
FLOATS = [RNG.random((3, 16, 16), np.float32) for _ in range(N)]


class Items(Dataset):
    """A data set of what it is given."""

    def __init__(self, items, transform=lambda item: item):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, place):
        return self.transform(self.items[place])


class Endless(IterableDataset):
    def __iter__(self):
        yield PIXELS[0]


def all_of(images):
    samples = [images[number] for number in range(len(images))]
    assert [sample.reason for sample in samples] == [""] * len(images)
    return [sample.image for sample in samples], [sample.content for sample in samples]


PHOTOGRAPHS = {
    "pil": [Image.fromarray(one) for one in PIXELS],
    "bytes": PIXELS,
    "tensors": [torch.from_numpy(np.moveaxis(one, -1, 0).copy()) for one in PIXELS],
    "first": [np.moveaxis(one, -1, 0) for one in PIXELS],
    "labels": [(one, label) for label, one in enumerate(PIXELS)],
    "image": [{"image": one, "label": 0} for one in PIXELS],
    "values": [{"pixel_values": one} for one in PIXELS],
}


@pytest.mark.parametrize("kind", PHOTOGRAPHS)
@pytest.mark.parametrize("holder", [list, tuple, Items, lambda items: DataLoader(Items(items))])
def test_what_looks_like_a_photograph_is_one_however_it_is_held(kind, holder):
    found = open_images(holder(PHOTOGRAPHS[kind]))
    assert isinstance(found, Photographs)
    usual = open_images(PHOTOGRAPHS["pil"])
    for one, other in zip(all_of(found)[0], all_of(usual)[0], strict=True):
        assert one.dtype == torch.uint8
        assert torch.equal(one, other)
    assert found.digest() == usual.digest() or holder not in (list, tuple)


@pytest.mark.parametrize("holder", [list, Items, lambda items: DataLoader(Items(items), 4)])
@pytest.mark.parametrize("transform", [lambda one: one, torch.from_numpy, lambda one: (one, 1)])
def test_floats_are_taken_as_they_are(holder, transform):
    found = open_images(holder([transform(one) for one in FLOATS]), seed=3)
    usual = open_images(np.stack(FLOATS), seed=3)
    for one, other in zip(all_of(found)[0], all_of(usual)[0], strict=True):
        assert torch.equal(one, other)
    assert all_of(found)[1] == all_of(usual)[1]


def test_a_list_of_floats_of_one_size_is_the_array():
    assert isinstance(open_images(FLOATS), ImageArray)
    assert open_images(FLOATS).digest() == open_images(np.stack(FLOATS)).digest()


def test_sizes_may_differ_as_those_of_files_may():
    mixed = [PIXELS[0], PIXELS[1][:18], Image.fromarray(PIXELS[2][:, :19])]
    images, _ = all_of(open_images(mixed))
    assert {tuple(one.shape) for one in images} == {(3, 18, 18)}
    floats = [FLOATS[0], FLOATS[1][:, :12], FLOATS[2][:, :, :11]]
    found = open_images(floats)
    assert {tuple(one.shape) for one in all_of(found)[0]} == {(3, 11, 11)}
    assert "rounded to 8 bits" in found.notes[0]
    with pytest.raises(natstats.UsageError, match=r"floats from 0 to 1 .*; item 1 of the list"):
        open_images([FLOATS[0], FLOATS[1][:, :12] - 1])


def test_grey_images(tmp_path):
    grey = [one[..., 0] for one in PIXELS]
    for items in (grey, [one[..., None] for one in grey], [torch.from_numpy(one) for one in grey]):
        images, _ = all_of(open_images(items))
        assert torch.equal(images[0][0], images[0][2])
    found = natstats.measure_images(grey * 4)
    assert list(found.layers.layer) == ["input.grey"] or len(found.layers) >= 1


def test_a_list_of_paths(tmp_path):
    paths = []
    for place, one in enumerate(PIXELS):
        paths.append(tmp_path / f"{place}.png")
        Image.fromarray(one).save(paths[-1])
    listed = open_images([str(path) for path in reversed(paths)])
    assert all_of(listed)[1] == all_of(open_images(tmp_path))[1]
    with pytest.raises(natstats.UsageError, match=r"gone\.png is no file"):
        open_images([*paths, tmp_path / "gone.png"])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ([], "at least one image; got an empty list"),
        ([7], "item 0 of the list: got a int"),
        ([PIXELS[0], None], "item 1 of the list: got a NoneType"),
        ([PIXELS[0].astype(np.int64)], "item 0 of the list: got int64 of shape"),
        ([PIXELS[0][..., :2]], "got uint8 of shape"),
        ([FLOATS[0][0]], r"floats \(C, H, W\)"),
        ([np.moveaxis(FLOATS[0], 0, -1)], "channels first"),
        ([{"picture": PIXELS[0]}], "image or pixel_values is expected; this one has picture"),
        ([()], "this tuple is empty"),
        ([[PIXELS[0]], "x"], "item 1 of the list: got a str"),
        (Items([]), "the Items is empty"),
        (Items([7]), "item 0 of the Items: .*got a int"),
        (Endless(), "a data set with a length"),
        (DataLoader(Endless()), "a data set with a length"),
        (DataLoader(Items(PIXELS), sampler=WeightedRandomSampler([1.0] * N, 4)), "goes over its"),
        ({"a": 1}, "expected a folder, .* an array or a tensor; got"),
    ],
)
def test_all_else_is_refused_by_name(source, words):
    with pytest.raises(natstats.UsageError, match=rf"^images: .*{words}"):
        open_images(source)


def test_a_loader_is_its_data_set_as_far_as_it_goes_over_it():
    data = Items(PIXELS)
    whole = all_of(open_images(data))[1]
    for loader in (
        DataLoader(data, 4, shuffle=True),
        DataLoader(data, 4, drop_last=True),
        DataLoader(data, batch_size=None),
    ):
        assert all_of(open_images(loader))[1] == whole
    part = open_images(DataLoader(data, sampler=SubsetRandomSampler([5, 2])))
    assert sorted(all_of(part)[1]) == sorted(all_of(open_images(Subset(data, [2, 5])))[1])

    def collate(items):
        return {"pixel_values": torch.stack([torch.from_numpy(one) / 2 for one in items])}

    halved = open_images(DataLoader(Items(FLOATS), 4, collate_fn=collate))
    assert torch.equal(all_of(halved)[0][0], torch.from_numpy(FLOATS[halved.places[0]]) / 2)


def test_what_cannot_be_read_is_left_out_with_its_reason():
    def read(item):
        if item == 3:
            raise OSError("the disk is gone")
        return FLOATS[item] if item != 4 else FLOATS[item][:, 1:]

    found = open_images(Items(range(N), read))
    reasons = {found.places[n]: found[n].reason for n in range(N) if found[n].image is None}
    assert reasons == {3: "the disk is gone", 4: "expected shape (3, 16, 16); got (3, 15, 16)"}


def test_limit_and_seed_number_them_like_others():
    for items in (PIXELS, Items(PIXELS)):
        found = open_images(items, limit=4, seed=1)
        assert len(found) == 4
        assert found.places == open_images(np.zeros((N, 1, 8, 8)), limit=4, seed=1).places


@pytest.mark.parametrize("holder", [list, Items])
def test_listings_tell_sets_from_each_other(holder):
    """By what a state of unfinished work is taken up again."""
    for items in (PIXELS, FLOATS):
        first = open_images(holder(items)).listing()
        assert first == open_images(holder(items)).listing()
        assert first != open_images(holder(items[::-1])).listing()
        assert first != open_images(holder(items[:-1])).listing()


@pytest.mark.parametrize("items", [PIXELS, FLOATS], ids=["photographs", "floats"])
def test_random_transforms_are_told_and_never_resumed(items):
    rng = np.random.default_rng(0)

    def flipped(one):
        return one if rng.random() < 0.0 else np.roll(one, rng.integers(1, 9), 1)

    found = open_images(Items(items, flipped))
    assert "cannot be resumed" in found.notes[0]
    assert found.listing() != found.listing()
    assert not open_images(Items(items)).notes


@pytest.mark.slow
def test_measurements_of_them_are_those_of_files(tmp_path):
    fields = natstats.power_law_fields(12, 16, 16, 2.0, seed=0)
    floats = np.float32(np.repeat(fields[:, None], 3, 1))
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    usual = natstats.measure(model, floats)
    held = TensorDataset(torch.from_numpy(floats), torch.zeros(12))
    for images in (held, DataLoader(held, 5), list(floats)):
        run = natstats.measure(model, images)
        assert run.layers.exponent.tolist() == usual.layers.exponent.tolist()
        assert run.info["images"]["contents"] == usual.info["images"]["contents"]
    photos = [Image.fromarray(one) for one in PIXELS]
    for place, one in enumerate(photos):
        one.save(tmp_path / f"{place}.png")
    one, other = (
        natstats.measure(model, images, size=16, n_groups=4) for images in (photos, tmp_path)
    )
    assert sorted(one.info["images"]) == sorted(other.info["images"])
    assert one.info["images"]["n_images"] == N
    with pytest.raises(natstats.UsageError, match="size: expected only for photographs"):
        natstats.measure(model, held, size=16)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("items", [PIXELS, FLOATS, Items(PIXELS), Items(FLOATS)])
def test_a_measurement_of_them_goes_on_where_it_was_cut(items, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    settings = {"batch_size": 2, "n_groups": 4, "save_every": 0}
    if items is PIXELS or getattr(items, "items", None) is PIXELS:
        settings["size"] = 16
    whole = natstats.measure(model, items, out=tmp_path / "whole", **settings)
    seen = []

    def cut(done, total):
        seen.append(done)
        if done >= 4:
            raise KeyError

    with pytest.raises(KeyError):
        natstats.measure(model, items, out=tmp_path / "run", progress=cut, **settings)
    again = natstats.measure(
        model, items, out=tmp_path / "run", progress=lambda done, total: seen.append(done),
        **settings,
    )  # fmt: skip
    assert seen == [2, 4, 6, 8, 9]
    assert again.layers.exponent.tolist() == whole.layers.exponent.tolist()
    assert again.info["images"]["contents"] == whole.info["images"]["contents"]
