"""Streams: the same images as from files, whatever they come through; nothing is left behind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natstats.errors import NatstatsError, UsageError
from natstats.images import stream_batches, stream_numbers
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import (
    SOURCES,
    Framing,
    ImageFolder,
    batches,
    open_images,
    source_name,
)
from natstats.images.stream_numbers import Piece, StreamNumbers, dealt
from natstats.images.stream_shards import command_shards
from natstats.spectra.accumulator import KEPT_IMAGES

N_IMAGES, PER_SHARD = 20, 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    generator = np.random.default_rng(0)
    for i in range(N_IMAGES):
        pixels = generator.integers(0, 256, (24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i:03d}.png")
    return place


@pytest.fixture
def shards(folder: Path, tmp_path: Path) -> list[Path]:
    """Four tar files, of 6, 6, 6 and 2 images, plain and compressed."""
    files = sorted(folder.iterdir())
    paths = []
    for i in range(4):
        for ending, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
            path = tmp_path / f"part-{i}{ending}"
            with tarfile.open(path, mode) as tar:
                for file in files[PER_SHARD * i : PER_SHARD * (i + 1)]:
                    tar.add(file, file.name)
        paths.append(tmp_path / f"part-{i}.tar")
    return paths


def by_content(images, workers: int = 0, size: int = 4, **what) -> dict[bytes, torch.Tensor]:
    """Images by what is in their files."""
    found = {}
    for batch in batches(images, size, workers, **what):
        order = sorted(range(len(batch.index)), key=lambda place: int(batch.index[place]))
        for row, place in enumerate(order):
            found[batch.contents[32 * row : 32 * row + 32]] = batch.images[place]
    return found


def numbers_of(images, workers: int = 0, size: int = 4) -> list[list[int]]:
    return [batch.index.tolist() for batch in batches(images, size, workers)]


def of(kind: str, shards: list[Path]) -> str:
    base = shards[0].parent
    return {
        "pipe": f"pipe:cat {base}/part-{{0..3}}.tar",
        "compressed": f"{base}/part-{{0..3}}.tar.gz",
        "glob": f"{base}/*.tar.gz",
        "file": f"file://{base}/part-{{0..3}}.tar",
        "files": f"file://{base}/part-*.tar",
        "memory": "memory://shards/part-{0..3}.tar",
        "chain": f"zip://part-{{0..3}}.tar::file://{base}/all.zip",
    }[kind]


@pytest.fixture
def everywhere(shards: list[Path]) -> list[Path]:
    """The shards, also in memory and in a zip file."""
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    import zipfile

    with zipfile.ZipFile(shards[0].parent / "all.zip", "w") as archive:
        for path in shards:
            archive.write(path, path.name)
            memory.pipe(f"/shards/{path.name}", path.read_bytes())
    return shards


KINDS = ("pipe", "compressed", "glob", "file", "files", "memory", "chain")


@pytest.mark.parametrize("kind", KINDS)
def test_the_images_are_those_of_the_folder_with_any_number_of_workers(folder, everywhere, kind):
    images = open_images(of(kind, everywhere), Framing(20))
    files = by_content(ImageFolder(folder, Framing(20)))
    ours = by_content(images)
    assert ours.keys() == files.keys()
    assert all(torch.equal(pixels, files[content]) for content, pixels in ours.items())


@pytest.mark.slow
def test_batches_are_the_same_with_any_number_of_workers(shards):
    images = open_images(of("pipe", shards), Framing(20))
    alone = numbers_of(images)
    assert sum(map(len, alone)) == N_IMAGES
    assert [len(batch) for batch in alone] == [4] * 5
    assert numbers_of(images, workers=2) == alone


def test_numbers_say_shard_and_place_and_the_seed_orders_the_shards(shards):
    orders = set()
    for seed in range(6):
        images = open_images(of("pipe", shards), Framing(20), seed=seed)
        orders.add(tuple(one.address for one in images.shards))
        flat = np.array([number for batch in numbers_of(images) for number in batch])
        places, positions = images.numbers.places(flat)
        assert [*places] == sorted(places)
        for shard in range(4):
            assert [*positions[places == shard]] == [*range((places == shard).sum())]
        again = [
            images.numbers.number(int(s), int(p)) for s, p in zip(places, positions, strict=True)
        ]
        assert again == flat.tolist()
    assert len(orders) > 1


@pytest.mark.parametrize("n_shards", [1, 2, 7, 100, 1023, 1024, 1025, 50_000])
def test_numbers_are_unique_and_kept_images_come_from_all_shards(n_shards):
    assert stream_numbers.FIRST == KEPT_IMAGES
    numbers = StreamNumbers(n_shards)
    positions = [*range(20), *range(500, 520), 1023, 1024, 1025, 2**32 - 1]
    places = [
        (s, p) for s in {0, 1, n_shards // 2, n_shards - 1} if s < n_shards for p in positions
    ]
    made = np.array([numbers.number(*place) for place in places])
    assert len({*made.tolist()}) == len(places)
    shards, back = numbers.places(made)
    assert [*zip(shards.tolist(), back.tolist(), strict=True)] == places
    if n_shards <= KEPT_IMAGES:
        assert all(numbers.number(shard, 0) < KEPT_IMAGES for shard in range(n_shards))


@pytest.mark.parametrize("n_groups", [16, 100, 128, 256])
@pytest.mark.parametrize(("n_shards", "each"), [(16, 1), (50, 1), (16, 10), (100, 10), (40, 100)])
def test_groups_fill_evenly(n_groups, n_shards, each):
    numbers = StreamNumbers(n_shards)
    made = [numbers.number(s, p) for s in range(n_shards) for p in range(each)]
    counts = np.bincount(np.array(made) % n_groups, minlength=n_groups)
    assert counts.max() - counts.min() <= max(3, 0.02 * counts.mean())


@pytest.mark.parametrize("n_shares", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("n_shards", [1, 2, 3, 7, 8, 40, 41])
@pytest.mark.parametrize("again", [1, 2, 3])
def test_shares_have_every_image_once(n_shares, n_shards, again):
    lengths = [5 * (shard % 3) + 1 for shard in range(n_shards)]
    pieces = [Piece(shard) for shard in range(n_shards)]
    found = []
    for number in range(n_shares):
        for own in range(again):
            for piece in dealt(dealt(pieces, number, n_shares), own, again):
                mine = [p for p in range(lengths[piece.shard]) if piece.has(p)]
                assert len(mine) == piece.n_below(lengths[piece.shard])
                found += [(piece.shard, position) for position in mine]
    assert sorted(found) == [(s, p) for s in range(n_shards) for p in range(lengths[s])]


def test_only_some_numbers_are_read_and_no_shard_beyond(shards):
    images = open_images(of("pipe", shards), Framing(20))
    flat = [number for batch in numbers_of(images) for number in batch]
    wanted = ImageNumbers.of(flat[3:5])
    found = [b.index.tolist() for b in batches(images, 4, numbers=wanted)]
    assert found == [flat[3:5]]


@pytest.mark.slow
def test_a_limit_takes_the_first_of_every_shard(shards):
    images = open_images(of("pipe", shards), Framing(20), limit=6)
    flat = np.array([number for batch in numbers_of(images) for number in batch])
    places, positions = images.numbers.places(flat)
    assert sorted(np.bincount(places).tolist()) == [1, 1, 2, 2]
    assert positions.max() == 1
    assert "no random sample of single images" in images.notes[0]
    few = open_images(of("pipe", shards), Framing(20), limit=2)
    assert len(few.shards) == 2
    many = open_images("pipe:never run {0..99999}", Framing(20), limit=1000)
    assert len(many.shards) == 64
    assert len(open_images("pipe:never run {0..99999}", Framing(20), limit=80_000).shards) == 5000


def test_the_size_is_that_of_the_first_image_and_said_so(shards):
    images = open_images(of("compressed", shards))
    assert images.framing == Framing(24)
    assert "the sizes of the others are not known beforehand" in images.notes[0]
    assert images.framed(Framing(9)).notes == ()


def test_what_takes_counted_images_says_that_a_stream_is_none(shards):
    images = open_images(of("pipe", shards), Framing(20))
    for use in (len, lambda one: one[0], lambda one: one.chosen([0]), lambda one: one.whole()):
        with pytest.raises(UsageError, match="counted and chosen beforehand; pipe:.* is a stream"):
            use(images)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pipe:", "expected a command behind pipe:"),
        ("pipe:  ", "expected a command behind pipe:"),
        ("pipe:cat {a,a}.tar", "every shard once; pipe:cat a.tar is named twice"),
        ("pipe:cat {0..9999999}.tar", "at most 1000000 shards"),
        ("pipe:cat {0..999}{0..999}{0..999}", "at most 1000000 shards"),
        ("nosuch://bucket/a.tar", "an address that fsspec can open"),
        ("memory://nothing/{a,a}.tar", "is named twice"),
        ("memory://nothing-here/*.tar", "nothing matches"),
        ("none-{0..2}.tar.gz", "there is none at none-0.tar.gz"),
        ("none.tar.zst", "'pipe:zstd -dc FILE' makes a stream of it"),
        ("none.zip", "expected a .tar, in which images can be found"),
    ],
)
def test_sources_that_are_none_are_refused_before_anything_is_read(source, words):
    pytest.importorskip("fsspec")
    with pytest.raises(UsageError, match=f"images: .*{words}"):
        open_images(source, Framing(20))


def test_a_shard_that_is_named_twice_by_links_is_refused(shards):
    link = shards[0].parent / "link.tar.gz"
    link.symlink_to(shards[0].with_suffix(".tar.gz"))
    with pytest.raises(UsageError, match="named twice"):
        open_images(f"{shards[0].parent}/*.tar.gz", Framing(20))


def test_braces_of_commands_are_those_of_a_shell():
    def commands(text):
        return [one.address for one in command_shards(text)]

    assert commands("gsutil cat gs://b/{08..10}.tar") == [
        f"gsutil cat gs://b/{n}.tar" for n in ("08", "09", "10")
    ]
    assert commands("cat {a,b}-{1..2}.tar") == [
        f"cat {n}.tar" for n in ("a-1", "a-2", "b-1", "b-2")
    ]
    for left in ("awk '{print $1}'", "awk '{print $1, $2}'", "cat ${HOME}/a.tar", "{ cat a; }"):
        assert commands(left) == [left]


def test_long_names_are_cut_in_the_middle():
    names = [one.name for one in command_shards(f"cat {'x' * 500}/{{1..2}}.tar")]
    assert [name[-5:] for name in names] == ["1.tar", "2.tar"]
    assert len(names[0]) < 150


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(UsageError, match=r"pip install 'natstats\[streams\]'"):
        open_images("s3://bucket/a.tar", Framing(20))


def read_all(source: str) -> list:
    return list(batches(open_images(source, Framing(20)), 4))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("cat {part}; echo why >&2; exit 3", "ended with status 3: why"),
        ("echo one >&2; echo two >&2; exit 1", "ended with status 1: two"),
        ("head -c 3000 {part}; kill -9 $$", "was killed by signal 9"),
        ("no-such-command-here", "ended with status 127: .*no-such-command-here"),
        ("true", "is empty"),
        ("echo hello", "truncated header"),
        ("printf 'bad\\033[31m\\n' >&2; exit 1", r"status 1: bad\\x1b"),
    ],
)
def test_a_command_that_fails_is_named_with_what_it_said(shards, command, words):
    with pytest.raises(NatstatsError, match=f"images: .*pipe:.*{words}") as caught:
        read_all(f"pipe:{command.format(part=shards[0])}")
    assert str(caught.value).isprintable()


def test_an_address_without_a_file_is_named():
    pytest.importorskip("fsspec")
    with pytest.raises(NatstatsError, match="a file at memory://no/such.tar; there is none"):
        read_all("memory://no/such.tar")


def is_there(pid: int) -> bool:
    """Whether a process is there, if only as a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(is_so, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cat {0..1}.tar", ["cat 0.tar", "cat 1.tar"]),
        ("cat a.tar | grep -aE '.{0,5}'", ["cat a.tar | grep -aE '.{0,5}'"]),
        ('cat "{0..1}.tar"', ['cat "{0..1}.tar"']),
        (r"sed s/h\{1,2\}/h/ {a,b}.tar", [rf"sed s/h\{{1,2\}}/h/ {x}.tar" for x in "ab"]),
        ("echo it\\'s {a,b}", ["echo it\\'s a", "echo it\\'s b"]),
    ],
)
def test_braces_are_those_of_a_shell(command, expected):
    assert [one.address for one in command_shards(command)] == expected


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleep 100", "sleep 100 & wait", "exec 1>&-; sleep 100"])
def test_a_command_that_hangs_at_its_end_is_ended(monkeypatch, shards, tmp_path, how):
    monkeypatch.setattr("natstats.images.byte_sources._SECONDS_TO_EXIT", 0.3)
    note = tmp_path / "pid"
    found = read_all(f"pipe:cat {shards[0]}; echo $$ > {note}; {how}")
    assert sum(len(batch.index) for batch in found) == PER_SHARD
    wait_until(lambda: not is_there(int(note.read_text())))


def test_nothing_is_left_of_a_stream_that_is_not_read_to_its_end(shards, tmp_path):
    note = tmp_path / "pid"
    endless = f"pipe:echo $$ > {note}; cat {shards[0]}; sleep 100"
    images = open_images(endless, Framing(20))
    with contextlib.closing(batches(images, 2)) as found:
        next(found)
    wait_until(lambda: not is_there(int(note.read_text())))


@pytest.mark.slow
def test_a_waiting_reader_is_ended(tmp_path):
    """A command that prints nothing: who waits for it may go."""
    note = tmp_path / "pid"
    code = (
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it may be ignored
        "from natstats.images.sources import *\n"
        f"found = batches(open_images('pipe:echo $$ > {note}; sleep 100', Framing(20)), 2)\n"
        "next(found)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True
    )
    wait_until(lambda: note.exists() and note.read_text().strip() != "", 60)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    wait_until(lambda: not is_there(int(note.read_text())))


def test_what_is_cut_or_cannot_be_decoded_is_listed_with_its_name(shards):
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[: len(whole) // 3])
    with tarfile.open(shards[1], "a") as tar:
        member = tarfile.TarInfo("odd\x1b[31m\n.png")
        member.size = 9
        tar.addfile(member, io.BytesIO(b"not a png"))
    found = read_all(of("pipe", shards[:2]).replace("{0..3}", "{0..1}"))
    labels = [label for batch in found for label in batch.labels.values()]
    assert len(labels) == 2
    assert all(label.isprintable() for label in labels)
    reasons = [reason for batch in found for _, reason in batch.unreadable]
    assert "the tar file ends before the image does" in reasons
    assert sum(len(batch.contents) for batch in found) == 32 * sum(
        len(batch.index) + len(batch.unreadable) for batch in found
    )


def test_reading_ahead_is_bounded(monkeypatch, shards):
    monkeypatch.setattr(stream_batches, "_MOST_AHEAD", 5000)
    read = []
    images = open_images(of("pipe", shards), Framing(20))
    items = images.items

    def counted(part, abort):
        for item in items(part, abort):
            read.append(item)
            yield item

    monkeypatch.setattr(images, "items", counted)
    with contextlib.closing(batches(images, 2)) as found:
        next(found)
        time.sleep(0.2)
        assert len(read) <= 7


@pytest.mark.slow
def test_an_image_that_is_a_bomb_is_unreadable(tmp_path):
    """A small file that would be decoded to far more pixels than any photograph has."""
    content = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(content, "PNG")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("bomb.png")
        member.size = len(content.getvalue())
        tar.addfile(member, io.BytesIO(content.getvalue()))
    (batch,) = read_all(str(tmp_path / "a.tar.gz"))
    assert len(batch.unreadable) == 1


def test_names_of_streams_can_be_those_of_folders():
    for source, name in (
        ("pipe:gsutil cat gs://b/{000..012}.tar", "pipe"),
        ("s3://bucket/imagenet/{000..012}.tar", "imagenet"),
        ("https://host/a/val.tar?token=b/c", "val"),
        ("memory://a/b.tar.gz", "b"),
        ("shards/photos.tgz", "photos"),
        ("hf:~/sets/birds:train", "birds-train"),
        ("hf-stream:owner/birds", "birds"),
        ("simplecache::s3://bucket/a.tar", "stream"),
    ):
        assert source_name(source) == name
    assert "pipe:COMMAND" in SOURCES


def test_a_digest_tells_streams_apart(shards):
    def digest(source, **how):
        return open_images(source, Framing(20), **how).listing()

    source = of("pipe", shards)
    other = source.replace("0..3", "0..2")
    assert (
        len({digest(source), digest(other), digest(source, seed=1), digest(source, limit=3)}) == 4
    )
    assert digest(source) == digest(source)
