"""Sources of images: numbered, framed, hostile files left out and named."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import natstats
from natstats.images import files
from natstats.images.sources import Framing, ImageFolder, batches, open_images


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(7):
        pixels = generator.integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
        (tmp_path / f"part{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"part{i % 2}" / f"{i}.png")
    return tmp_path


def all_of(images, batch_size=3, workers=0):
    found = list(batches(images, batch_size, workers))
    return torch.cat([b.images for b in found if len(b.index)]), torch.cat([b.index for b in found])


def test_numbers_do_not_depend_on_batches_or_workers(folder):
    images = ImageFolder(folder, Framing(32))
    reference, index = all_of(images, 7)
    assert index.tolist() == list(range(7))
    for batch_size, workers in ((1, 0), (3, 0), (4, 1)):
        other, again = all_of(images, batch_size, workers)
        assert torch.equal(other, reference)
        assert torch.equal(again, index)


def test_a_seed_decides_the_order_and_a_limit_takes_its_start(folder):
    one, two = (ImageFolder(folder, Framing(32), seed=seed) for seed in (0, 1))
    assert one.paths != two.paths
    assert sorted(one.paths) == sorted(two.paths)
    assert ImageFolder(folder, Framing(32), limit=3).paths == one.paths[:3]
    assert one.digest() == ImageFolder(folder, Framing(32)).digest() != two.digest()


def test_pixels_are_the_central_ones_unscaled_in_0_1(folder):
    images = ImageFolder(folder, Framing(32))
    pixels, _ = all_of(images)
    with Image.open(images.paths[0]) as image:
        expected = np.asarray(image)[4:36, 14:46]
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), expected / 255, rtol=1e-6)


def test_native_size_is_the_largest_that_fits_all(folder):
    assert ImageFolder(folder).native_size() == 40
    assert ImageFolder(folder).native_size(largest=24) == 24


def test_unreadable_images_are_left_out_and_named(folder):
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "cut.png").write_bytes((folder / "part0" / "0.png").read_bytes()[:200])
    Image.new("RGB", (10, 10)).save(folder / "small.png")
    images = ImageFolder(folder, Framing(32))
    found = list(batches(images, 4))
    bad = {images.label(number): reason for b in found for number, reason in b.unreadable}
    assert set(bad) == {"broken.jpg", "cut.png", "small.png"}
    assert "10 x 10 pixels are fewer than 32 x 32" in bad["small.png"]
    assert sum(len(b.index) for b in found) == 7


def test_an_array_is_taken_as_it_is(tmp_path):
    array = np.random.default_rng(0).normal(5, 100, size=(6, 2, 9, 11))
    np.save(tmp_path / "fields.npy", array)
    for source in (array, torch.from_numpy(array), tmp_path / "fields.npy"):
        images = open_images(source)
        pixels, _ = all_of(images)
        np.testing.assert_allclose(pixels, array[images.places], rtol=1e-6)


def test_hidden_files_and_other_files_are_passed_over(folder):
    (folder / ".trash").mkdir()
    Image.new("RGB", (40, 40)).save(folder / ".trash" / "old.png")
    (folder / "notes.txt").write_text("not an image")
    assert len(ImageFolder(folder, Framing(32))) == 7


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: open_images(p / "nowhere"), "images: expected a folder, .*nowhere"),
        (lambda p: open_images(p), "images: expected at least one image; got none"),
        (
            lambda p: open_images(np.zeros((3, 8, 8))),
            r"shape \(N, C, H, W\), .*; got .*\(3, 8, 8\)",
        ),
        (lambda p: open_images(np.zeros((3, 1, 4, 8))), "at least 5 x 5 pixels; got 4 x 8"),
        (lambda p: open_images(np.zeros((0, 1, 8, 8))), "images: expected real numbers"),
        (lambda p: open_images(np.zeros((3, 1, 8, 8)), limit=0), "limit: .*at least 1; got 0"),
        (lambda p: open_images(p / "bad.npy"), "images: expected a readable .npy file"),
        (lambda p: open_images(7), "images: expected a folder, .* an array or a tensor; got 7"),
        (lambda p: open_images(p / "bad.pt"), "images: expected a .pt file with one tensor"),
        (lambda p: open_images(p / "bad.txt"), "images: expected a list of paths; .*bad.txt"),
        (lambda p: open_images(p / "*.jpg"), "images: expected at least one image; nothing match"),
        (lambda p: open_images(p, frames=4), "frames: expected only beside clips:ROOT; got 4"),
        (lambda p: open_images(f"clips:{p}"), "images: expected at least one image; got none"),
        (lambda p: open_images(f"clips:{p}", frames=0), "frames: .*at least 1; got 0"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path, call, words):
    with pytest.raises(natstats.UsageError, match=words):
        call(tmp_path)


def test_a_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(natstats.UsageError, match="images: expected a readable .npy file"):
        open_images(tmp_path / "bad.npy")


def test_only_the_images_that_are_measured_decide_the_size(folder):
    Image.new("RGB", (33, 33)).save(folder / "small.png")
    sizes = {ImageFolder(folder, limit=1, seed=seed).framing.size for seed in range(60)}
    assert sizes == {33, 40}


# A folder, a pattern and a list are three ways to say the same.


def test_a_pattern_is_the_folder(folder):
    whole = ImageFolder(folder, Framing(32))
    for pattern in ("**/*.png", "part?/*", "part[01]/*.p*g"):
        images = open_images(folder / pattern, Framing(32))
        assert images.paths == whole.paths
        assert images.label(0) == whole.label(0) or pattern.startswith("part")


def test_a_pattern_takes_no_folders_and_no_other_files(folder):
    (folder / "folder.png").mkdir()
    (folder / "notes.txt").touch()
    assert len(open_images(folder / "**" / "*", Framing(32))) == 7


def test_a_list_is_relative_to_itself_and_counts_the_missing(folder, monkeypatch):
    lines = [str(path.relative_to(folder)) for path in ImageFolder(folder, Framing(32)).paths]
    lines += ["# a comment", "", "  ", "gone/1.png", str((folder / "part0/0.png").absolute())]
    (folder / "list.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(folder.parent)
    images = open_images(folder / "list.txt", Framing(32))
    assert len(images) == 9
    assert unreadable(images) == {"gone/1.png": "No such file or directory"}
    backwards = folder / "other.txt"
    backwards.write_text("\n".join(reversed(lines)), encoding="utf-8")
    assert [images.label(i) for i in range(9)] == [
        open_images(backwards, Framing(32)).label(i) for i in range(9)
    ]


def test_a_list_without_a_path_is_an_error(tmp_path):
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(natstats.UsageError, match="expected at least one path in .*list.txt"):
        open_images(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\x00\x01\n")
    with pytest.raises(natstats.UsageError, match="list.txt is not text"):
        open_images(tmp_path / "list.txt")


# Hostile folders: whatever is there is measured or named.


def unreadable(images):
    return {
        images.label(number): reason for b in batches(images, 4) for number, reason in b.unreadable
    }


def test_what_cannot_be_read_is_named_with_its_reason(folder, monkeypatch):
    (folder / "empty.png").touch()
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "round.jpg").symlink_to(folder / "round.jpg")
    os.mkfifo(folder / "pipe.png")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60), dtype=np.uint8))
    picture.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-300])
    Image.new("1", (400, 400)).save(folder / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400 * 400 // 2 - 1)
    (folder / "rotated.tiff").write_bytes(b"II*\0" + b"\xff" * 30)
    found = unreadable(open_images(folder, Framing(32)))
    assert set(found) == {
        "empty.png", "gone.jpg", "round.jpg", "pipe.png", "cut.jpg", "bomb.png", "rotated.tiff"
    }  # fmt: skip
    assert "cannot identify" in found["empty.png"]
    assert found["gone.jpg"] == "No such file or directory"
    assert "symbolic links" in found["round.jpg"]
    assert found["pipe.png"] == "a named pipe, not a file"
    assert "truncated" in found["cut.jpg"]
    assert "decompression bomb" in found["bomb.png"]
    assert not any("\n" in reason for reason in found.values())


def test_a_large_image_below_the_limit_is_no_warning(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 60 - 1)  # Pillow warns up to twice that
    assert unreadable(open_images(folder, Framing(32))) == {}


def test_permission_denied_is_said_of_files_and_of_folders(folder, monkeypatch):
    """By a stand-in, as nothing is forbidden to a superuser."""
    own = (files.open_regular, Path.iterdir)
    secret = folder / "part0"

    def open_(path):
        if path.name == "1.png":
            raise PermissionError(13, "Permission denied", str(path))
        return own[0](path)

    def iterdir(path):
        if path == secret:
            raise PermissionError(13, "Permission denied", str(path))
        return own[1](path)

    monkeypatch.setattr(files, "open_regular", open_)
    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = unreadable(open_images(folder, Framing(32)))
    assert found == {
        "part0": "the folder cannot be listed",
        "part1/1.png": "Permission denied",
    }


def test_links_to_folders_are_followed_but_not_in_a_circle(folder, tmp_path_factory):
    links = tmp_path_factory.mktemp("links")
    (links / "class0").symlink_to(folder / "part0")
    (links / "class1").symlink_to(folder / "part1")
    (folder / "part0" / "up").symlink_to(links)
    images = open_images(links, Framing(32))
    assert sorted(path.name for path in images.paths) == [f"{i}.png" for i in range(7)]


def test_a_folder_with_the_name_of_an_image_is_a_folder(folder):
    (folder / "part0").rename(folder / "part0.jpg")
    assert len(ImageFolder(folder, Framing(32))) == 7


@pytest.mark.slow
def test_a_name_that_is_not_utf8_can_be_written_down(folder, tmp_path_factory):
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    try:
        path.write_bytes(b"not an image")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    run = natstats.measure_images(folder)
    assert run.info["images"]["unreadable"][0].startswith("caf\\xe9.png: ")
    run.save(tmp_path_factory.mktemp("run") / "run")


def test_tiny_images_are_enlarged_and_counted_or_left_out(folder):
    Image.new("RGB", (1, 1), "red").save(folder / "dot.png")
    Image.new("RGB", (3, 700), "red").save(folder / "strip.png")
    images = open_images(folder, Framing(32, 36))
    assert unreadable(images) == {}
    assert sum(batch.n_enlarged for batch in batches(images, 4)) == 2
    assert set(unreadable(open_images(folder, Framing(32)))) == {"dot.png", "strip.png"}
    assert open_images(folder).framing.size == 40


# What the digests tell apart.


def contents(source, **options):
    return natstats.measure_images(source, **options).info["images"]["contents"]


def test_the_digest_of_contents_follows_bytes_and_numbers_only(folder, tmp_path_factory):
    before = contents(folder, crop=16)
    assert contents(folder, crop=24) == before
    assert contents(folder, crop=16, workers=1, batch_size=2) == before
    assert contents(folder, crop=16, seed=1) != before
    assert contents(folder, crop=16, limit=4) != before
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    os.rename(folder, copy)
    assert contents(copy, crop=16) == before
    path = copy / "part0" / "0.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(path)
    assert contents(copy, crop=16) != before


@pytest.mark.slow
def test_runs_at_two_sizes_are_paired_by_their_photographs(folder):
    one, other = (natstats.measure_images(folder, crop=side) for side in (32, 24))
    assert one.info["images"]["digest"] != other.info["images"]["digest"]
    assert natstats.compare(one, other).is_paired
    for run in (one, other):  # as runs before 0.3.0 were
        del run.info["images"]["contents"]
    assert not natstats.compare(one, other).is_paired


# Tensors and clips.


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"images": x, "labels": x[:, 0, 0, 0]}])
@pytest.mark.parametrize("suffix", ["pt", "pth"])
def test_a_tensor_file_is_taken_as_it_is(tmp_path, wrap, suffix):
    tensor = torch.randn(6, 2, 9, 11)
    torch.save(wrap(tensor), tmp_path / f"maps.{suffix}")
    images = open_images(tmp_path / f"maps.{suffix}")
    pixels, _ = all_of(images)
    assert torch.equal(pixels, tensor[images.places])


def test_half_precision_and_the_other_byte_order_are_no_matter(tmp_path):
    array = np.random.default_rng(0).normal(size=(4, 1, 8, 8)).astype(np.float32)
    images = open_images(array.astype(">f4"))
    assert torch.equal(all_of(images)[0], torch.from_numpy(array)[images.places])
    half = torch.from_numpy(array).bfloat16()
    assert torch.equal(all_of(open_images(half))[0], half.float()[images.places])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"a": torch.zeros(2, 1, 8, 8), "b": torch.zeros(2, 1, 8, 8)}, "expected one .*got 2"),
        ({"a": torch.zeros(3)}, "expected one tensor .*got 0"),
        ([1, 2], "expected one tensor .*got 0"),
        (torch.zeros(3, 8, 8), "expected one tensor .*got 0"),
        (Path("x"), "nothing that must be unpickled"),
    ],
)
def test_a_file_without_one_tensor_is_refused(tmp_path, content, words):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(natstats.UsageError, match=f"images: .*{words}"):
        open_images(tmp_path / "a.pt")


@pytest.fixture
def clips(tmp_path):
    """Two clips of 12 frames whose brightness is the number of the frame, and one of 3."""
    for name, n in (("walk/a", 12), ("run/b", 12), ("run/short", 3)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (24, 20), (20 * i,) * 3).save(tmp_path / name / f"f{i}.png")
    return tmp_path


def test_clips_are_folders_of_evenly_spaced_frames_in_order(clips):
    images = open_images(f"clips:{clips}", frames=4)
    (batch,) = batches(images, 8)
    assert batch.images.shape == (2, 3, 4, 20, 20)
    # round(linspace(0, 11, 4)) = 0, 4, 7, 11; by name f10 and f11 would come before f2
    shown = batch.images[:, 0, :, 5, 5] * 255
    np.testing.assert_allclose(shown, [[0, 80, 140, 220]] * 2, atol=1e-3)
    assert unreadable(images) == {"run/short": "3 frames are fewer than 4"}
    assert images.digest() != open_images(f"clips:{clips}", frames=5).digest()


def test_a_damaged_frame_is_named(clips):
    (clips / "walk/a/f4.png").write_bytes(b"no")
    images = open_images(f"clips:{clips}", frames=4)
    found = unreadable(images)
    assert set(found) == {"walk/a", "run/short"}
    assert found["walk/a"].startswith("f4.png: cannot identify")


def test_layer_0_of_clips_is_the_mean_over_their_frames():
    clips = np.random.default_rng(0).random((6, 3, 4, 16, 16), dtype=np.float32)
    run = natstats.measure_images(clips)
    frames = clips.swapaxes(1, 2).reshape(24, 3, 16, 16)
    single = natstats.measure_images(frames)
    for of_clips, of_frames in zip(run.spectra, single.spectra, strict=True):
        assert of_clips.layer.name == of_frames.layer.name
        assert of_clips.spectrum.n_images == 6
        np.testing.assert_allclose(
            of_clips.spectrum.power.sum(0) / 6, of_frames.spectrum.power.sum(0) / 24, rtol=1e-5
        )


def test_clips_go_through_a_video_network(clips):
    class Video(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x):
            assert x.shape[1:] == (3, 5, 16, 16)
            assert float(x.min()) < -1
            return self.conv(x[:, :, 0])

    network = natstats.Network(Video(), "video", "none", False, takes="clips")
    run = natstats.measure(network, f"clips:{clips}", crop=16, frames=5)
    assert run.info["images"]["frames"] == 5
    assert run.info["images"]["n_images"] == 2
