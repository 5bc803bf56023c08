"""Data sets of torchvision on disk, in small copies that are made here; none is downloaded."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle

import numpy as np
import pytest
from PIL import Image

import natstats
from natstats.images import datasets
from natstats.images.sources import Framing, batches, open_images, source_name


def picture(seed, height=40, width=52):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def saved(path, seed, **size):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed, **size).save(path)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10 of 6 images in every batch, with the checksums of these files."""
    import torchvision.datasets

    class Small(torchvision.datasets.CIFAR10):
        pass

    folder = tmp_path / Small.base_folder
    folder.mkdir()

    def written(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return [name, hashlib.md5(data).hexdigest()]

    def batch(seed):
        data = np.random.default_rng(seed).integers(0, 256, (6, 3072), dtype=np.uint8)
        return {"data": data, "labels": [0] * 6}

    Small.train_list = [written(f"data_batch_{i}", batch(i)) for i in range(1, 6)]
    Small.test_list = [written("test_batch", batch(0))]
    _, md5 = written("batches.meta", {"label_names": ["a"]})
    Small.meta = {"filename": "batches.meta", "key": "label_names", "md5": md5}
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Small)
    return tmp_path


def test_cifar_enters_at_its_own_size_from_the_test_set(cifar):
    images = open_images(f"cifar10:{cifar}")
    assert len(images) == 6
    assert images.framing == Framing(32)
    (batch,) = batches(images, 6)
    raw = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    expected = raw.reshape(6, 3, 32, 32)[images.places] / 255
    np.testing.assert_allclose(batch.images, expected, rtol=1e-6)
    assert images.label(2) == f"[{images.places[2]}]"


def test_a_split_is_named_behind_the_root(cifar):
    train = open_images(f"cifar10:{cifar}:train")
    assert len(train) == 30
    assert train.description == f"cifar10:{cifar}:train"
    assert train.digest() != open_images(f"cifar10:{cifar}").digest()


@pytest.mark.slow
def test_a_run_over_a_data_set_says_so(cifar):
    run = natstats.measure_images(f"cifar10:{cifar}")
    assert run.info["images"]["source"] == f"cifar10:{cifar}:test"
    assert run.name == "cifar10-test"
    assert run.layers.height.tolist() == [32, 32]
    network = natstats.load_network("cifar_resnet20", weights="none")
    images = natstats.measure(network, f"cifar10:{cifar}", size=48).info["images"]
    assert (images["size"], images["n_enlarged"]) == (48, 6)


def test_a_pickle_that_is_not_the_published_one_is_not_read(cifar):
    """torchvision compares checksums before it unpickles, also without downloading."""

    class Hostile:
        def __reduce__(self):
            return pytest.fail, ("the pickle was read",)

    for name in ("test_batch", "batches.meta"):
        path = cifar / "cifar-10-batches-py" / name
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(Hostile()))
        with pytest.raises(natstats.UsageError, match="torchvision says: .*corrupted"):
            open_images(f"cifar10:{cifar}")
        path.write_bytes(whole)
    assert len(open_images(f"cifar10:{cifar}")) == 6


def test_mnist_is_grey_in_three_channels(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    digits = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for part in ("train", "t10k"):
        head = b"\0\0\x08\x03" + np.array([5, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + digits.tobytes())
        labels = b"\0\0\x08\x01" + np.array([5], ">i4").tobytes() + bytes(5)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    images = open_images(f"mnist:{tmp_path}")
    (batch,) = batches(images, 5)
    assert batch.images.shape == (5, 3, 28, 28)
    np.testing.assert_allclose(batch.images[:, 1] * 255, digits[images.places], rtol=1e-5)


def make_dtd(root):
    for i in range(4):
        saved(root / "dtd/dtd/images/dotted" / f"dotted_{i}.jpg", i)
    labels = root / "dtd/dtd/labels"
    labels.mkdir()
    (labels / "test1.txt").write_text("dotted/dotted_0.jpg\ndotted/dotted_2.jpg\n")


def make_food101(root):
    for i in range(3):
        saved(root / "food-101/images/pie" / f"{i}.jpg", i)
    meta = root / "food-101/meta"
    meta.mkdir()
    (meta / "test.json").write_text(json.dumps({"pie": ["pie/0", "pie/1"]}))


def make_eurosat(root):
    saved(root / "eurosat/2750/Forest/Forest_1.jpg", 1)
    saved(root / "eurosat/2750/River/River_1.jpg", 2)


def make_oxfordpets(root):
    for i in range(3):
        saved(root / "oxford-iiit-pet/images" / f"pug_{i}.jpg", i)
    notes = root / "oxford-iiit-pet/annotations"
    notes.mkdir()
    (notes / "test.txt").write_text("pug_1 1 2 1\npug_2 1 2 1\n")


def make_caltech101(root):
    (root / "caltech101/101_ObjectCategories/BACKGROUND_Google").mkdir(parents=True)
    for i in (1, 2):
        saved(root / "caltech101/101_ObjectCategories/ant" / f"image_{i:04d}.jpg", i)


def make_imagenette(root):
    saved(root / "imagenette2/val/n01440764/a.JPEG", 1)
    saved(root / "imagenette2/val/n02102040/b.JPEG", 2)


def make_imagenet(root):
    for i in (1, 2):
        saved(root / "val" / f"n0144076{i}" / "a.JPEG", i)


def make_imagefolder(root):
    for i in (1, 2):
        saved(root / f"class{i}" / "a.png", i)


@pytest.mark.parametrize(
    "name",
    ["dtd", "food101", "eurosat", "oxfordpets", "caltech101", "imagenette", "imagenet",
     "imagefolder"],
)  # fmt: skip
def test_data_sets_of_files_are_found_and_nothing_is_written(tmp_path, name):
    globals()[f"make_{name}"](tmp_path)
    before = sorted(tmp_path.rglob("*"))
    images = open_images(f"{name}:{tmp_path}")
    assert len(images) == 2
    assert images.framing == Framing(40)
    (batch,) = batches(images, 2)
    assert batch.images.shape == (2, 3, 40, 40)
    assert batch.unreadable == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_listed_file_that_is_not_there_is_counted(tmp_path):
    make_food101(tmp_path)
    (tmp_path / "food-101/images/pie/1.jpg").unlink()
    run = natstats.measure_images(f"food101:{tmp_path}", crop=16)
    assert run.info["images"]["unreadable"] == [
        "food-101/images/pie/1.jpg: No such file or directory"
    ]


def test_every_entry_of_the_table_fits_torchvision():
    """Class, arguments and the attribute that lists files; the class is not called."""
    import inspect

    import torchvision.datasets

    for name, entry in datasets.DATASETS.items():
        loader = getattr(torchvision.datasets, entry.loader)
        known = inspect.signature(loader).parameters
        assert "download" in known, name
        for arguments in entry.splits.values():
            assert set(arguments) <= set(known), name
        if entry.files.startswith("_") or entry.files == "imgs":
            assert f"self.{entry.files}" in inspect.getsource(loader), name
        elif entry.files:
            assert issubclass(loader, torchvision.datasets.ImageFolder), name


@pytest.mark.parametrize("name", sorted(datasets.DATASETS))
@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_missing_is_one_sentence(tmp_path, name, is_there):
    root = tmp_path if is_there else tmp_path / "nowhere"
    with pytest.raises(natstats.UsageError) as raised:
        open_images(f"{name}:{root}")
    text = str(raised.value)
    below = datasets.DATASETS[name].below.format(split="test")
    assert text == f"images: expected {below} below {root} for {name}; there is none"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(datasets.DATASETS))
def test_what_torchvision_finds_wrong_is_one_sentence(tmp_path, name):
    (tmp_path / datasets.DATASETS[name].below.format(split="test")).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(natstats.UsageError) as raised:
        open_images(f"{name}:{tmp_path}")
    text = str(raised.value)
    assert text.startswith("images: expected ")
    assert "download" not in text
    assert "\n" not in text
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("imagnet:{root}", "expected a path or one of caltech101, cifar10, .* or clips .*imagnet"),
        ("cifar10:{root}:vaal", "split: expected one of test, train; got 'vaal'"),
        ("imagenet:{root}", "images: expected a folder .*val for imagenet"),
        ("imagenet:{root}:test", "split: expected one of val, train; got 'test'"),
        ("imagefolder:{root}:val", "expected no split of imagefolder; got 'val'"),
        ("imagefolder:{root}", "expected at least one image; got none below"),
        ("clips:{root}:val", "expected no split of clips; got 'val'"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path, source, words):
    with pytest.raises(natstats.UsageError, match=words):
        open_images(source.format(root=tmp_path))


def test_a_path_with_a_colon_that_is_there_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "cifar10:photos" / "a.png", 0)
    assert len(open_images("cifar10:photos")) == 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("photos", "photos"), ("photos/", "photos"), ("a/photos.v2", "photos.v2"),
        ("f.npy", "f"), ("a/f.pth", "f"), ("list.txt", "list"), ("a/s.tar", "s"),
        ("a/s-{00..12}.tar", "a"), ("photos/*.jpg", "photos"), ("photos/**/x*.jpg", "photos"),
        ("cifar10:/data", "cifar10"), ("cifar10:/data:train", "cifar10-train"),
        ("clips:/data/ucf", "ucf"), ("imagefolder:/data/mine", "mine"), ("array", "array"),
    ],
)  # fmt: skip
def test_a_run_is_named_after_its_source(source, name):
    assert source_name(source) == name


def test_gz_files_alone_do_not_make_a_data_set(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(natstats.UsageError, match="torchvision says: Dataset not found"):
        open_images(f"mnist:{tmp_path}")
