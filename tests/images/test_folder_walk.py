"""What of a folder counts as its images: each file once, no figures of our own, the rest said."""

from __future__ import annotations

import os
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

import natstats
from natstats.distill.training.data import open_labelled
from natstats.images.sources import open_images

RNG = np.random.default_rng(0)


def put(path, side=40):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    place = tmp_path / "photos"
    for i in range(5):
        put(place / f"part{i % 2}" / f"{i}.png")
    return place


def names(images):
    return sorted(images.label(number) for number in range(len(images)))


@pytest.mark.slow
def test_runs_below_the_photographs_do_not_grow_the_sample(photos, monkeypatch):
    """The same measurement three times, where its runs lie below the folder that it measures."""
    monkeypatch.chdir(photos)
    seen = []
    for number in range(3):
        run = natstats.measure_images(".", n_groups=4)
        if number == 0:
            run.save("runs/number0", report=False)
            put(photos / "runs/number0/figures/law.png")
        else:  # as good as saved
            shutil.copytree("runs/number0", f"runs/number{number}")
        seen.append((run.info["images"]["n_images"], run.info["images"]["digest"]))
    assert [n for n, _ in seen] == [5, 5, 5]
    assert len(set(seen)) == 1
    assert list((photos / "runs").rglob("*.png"))  # there are figures that could be measured
    assert run.info["warnings"] == [
        "2 folders and figures that natstats wrote were left out: runs/number0, runs/number1"
    ]
    by_pattern = open_images("**/*.png")
    assert names(by_pattern) == names(open_images("part?/*"))
    assert "natstats wrote" in by_pattern.notes[0]


def test_figures_drawn_beside_the_photographs_are_left_out(photos):
    from natstats import report

    run = natstats.measure_images(photos)
    report.draw_run(run.report(), photos / "figs")
    put(photos / "drawn" / "a.png")
    (photos / "drawn" / "a.svg").write_text("<svg/>")  # somebody else's, and no figure
    assert list((photos / "figs").glob("*.png"))
    assert len(open_images(photos)) == 6


@pytest.mark.parametrize(
    "record",
    [
        "run.json",
        "series.json",
        "distill.json",
        "comparison.json",
        "table.json",
        "meta_analysis.json",
    ],
)
def test_every_kind_of_folder_that_natstats_writes_is_left_out(photos, record):
    put(photos / "out" / "figures" / "law.png")
    (photos / "out" / record).write_text("{}")
    for images in (open_images(photos), open_images(f"{photos}/**/*")):
        assert len(images) == 5
        assert images.notes == ("1 folder or figure that natstats wrote was left out: out",)
    clips = open_images(f"clips:{photos}", frames=2)
    assert names(clips) == ["part0", "part1"]
    with pytest.raises(natstats.UsageError, match=r"got none below .*natstats wrote was left out"):
        open_images(photos / "out")


def test_a_folder_that_is_linked_counts_its_images_once(photos):
    (photos / "again").symlink_to(photos / "part0", target_is_directory=True)
    (photos / "a_first").symlink_to(photos / "part1", target_is_directory=True)
    (photos / "part0" / "up").symlink_to(photos, target_is_directory=True)
    for images in (open_images(photos), open_images(f"{photos}/**/*.png")):
        assert names(images) == [f"part{i % 2}/{i}.png" for i in (0, 2, 4, 1, 3)]
    assert "3 paths lead to a file or folder that is there already" in open_images(photos).notes[0]


def test_a_file_that_is_linked_counts_once_and_by_its_own_name(photos, tmp_path):
    (photos / "0_first.png").symlink_to(photos / "part0" / "4.png")
    outside = put(tmp_path / "elsewhere" / "far.png")
    (photos / "x.png").symlink_to(outside)
    (photos / "y.png").symlink_to(outside)
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    found = open_images(photos)
    assert len(found) == 7
    assert {"part0/4.png", "x.png", "gone.png"} < set(names(found))
    assert found.notes == (
        "2 paths lead to a file or folder that is there already, which counts once: 0_first.png, "
        "y.png",
    )


def test_links_without_end_come_to_one(tmp_path):
    for name in "abc":
        put(tmp_path / name / f"{name}.png")
    for one in "abc":
        for other in "abc":
            (tmp_path / one / f"to_{other}").symlink_to(tmp_path / other)
    assert names(open_images(tmp_path)) == ["a/a.png", "b/b.png", "c/c.png"]


def test_numbering_does_not_depend_on_the_order_of_the_system(photos, monkeypatch):
    from pathlib import Path

    before = [open_images(photos).label(n) for n in range(5)]
    own = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda p: reversed(list(own(p))))
    assert [open_images(photos).label(n) for n in range(5)] == before


# What is left out for its ending.


@pytest.mark.slow
def test_files_of_other_endings_are_counted_and_said(photos, tmp_path):
    for name in ("a.heic", "part1/b.HEIC", "scan", "c.xyz", ".hidden.heic"):
        (photos / name).write_bytes(b"x")
    for name in ("labels.csv", "README.md", "notes.txt"):  # what lies beside images
        (photos / name).write_text("x")
    note = (
        "4 files were left out, as their endings are not those of images: .heic (2), .xyz (1), "
        "none (1)"
    )
    run = natstats.measure_images(photos)
    assert run.info["warnings"] == [note]
    assert open_images(f"{photos}/**/*").notes == (note,)
    network = natstats.Network(natstats.load_network("cifar_resnet20", weights="none").model,
                               "n", "none")  # fmt: skip
    assert note in natstats.measure(network, photos, layers="conv1", size=32).info["warnings"]


def test_a_folder_of_such_files_alone_says_so(tmp_path):
    (tmp_path / "a.heic").touch()
    for source in (tmp_path, f"{tmp_path}/*"):
        with pytest.raises(natstats.UsageError, match=r"1 file was left out, .*\.heic \(1\)"):
            open_images(source)


def test_pictures_in_a_tar_file_that_are_not_read_are_counted(photos, tmp_path):
    for name in ("a.heic", "b.eps", "c.cls", "d.json"):
        (photos / name).write_bytes(b"x")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(photos, "p")
    images = open_images(tmp_path / "s.tar")
    assert len(images) == 5
    assert images.notes == (
        "2 files were left out, as their endings are not those of images: .eps (1), .heic (1)",
    )


def test_labelled_data_say_what_was_left_out(tmp_path):
    for place in ("train/cat", "train/dog", "test/cat", "test/dog"):
        put(tmp_path / place / "1.png")
    (tmp_path / "train/cat/2.heic").touch()
    (tmp_path / "train/dog/link.png").symlink_to(tmp_path / "train/dog/1.png")
    notes = open_labelled(f"imagefolder:{tmp_path}").notes
    assert notes[0].startswith("train: 1 path leads to a file or folder that is there already")
    assert notes[0].endswith("dog/link.png")
    assert notes[1] == (
        "train: 1 file was left out, as its ending is not that of an image: .heic (1)"
    )


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_nothing_is_not_the_current_folder(photos, monkeypatch, source):
    monkeypatch.chdir(photos)
    with pytest.raises(natstats.UsageError, match="images: expected a folder"):
        open_images(source)


def test_a_pipe_is_never_waited_for(tmp_path):
    for name in ("a.npy", "a.pt", "a.txt", "a.tar", "a.png", "d/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        os.mkfifo(tmp_path / name)
        with pytest.raises(natstats.UsageError, match="a named pipe, not a file"):
            open_images(tmp_path / name)
    (tmp_path / "list.txt").unlink(missing_ok=True)
    (tmp_path / "list.txt").write_text("a.png\n")
    for source in (tmp_path / "list.txt", tmp_path / "d", f"{tmp_path}/*.png", f"clips:{tmp_path}"):
        with pytest.raises(natstats.UsageError, match="a named pipe, not a file"):
            open_images(source, **({"frames": 1} if "clips" in str(source) else {}))
