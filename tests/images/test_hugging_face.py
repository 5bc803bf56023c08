"""Data sets of Hugging Face: saved to disk, or streamed; only bytes are taken from them."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import natstats
from natstats.errors import NatstatsError, UsageError
from natstats.images import hugging_face
from natstats.images.parquet import parquet_files
from natstats.images.sources import Framing, batches, open_images

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

N_IMAGES = 9


def png(seed: int, side: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def rows(*columns: str, images=None):
    """A data set with images in these columns, and labels."""
    images = [png(i) for i in range(N_IMAGES)] if images is None else images
    values = {name: [{"bytes": one, "path": None} for one in images] for name in columns}
    kinds = {name: datasets.Image() for name in columns}
    return datasets.Dataset.from_dict(
        {**values, "label": list(range(len(images)))},
        features=datasets.Features({**kinds, "label": datasets.Value("int64")}),
    )


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()


def found(images) -> dict[bytes, torch.Tensor]:
    by_content = {}
    for batch in batches(images, 4):
        for row, place in enumerate(batch.index.argsort().tolist()):
            by_content[batch.contents[32 * row : 32 * row + 32]] = batch.images[place]
    return by_content


@pytest.fixture
def files(tmp_path):
    """The same images as files."""
    place = tmp_path / "files"
    place.mkdir()
    for i in range(N_IMAGES):
        (place / f"{i}.png").write_bytes(png(i))
    return found(open_images(place, Framing(20)))


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[one], theirs[one]) for one in ours)


def test_a_saved_data_set_is_numbered_and_sampled_at_random(tmp_path, files):
    rows("photo").save_to_disk(tmp_path / "saved")
    images = open_images(f"hf:{tmp_path}/saved", Framing(20))
    assert len(images) == N_IMAGES
    assert_same(found(images), files)
    few = open_images(f"hf:{tmp_path}/saved", Framing(20), limit=4, seed=1)
    assert few.places == open_images(f"hf:{tmp_path}/saved", Framing(20), seed=1).places[:4]
    assert open_images(f"hf:{tmp_path}/saved").framing == Framing(24)


def test_a_data_set_of_python_is_one_too(files):
    assert_same(found(open_images(rows("photo"), Framing(20))), files)
    streamed = rows("photo").to_iterable_dataset(num_shards=3)
    images = open_images(streamed, Framing(20))
    assert len(images.shards) == 3
    assert_same(found(images), files)


def test_splits_are_named(tmp_path):
    both = datasets.DatasetDict(train=rows("photo"), test=rows("photo", images=[png(50)]))
    both.save_to_disk(tmp_path / "both")
    assert len(open_images(f"hf:{tmp_path}/both:test", Framing(20))) == 1
    with pytest.raises(UsageError, match="expected a split behind .*: one of train, test"):
        open_images(f"hf:{tmp_path}/both", Framing(20))
    with pytest.raises(UsageError, match="expected one of train, test; got 'val'"):
        open_images(f"hf:{tmp_path}/both:val", Framing(20))


@pytest.mark.slow
def test_streams_of_parquet_files_and_of_saved_sets(tmp_path, files, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    one = rows("photo")
    (tmp_path / "parquet").mkdir()
    for part in range(3):
        chosen = range(3 * part, 3 * part + 3)
        one.select(chosen).to_parquet(tmp_path / "parquet" / f"{part}.parquet")
    images = open_images(f"hf-stream:{tmp_path}/parquet:train", Framing(20))
    assert len(images.shards) == 3
    assert_same(found(images), files)
    one.save_to_disk(tmp_path / "saved")
    assert_same(found(open_images(f"hf-stream:{tmp_path}/saved", Framing(20))), files)


def parquet(tmp_path):
    """The images in three files of three, below a folder."""
    place = tmp_path / "parquet"
    place.mkdir()
    for part in range(3):
        rows("photo").select(range(3 * part, 3 * part + 3)).to_parquet(place / f"{part}.parquet")
    return place


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hf", "hf-stream"])
def test_parquet_files_are_read_by_folder_file_and_pattern(tmp_path, files, monkeypatch, kind):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = parquet(tmp_path)
    for source in (f"{place}", f"{place}:train", f"{place}/*.parquet"):
        images = open_images(f"{kind}:{source}", Framing(20))
        assert len(images.shards) == 3
        assert_same(found(images), files)
    one = found(open_images(f"{kind}:{place}/1.parquet", Framing(20)))
    assert len(one) == 3
    assert one.keys() < files.keys()
    # Nothing was copied beside the files.
    assert sorted(path.name for path in place.iterdir()) == [f"{n}.parquet" for n in range(3)]


def test_folders_that_are_called_like_a_file_and_links_that_go_round(tmp_path):
    place = tmp_path / "train.parquet"
    place.mkdir()
    (place / "part-0.parquet").touch()
    for name in ("up", "again"):
        (place / name).symlink_to("..", target_is_directory=True)
    file = [place / "part-0.parquet"]
    for source in (tmp_path, place, *file, f"{tmp_path}/**/*.parquet", f"{tmp_path}/*/*.parquet"):
        assert parquet_files(str(source)) == file
    for source in (tmp_path / "none", tmp_path / "none.parquet", f"{tmp_path}/*.parquet"):
        assert parquet_files(str(source)) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hf", "hf-stream"])
@pytest.mark.parametrize("is_file", [False, True])
def test_parquet_files_that_are_cut_or_broken_are_named_at_once(
    tmp_path, monkeypatch, kind, is_file
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = parquet(tmp_path)
    path = place / "1.parquet"
    whole = path.read_bytes()
    source = path if is_file else place
    for damaged in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-1], whole[:-8] + b"\xff" * 8,
                    b"no parquet file at all", b"x" * len(whole)):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"expected whole parquet files in .*1\.parquet: "):
            open_images(f"{kind}:{source}", Framing(20))
    path.unlink()
    with pytest.raises(UsageError, match="images: expected"):
        open_images(f"{kind}:{path}", Framing(20))


@pytest.mark.slow
def test_a_parquet_file_that_is_broken_inside_ends_with_its_name(tmp_path, monkeypatch):
    """Its table is whole; what it points at is not."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = parquet(tmp_path) / "1.parquet"
    content = bytearray(path.read_bytes())
    content[4:60] = bytes(range(200, 256))
    path.write_bytes(bytes(content))
    with pytest.raises(NatstatsError, match=r"images: expected all rows of .*parquet.*; 0 came"):
        found(open_images(f"hf:{path}", Framing(20)))


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["hf", "hf-stream"])
def test_a_run_is_that_of_the_files_and_goes_on(tmp_path, files, kind):
    rows("photo").save_to_disk(tmp_path / "saved")
    settings = {"crop": 20, "batch_size": 2, "n_groups": 8}
    whole = natstats.measure_images(tmp_path / "files", **settings)

    class CutError(Exception):
        pass

    def cut(done, total):
        if done >= 4:
            raise CutError

    settings |= {"out": tmp_path / "run", "save_every": 0.0}
    with pytest.raises(CutError):
        natstats.measure_images(f"{kind}:{tmp_path}/saved", progress=cut, **settings)
    run = natstats.measure_images(f"{kind}:{tmp_path}/saved", **settings)
    np.testing.assert_allclose(run.layers.exponent, whole.layers.exponent, rtol=1e-6)
    assert run.info["images"]["n_in_set"] == N_IMAGES


@pytest.mark.parametrize(
    ("columns", "words"),
    [((), "got 0 among label"), (("left", "right"), r"got 2 \(left, right\)")],
)
def test_the_column_of_images_is_the_only_one(tmp_path, columns, words):
    rows(*columns).save_to_disk(tmp_path / "saved")
    with pytest.raises(UsageError, match=f"images: expected one column of images in .*{words}"):
        open_images(f"hf:{tmp_path}/saved", Framing(20))


@pytest.mark.parametrize("kind", ["hf", "hf-stream"])
def test_rows_without_an_image_are_unreadable(tmp_path, kind):
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30 30\n"
    secret = tmp_path / "secret.txt"
    secret.write_text("no image")
    values = [
        {"bytes": png(0), "path": None},
        {"bytes": b"no image", "path": None},
        {"bytes": postscript, "path": None},
        {"bytes": None, "path": str(secret)},
        None,
    ]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": values}, features).save_to_disk(tmp_path / "saved")
    (batch,) = batches(open_images(f"{kind}:{tmp_path}/saved", Framing(20)), 16)
    assert len(batch.index) == 1
    assert len(batch.unreadable) == 4


@pytest.mark.parametrize(
    "value", [None, {}, {"bytes": None, "path": None}, {"path": "https://host/a.png"}, "text", 3]
)
def test_nothing_is_fetched_for_a_row(value):
    with pytest.raises(NatstatsError, match="there is no image in this row"):
        hugging_face._bytes_of(value)


def test_what_is_none_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        UsageError, match="that datasets has saved to disk, or parquet files; .* is none"
    ):
        open_images(f"hf:{tmp_path}", Framing(20))
    with pytest.raises(UsageError, match="datasets says"):
        open_images(f"hf-stream:{tmp_path}", Framing(20))
    with pytest.raises(UsageError, match="expected at least one image"):
        open_images(rows("photo", images=[]), Framing(20))
    rows("photo").save_to_disk(tmp_path / "damaged")
    (tmp_path / "damaged" / "dataset_info.json").write_text("{")
    with pytest.raises(UsageError, match="datasets says"):
        open_images(f"hf:{tmp_path}/damaged", Framing(20))


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    for kind in ("hf", "hf-stream"):
        with pytest.raises(UsageError, match=r"pip install 'natstats\[huggingface\]'"):
            open_images(f"{kind}:{tmp_path}", Framing(20))


def test_rows_that_cease_to_come_are_an_error():
    def generate():
        yield {"image": {"bytes": png(0), "path": None}}
        raise OSError("connection lost")

    features = datasets.Features({"image": datasets.Image()})
    streamed = datasets.IterableDataset.from_generator(generate, features=features)
    with pytest.raises(NatstatsError, match="expected all rows of .*; 1 came: .*connection lost"):
        found(open_images(streamed, Framing(20)))
