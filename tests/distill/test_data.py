"""Labelled data: what is train and what is evaluation, and hostile folders."""

from __future__ import annotations

import gzip
import hashlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natstats.distill.training.data import open_labelled
from natstats.distill.training.loading import TrainBatches, eval_batches
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.splits import held_out, limited
from natstats.errors import NatstatsError, UsageError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def picture(path, seed, size=(12, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def folders(root, train=None, val=None, evaluation="val"):
    """Folders of classes with as many images as said."""
    seed = 0
    for split, classes in (("train", train), (evaluation, val)):
        for name, n in (classes or {}).items():
            (root / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(n):
                seed += 1
                picture(root / split / name / f"{number:03d}.png", seed)
    return f"imagefolder:{root}"


@pytest.fixture
def source(tmp_path):
    train = {"wolf": 20, "ant": 10, "cow": 30}
    return folders(tmp_path / "animals", train, {"ant": 2, "cow": 3, "wolf": 1})


def test_labels_are_by_sorted_names_of_the_training_classes(source):
    data = open_labelled(source)
    assert data.classes == ("ant", "cow", "wolf")
    assert data.train.labels.tolist() == [0] * 10 + [1] * 30 + [2] * 20
    assert data.evaluation.labels.tolist() == [0, 0, 1, 1, 1, 2]
    for part in (data.train, data.evaluation):
        of_names = [name.split("/")[1] for name in part.names]
        assert of_names == [data.classes[label] for label in part.labels]
    assert data.evaluation.names[0] == "val/ant/000.png"


def test_pixels_belong_to_their_names(source):
    data = open_labelled(source)
    root = Path(source.removeprefix("imagefolder:"))
    for place in (0, 25, 59):
        with Image.open(root / data.train.names[place]) as image:
            expected = np.asarray(image)
        np.testing.assert_array_equal(data.train.held[place].permute(1, 2, 0), expected)


def test_facts_are_what_a_run_says_of_its_data(source):
    data = open_labelled(source)
    assert data.facts() == {
        "name": "animals",
        "source": source,
        "digest": data.digest,
        "listing": data.listing,
        "contents": data.contents,
        "classes": ["ant", "cow", "wolf"],
        "n_train": 60,
        "n_eval": 6,
        "split": "test",
        "holdout": 0.0,
        "seed": 0,
        "size": 12,
        "n_unreadable": 0,
        "unreadable": [],
    }
    assert data.notes == ()


@pytest.mark.slow
def test_the_digest_knows_names_labels_size_and_split(source, tmp_path):
    data = open_labelled(source)
    assert open_labelled(source).digest == data.digest
    root = tmp_path / "animals"
    root.rename(tmp_path / "moved")
    assert open_labelled(f"imagefolder:{tmp_path / 'moved'}").digest == data.digest
    (tmp_path / "moved").rename(root)
    others = [open_labelled(source, size=8), open_labelled(source, holdout=0.1)]
    assert len({data.digest, *(other.digest for other in others)}) == 3
    assert others[0].contents == data.contents
    path = root / "train" / "ant" / "000.png"
    path.rename(path.with_name("renamed.png"))
    assert open_labelled(source).digest != data.digest


def test_contents_are_known_where_all_is_read(source, tmp_path):
    before = open_labelled(source)
    assert open_labelled(source, memory_limit=0).contents is None
    picture(tmp_path / "animals" / "train" / "ant" / "000.png", seed=999)
    assert open_labelled(source).contents != before.contents


def test_test_goes_before_val_and_hidden_names_are_passed_over(source, tmp_path):
    root = tmp_path / "animals"
    folders(root, val={"ant": 1, "cow": 1, "wolf": 1}, evaluation="test")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "list.txt").write_text("x")
    (root / "train" / "ant" / "notes.md").write_text("x")
    data = open_labelled(source)
    assert data.evaluation.names == ["test/ant/000.png", "test/cow/000.png", "test/wolf/000.png"]
    assert len(data.train) == 60
    assert len(open_labelled(source.replace("imagefolder", "imagenet")).evaluation) == 6


@pytest.mark.slow
def test_what_is_held_out_is_stratified_disjoint_and_stable(source):
    data = open_labelled(source, holdout=0.2, seed=3)
    whole = open_labelled(source)
    assert data.split == "held-out"
    assert data.evaluation.labels.bincount().tolist() == [2, 6, 4]
    assert data.train.labels.bincount().tolist() == [8, 24, 16]
    assert sorted(data.train.names + data.evaluation.names) == sorted(whole.train.names)
    assert open_labelled(source, holdout=0.2, seed=3).evaluation.names == data.evaluation.names
    assert open_labelled(source, holdout=0.2, seed=4).evaluation.names != data.evaluation.names


def test_test_images_are_not_sought_where_a_share_is_held_out(tmp_path):
    source = folders(tmp_path, {"a": 4, "b": 4})
    assert len(open_labelled(source, holdout=0.25).evaluation) == 2
    with pytest.raises(UsageError, match=r"data: expected .*test or .*val with the folders"):
        open_labelled(source)


def test_a_class_keeps_at_least_one_image_on_either_side():
    labels = np.repeat([0, 1, 2], [2, 5, 100])
    for share in (0.001, 0.5, 0.999):
        out = held_out(labels, share, 0)
        n = np.bincount(labels[out], minlength=3)
        assert (n >= 1).all()
        assert (n < [2, 5, 100]).all()
    with pytest.raises(UsageError, match="two training images of every class; 'lone' has one"):
        held_out(np.array([0, 0, 1]), 0.5, 0, ("many", "lone"))


def test_another_class_changes_nothing_for_those_before_it():
    labels = np.repeat([0, 1], 50)
    more = np.repeat([0, 1, 2], 50)
    np.testing.assert_array_equal(held_out(labels, 0.3, 1), held_out(more, 0.3, 1)[:100])


@pytest.mark.parametrize("limit", [3, 4, 10, 59])
def test_a_limit_keeps_the_shares_of_the_classes(limit):
    labels = np.repeat([0, 1, 2], [10, 30, 20])
    places = limited(labels, limit, 0)
    assert len(set(places.tolist())) == limit
    n = np.bincount(labels[places], minlength=3)
    assert (n >= 1).all()
    np.testing.assert_allclose(n, np.array([10, 30, 20]) * limit / 60, atol=1.5)
    assert set(places.tolist()) != set(limited(labels, limit, 1).tolist())


def test_a_limit_leaves_the_evaluation_as_it_is(source):
    data, full = open_labelled(source, holdout=0.2, limit=9), open_labelled(source, holdout=0.2)
    assert len(data.train) == 9
    assert data.evaluation.names == full.evaluation.names
    assert set(data.train.names) < set(full.train.names)
    assert len(open_labelled(source, limit=1000).train) == 60
    with pytest.raises(UsageError, match="^limit: expected at least the 3 classes; got 2"):
        open_labelled(source, limit=2)


def test_size_is_that_of_the_smallest_image_unless_it_is_given(tmp_path):
    source = folders(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1})
    for part in ("train", "val"):
        picture(tmp_path / part / "a" / "000.png", 1, size=(60, 40))
        picture(tmp_path / part / "a" / "001.png", 2, size=(36, 50))
        for path in (tmp_path / part / "b").iterdir():
            picture(path, 3, size=(64, 64))
    data = open_labelled(source)
    assert data.size == 36
    assert data.train.held.shape == (4, 3, 36, 36)
    assert open_labelled(source, size=20).train.held.shape == (4, 3, 20, 20)
    assert open_labelled(source, Recipe(size=20)).evaluation.size == 20


def test_evaluation_is_scaled_and_cut_as_the_recipe_says(tmp_path):
    from torchvision.transforms import v2

    source = folders(tmp_path, {"a": 1, "b": 1}, {"a": 1, "b": 1})
    picture(tmp_path / "val" / "a" / "000.png", 5, size=(90, 70))
    data = open_labelled(source, Recipe(augmentation="resized-crop", size=28, resize=32))
    with Image.open(tmp_path / "val" / "a" / "000.png") as image:
        framed = v2.Compose([v2.Resize(32), v2.CenterCrop(28)])(image)
        np.testing.assert_array_equal(data.evaluation.held[0].permute(1, 2, 0), np.asarray(framed))
    assert data.train.is_whole
    assert data.train.held[0].shape == (3, 12, 12)


def test_enlarged_and_shared_images_are_noted(source, tmp_path):
    root = tmp_path / "animals"
    (root / "val" / "ant" / "again.png").write_bytes(
        (root / "train" / "cow" / "003.png").read_bytes()
    )
    assert open_labelled(source, size=16).notes == (
        "60 of 60 training images were smaller than what they were scaled to",
        "7 of 7 evaluation images were smaller than what they were scaled to",
        "1 of 7 evaluation images are training images, too",
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "data: expected NAME:FOLDER"),
        ("nothing", "data: expected NAME:FOLDER with one of imagefolder, imagenet, cifar10"),
        ("imagefolder:", "data: expected NAME:FOLDER"),
        ("cifar11:somewhere", "data: expected NAME:FOLDER"),
        ("eurosat:somewhere", "data: expected NAME:FOLDER"),
        ("imagefolder:/no/such", "data: expected /no/such/train with a folder of images"),
        ("cifar100:/no/such", "expected cifar-100-python below /no/such"),
    ],
)
def test_a_source_that_is_not_there(source, words):
    with pytest.raises(UsageError, match=words):
        open_labelled(source)


def test_a_folder_alone_is_told_how_to_be_named(tmp_path):
    with pytest.raises(UsageError, match=f"\\(imagefolder:{tmp_path}\\?\\)"):
        open_labelled(str(tmp_path))


def test_one_class_is_none(tmp_path):
    source = folders(tmp_path, {"only": 3}, {"only": 3})
    with pytest.raises(UsageError, match="at least two classes in .*; got only$"):
        open_labelled(source)
    with pytest.raises(UsageError, match="at least two classes in .*; got none$"):
        (tmp_path / "x" / "train").mkdir(parents=True)
        open_labelled(f"imagefolder:{tmp_path / 'x'}")


def test_classes_that_differ_are_named(tmp_path):
    source = folders(tmp_path, {"a": 1, "b": 1, "c": 1}, {"a": 1, "x": 1})
    with pytest.raises(UsageError, match=r"got no b, c and x, which training has not$"):
        open_labelled(source)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_is_named(tmp_path, split):
    numbers = {"a": 2, "b": 2}
    source = folders(tmp_path, numbers, numbers)
    for path in (tmp_path / split / "b").iterdir():
        path.unlink()
    with pytest.raises(UsageError, match=rf"expected images in .*{split} of every class; .* of b$"):
        open_labelled(source)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_stops_at_once_and_is_named(source, tmp_path, workers):
    path = tmp_path / "animals" / "train" / "cow" / "005.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(NatstatsError, match=r"^data: .* cannot read train/cow/005.png: \w"):
        open_labelled(source, workers=workers)
    (tmp_path / "animals" / "val" / "ant" / "000.png").write_bytes(b"")
    with pytest.raises(NatstatsError, match=r"train/cow/005.png: \w"):
        open_labelled(source, Recipe(augmentation="resized-crop", size=8))


@pytest.mark.parametrize("memory_limit", [0, 1 << 30])
@pytest.mark.parametrize("augmentation", ["crop-flip", "resized-crop"])
def test_unreadable_images_are_left_out_and_counted_where_asked(
    source, tmp_path, memory_limit, augmentation
):
    (tmp_path / "animals" / "train" / "cow" / "005.png").write_bytes(b"no image")
    (tmp_path / "animals" / "val" / "ant" / "000.png").write_bytes(b"")
    recipe = Recipe(augmentation=augmentation, size=12)
    data = open_labelled(source, recipe, strict=False, memory_limit=memory_limit)
    assert (len(data.train), len(data.evaluation)) == (59, 5)
    assert "train/cow/005.png" not in data.train.names
    assert data.train.labels.bincount().tolist() == [10, 29, 20]
    assert [line.split(":")[0] for line in data.unreadable] == [
        "train/cow/005.png",
        "val/ant/000.png",
    ]
    assert data.facts()["n_unreadable"] == 2
    assert data.notes[0] == "2 of the images could not be read and were left out"


def test_a_class_of_which_nothing_can_be_read_is_named(source, tmp_path):
    for path in (tmp_path / "animals" / "val" / "ant").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UsageError, match="readable evaluation images of every class; .* of ant$"):
        open_labelled(source, strict=False)


def test_what_is_held_out_does_not_hang_on_what_can_be_read(source, tmp_path):
    before = open_labelled(source, holdout=0.3)
    name = before.evaluation.names[4]
    (tmp_path / "animals" / name).write_bytes(b"")
    after = open_labelled(source, holdout=0.3, strict=False)
    assert after.train.names == before.train.names
    assert set(before.evaluation.names) - set(after.evaluation.names) == {name}


def test_names_of_any_script(tmp_path):
    source = folders(tmp_path / "ü 日本", {"żaba": 2, "狼": 2}, {"żaba": 1, "狼": 1})
    picture(tmp_path / "ü 日本" / "train" / "狼" / "été 🐺.png", 7)
    data = open_labelled(source)
    assert data.classes == ("żaba", "狼")
    assert data.name == "ü 日本"
    assert "train/狼/été 🐺.png" in data.train.names
    (batch,) = TrainBatches(data.train, Recipe(batch_size=5), 0).epoch("main", 1)
    assert len(batch.images) == 5


@pytest.mark.skipif(os.name != "posix", reason="names of any bytes are of POSIX")
def test_names_that_are_no_text_can_be_written_down(tmp_path):
    source = folders(tmp_path, {"a": 2, "b": 2}, {"a": 1, "b": 1})
    odd = os.fsencode(tmp_path / "train" / "a") + b"/caf\xe9.png"
    try:
        os.rename(tmp_path / "train" / "a" / "000.png", odd)
    except OSError:
        pytest.skip("the file system takes text only")
    data = open_labelled(source)
    assert "train/a/caf\\xe9.png" in data.train.names
    "\n".join(data.train.names).encode()


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("holdout", 1.0),
        ("holdout", -0.1),
        ("holdout", "half"),
        ("seed", -1),
        ("limit", 0),
        ("size", 4),
        ("workers", -1),
        ("memory_limit", -1),
    ],
)
def test_arguments_that_cannot_be(source, argument, value):
    with pytest.raises(UsageError, match=f"^{argument}: expected .* got "):
        open_labelled(source, **{argument: value})


def idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(head + array.tobytes()))
    path.with_suffix("").write_bytes(head + array.tobytes())


def test_data_sets_of_torchvision_have_labels_too(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    chance = np.random.default_rng(0)
    images = {}
    labels = {"train": np.arange(40) % 10, "t10k": np.arange(20)[::-1] % 10}
    for part, of_part in labels.items():
        n = len(of_part)
        images[part] = chance.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        idx(raw / f"{part}-images-idx3-ubyte.gz", images[part])
        idx(raw / f"{part}-labels-idx1-ubyte.gz", of_part.astype(np.uint8))
    data = open_labelled(f"mnist:{tmp_path}")
    assert (data.size, data.name, data.split) == (28, "mnist", "test")
    assert data.classes[3] == "3 - three"
    assert data.train.labels.tolist() == labels["train"].tolist()
    assert data.evaluation.labels.tolist() == labels["t10k"].tolist()
    for channel in range(3):
        np.testing.assert_array_equal(data.evaluation.held[:, channel], images["t10k"])
    kept = open_labelled(f"mnist:{tmp_path}", holdout=0.25)
    assert (kept.split, len(kept.evaluation), len(kept.train)) == ("held-out", 10, 30)
    places = [int(name.strip("[]")) for name in kept.evaluation.names]
    np.testing.assert_array_equal(kept.evaluation.held[:, 0], images["train"][places])
    # Without files to name, what is in the images tells these sets apart.
    assert data.contents not in (None, kept.contents)


def test_cifar_100_has_its_fine_labels(tmp_path, monkeypatch):
    import torchvision.datasets

    class Small(torchvision.datasets.CIFAR100):
        pass

    folder = tmp_path / Small.base_folder
    folder.mkdir()
    chance = np.random.default_rng(0)
    pixels = {}

    def written(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def part(name, n):
        pixels[name] = chance.integers(0, 256, (n, 3072), dtype=np.uint8)
        fine = [number % 3 for number in range(n)]
        return written(name, {"data": pixels[name], "fine_labels": fine, "coarse_labels": [0] * n})

    Small.train_list, Small.test_list = [part("train", 12)], [part("test", 6)]
    names = ["apple", "aquarium_fish", "baby"]
    _, md5 = written("meta", {"fine_label_names": names, "coarse_label_names": ["fish"]})
    Small.meta = {"filename": "meta", "key": "fine_label_names", "md5": md5}
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", Small)
    data = open_labelled(f"cifar100:{tmp_path}", Recipe.from_preset("cifar100"))
    assert data.classes == tuple(names)
    assert data.evaluation.labels.tolist() == [0, 1, 2, 0, 1, 2]
    np.testing.assert_array_equal(data.train.held, pixels["train"].reshape(12, 3, 32, 32))
    (folder / "train").write_bytes(b"a pickle of somebody else")
    with pytest.raises(UsageError, match="^images: expected cifar100 whole"):
        open_labelled(f"cifar100:{tmp_path}")


@pytest.mark.parametrize("name", ["emoji", "textures"])
def test_the_sets_at_hand(name):
    if not (SHARED / name).is_dir():
        pytest.skip("data for development are not here")
    source = f"imagefolder:{SHARED / name}"
    data = open_labelled(source, size=16, holdout=0.1, limit=200)
    n_classes = len(data.classes)
    assert n_classes == {"emoji": 9, "textures": 24}[name]
    assert data.evaluation.labels.unique().tolist() == list(range(n_classes))
    first = next(TrainBatches(data.train, Recipe(batch_size=32), 0).epoch("main", 1))
    assert first.images.shape == (32, 3, 16, 16)
    assert first.images.dtype == torch.uint8
    n = sum(len(batch.labels) for batch in eval_batches(data.evaluation, Recipe(batch_size=50)))
    assert n == len(data.evaluation)
