"""Digests that cover contents, and the cache that lets a file be read for them once."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import natstats
from natstats.distill.training.data import open_labelled
from natstats.distill.training.state import refuse_other_settings
from natstats.images import contents, files, shards
from natstats.images.sources import Framing, batches, open_images

OLD = 10**9  # seconds since the epoch


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    monkeypatch.setattr(contents, "_memory", {})
    return place / "natstats" / "contents.sqlite"


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    (place / "one").mkdir(parents=True)
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / "one" / f"{i}.bmp")
        os.utime(place / "one" / f"{i}.bmp", (OLD + i, OLD + i))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(place, "p")
    os.utime(tmp_path / "s.tar", (OLD, OLD))
    (tmp_path / "list.txt").write_text("\n".join(f"photos/one/{i}.bmp" for i in range(4)))
    return place


def change(path, place=-40, keep_time=False):
    """Change one byte, and neither the size nor, where asked, the time of the contents."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[place] ^= 0x55
    path.write_bytes(content)
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def n_opened(monkeypatch):
    """How many files were opened for their contents."""
    count = []

    def counted(own):
        def open_(path):
            count.append(path)
            return own(path)

        return open_

    for module in (files, shards):
        monkeypatch.setattr(module, "open_regular", counted(module.open_regular))
    return count


SOURCES = ("photos", "photos/*/*.bmp", "list.txt", "s.tar", "clips:photos")


def opened(tmp_path, source):
    options = {"frames": 4} if source.startswith("clips:") else {}
    head, colon, tail = source.rpartition(":")
    return open_images(f"{head}{colon}{tmp_path / tail}", Framing(16), **options)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("keep_time", [False, True])
def test_a_digest_follows_contents_of_equal_size(photos, tmp_path, source, keep_time):
    images = opened(tmp_path, source)
    before = images.digest(), images.listing()
    assert opened(tmp_path, source).digest() == before[0]
    if source == "s.tar":
        with tarfile.open(tmp_path / "s.tar") as tar:
            pixel = tar.getmember("p/one/2.bmp").offset_data + 500
        change(tmp_path / "s.tar", pixel, keep_time)
    else:
        change(photos / "one" / "2.bmp", -40, keep_time)
    again = opened(tmp_path, source)
    assert again.digest() != before[0]
    assert again.listing() == before[1]


@pytest.mark.parametrize("source", SOURCES)
def test_no_file_is_read_a_second_time(photos, tmp_path, source, n_opened, monkeypatch):
    first = opened(tmp_path, source).digest()
    n = len(n_opened)
    assert n >= 4
    for memory in (contents._memory, {}):  # in this process, and in another
        monkeypatch.setattr(contents, "_memory", memory)
        del n_opened[: n if source == "s.tar" else None]
        before = len(n_opened)
        images = opened(tmp_path, source)
        indexing = len(n_opened) - before  # a tar file is opened for its index
        assert images.digest() == first
        assert len(n_opened) - before == indexing


def test_what_was_measured_is_not_read_again(photos, tmp_path, n_opened, monkeypatch):
    images = opened(tmp_path, "photos")
    list(batches(images, 3, workers=1))
    monkeypatch.setattr(contents, "_memory", {})
    n_opened.clear()
    images.digest()
    assert not n_opened


def test_the_digest_of_contents_is_that_of_what_was_measured(photos, tmp_path):
    """So the cache can be held against what a run read itself."""
    import hashlib

    for source in SOURCES:
        images = opened(tmp_path, source)
        read = b"".join(batch.contents for batch in batches(images, 3))
        assert b"".join(images.contents()) == read
    own = [hashlib.sha256(path.read_bytes()).digest() for path in opened(tmp_path, "photos").paths]
    assert opened(tmp_path, "photos").contents() == own


def test_a_file_that_was_just_written_is_not_believed(photos, tmp_path, n_opened):
    path = photos / "one" / "0.bmp"
    path.write_bytes(path.read_bytes())
    images = opened(tmp_path, "photos")
    images.digest()
    n_opened.clear()
    images.digest()
    assert [p.name for p in n_opened] in ([], ["0.bmp"])  # [] where 0.1 s have gone by
    settled = contents.identify(path)[0]
    assert not settled.is_settled(settled.modified + 5 * 10**7)
    assert settled.is_settled(settled.modified + 3 * 10**9)
    coarse = settled._replace(modified=7 * 10**9)
    assert not coarse.is_settled(8 * 10**9)


@pytest.mark.parametrize("field", ["device", "inode", "size", "modified", "changed", "length"])
def test_a_digest_is_kept_for_exactly_this_file(photos, field, monkeypatch):
    (own,) = contents.identify(photos / "one" / "0.bmp")
    contents.keep({own: bytes(32)}, contents.now())
    monkeypatch.setattr(contents, "_memory", {})
    assert contents.known([own]) == {own: bytes(32)}
    assert contents.known([own._replace(**{field: getattr(own, field) + 1})]) == {}


def broken_file(cache):
    cache.parent.mkdir()
    cache.write_bytes(b"no database at all " * 500)


def another_table(cache):
    cache.parent.mkdir()
    with sqlite3.connect(cache) as connection:
        connection.execute("CREATE TABLE contents (x TEXT)")
    connection.close()


def a_folder(cache):
    cache.mkdir(parents=True)


def a_pipe(cache):
    cache.parent.mkdir()
    os.mkfifo(cache)


def a_file_above(cache):
    cache.parent.write_text("in the way")


def locked(cache):
    cache.parent.mkdir()
    connection = sqlite3.connect(cache, timeout=0)
    connection.execute("BEGIN EXCLUSIVE")
    return connection


@pytest.mark.parametrize(
    "spoil", [broken_file, another_table, a_folder, a_pipe, a_file_above, locked]
)
def test_a_cache_that_cannot_be_used_costs_only_time(photos, tmp_path, cache, spoil, monkeypatch):
    own = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: own(path, timeout=0.01))
    expected = opened(tmp_path, "photos").contents()
    if cache.exists():
        cache.unlink()
        cache.parent.rmdir()
    monkeypatch.setattr(sqlite3, "connect", own)
    kept = spoil(cache)
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout: own(path, timeout=0.01))
    for _ in range(2):
        monkeypatch.setattr(contents, "_memory", {})
        assert opened(tmp_path, "photos").contents() == expected
    if spoil is broken_file:  # made anew
        monkeypatch.setattr(contents, "_memory", {})
        assert len(contents.known(contents.identify(photos / "one" / "1.bmp"))) == 1
    if kept is not None:
        kept.close()


def test_without_a_place_for_a_cache_there_is_none(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/path")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(contents.cache_file()) == "/home/someone/.cache/natstats/contents.sqlite"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert contents.cache_file() is None


def _write(number):
    for k in range(20):
        own = contents.Identity(number, k, 1, OLD * 10**9 + 1, 0)
        contents.keep({own: bytes([number]) * 32}, contents.now())


@pytest.mark.slow
def test_several_writers_lose_nothing(cache, monkeypatch):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        pool.map(_write, range(3))
    monkeypatch.setattr(contents, "_memory", {})
    for number in range(3):
        wanted = [contents.Identity(number, k, 1, OLD * 10**9 + 1, 0) for k in range(20)]
        assert contents.known(wanted) == dict.fromkeys(wanted, bytes([number]) * 32)


def test_the_oldest_digests_go_first(cache, monkeypatch):
    monkeypatch.setattr(contents, "_ROWS", 5)
    for k in range(9):
        contents.keep({contents.Identity(1, k, 1, OLD * 10**9 + 1, 0): bytes(32)}, contents.now())
    with sqlite3.connect(cache) as connection:
        rows = connection.execute("SELECT inode FROM contents ORDER BY inode").fetchall()
    connection.close()
    assert [row[0] for row in rows] == [4, 5, 6, 7, 8]


def test_arrays_and_data_sets_are_told_apart_by_contents(tmp_path):
    array = np.random.default_rng(0).normal(size=(4, 1, 8, 8))
    np.save(tmp_path / "a.npy", array)
    before = open_images(tmp_path / "a.npy").digest()
    array[2, 0, 3, 3] += 1e-9
    np.save(tmp_path / "a.npy", array)
    assert open_images(tmp_path / "a.npy").digest() != before

    class Memory:
        def __init__(self, value):
            self.value = value

        def __len__(self):
            return 3

        def __getitem__(self, place):
            return Image.new("RGB", (32, 32), (self.value, place, 0)), 0

    one, other = (natstats.images.datasets.DataSetImages(Memory(value)) for value in (3, 4))
    assert one.digest() != other.digest()
    assert one.listing() == other.listing()


# What rests on it.


@pytest.fixture
def series(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("natstats.report.pages.run.write_report", lambda *_: None)
    monkeypatch.setattr("natstats.report.pages.series.write_series_report", lambda *_: None)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    for epoch in (1, 2):
        torch.save(model.state_dict(), tmp_path / f"epoch_{epoch}.pth")
    # One member is enough to be asked about.
    return lambda: natstats.measure_series(
        model, f"{tmp_path}/epoch_*.pth", photos, out=tmp_path / "out", crop=16, n_groups=4
    )


@pytest.mark.slow
def test_a_series_does_not_go_on_over_changed_images(series, photos, tmp_path):
    series()
    series()  # as it is
    change(photos / "one" / "3.bmp", keep_time=True)
    with pytest.raises(natstats.UsageError, match="same names and sizes with other contents"):
        series()


@pytest.mark.slow
def test_a_series_of_an_older_kind_says_what_it_does_not_know(series, photos, tmp_path):
    import json

    series()
    record = tmp_path / "out" / "epoch_1" / "run.json"
    run = json.loads(record.read_text())
    run["images"]["digest"] = run["images"].pop("listing")  # as before 0.5.0
    record.write_text(json.dumps(run))
    with pytest.raises(natstats.UsageError, match="did not tell images of equal size apart"):
        series()
    old = natstats.Run.open(tmp_path / "out" / "epoch_1")
    new = natstats.Run.open(tmp_path / "out" / "epoch_2")
    assert natstats.compare(old, new).is_paired
    for run in (old, new):  # as before 0.3.0, when no run knew contents
        del run.info["images"]["contents"]
    assert old.info["images"]["digest"] == new.info["images"]["listing"]
    assert natstats.compare(old, new).is_paired


def test_labelled_data_follow_contents_and_keep_the_listing(photos, tmp_path):
    for place in ("train/a", "train/b", "val/a", "val/b"):
        (tmp_path / "d" / place).mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / "d" / place / "1.bmp")
    before = open_labelled(f"imagefolder:{tmp_path / 'd'}")
    change(tmp_path / "d/train/b/1.bmp", keep_time=True)
    for limit in (0, 1 << 30):  # read as needed, and held
        after = open_labelled(f"imagefolder:{tmp_path / 'd'}", memory_limit=limit)
        assert after.digest != before.digest
        assert after.listing == before.listing


def test_a_training_of_an_older_kind_is_refused_and_says_why():
    now = {"seed": 0, "data": "new", "images": "listing"}
    refuse_other_settings(dict(now), now, "is in a")
    with pytest.raises(natstats.UsageError, match="did not note the contents of its images"):
        refuse_other_settings({"seed": 0, "data": "listing"}, now, "is in a")
    with pytest.raises(natstats.UsageError, match="other settings: data was old, is new"):
        refuse_other_settings({**now, "data": "old"}, now, "is in a")
    with pytest.raises(natstats.UsageError, match="seed was 1, is 0"):
        refuse_other_settings({"seed": 1, "data": "listing"}, now, "is in a")
