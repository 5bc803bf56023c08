"""A series that is cut, or has a bad checkpoint, never loses a finished run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

import natstats
from natstats import Series, measure_series
from natstats.runs import store
from tests.runs.small_series import between, network


@pytest.mark.slow
def test_after_an_interruption_the_same_call_goes_on(
    checkpoints, series_images, tmp_path, quick, measured
):
    spy, seen = measured
    out = tmp_path / "out"
    spy.stop = "epoch_2.pth"
    with pytest.raises(KeyboardInterrupt):
        measure_series(network(), checkpoints, series_images, out=out)
    assert seen == ["epoch_0.pth", "epoch_1.pth"]
    assert {path.name for path in out.iterdir()} == {"epoch_0", "epoch_1"}
    assert store.is_unfinished_series(out)
    with pytest.raises(natstats.UsageError, match="expected a finished series; .*where it stopped"):
        Series.open(out)
    before = (out / "epoch_0" / "run.json").read_bytes()
    spy.stop = None
    found = measure_series(network(), checkpoints, series_images, out=out)
    assert seen[2:] == ["epoch_2.pth", "epoch_10.pth"]
    assert (out / "epoch_0" / "run.json").read_bytes() == before
    whole = measure_series(network(), checkpoints, series_images)
    pd.testing.assert_frame_equal(found.frame, whole.frame)
    assert found.change.to_dict() == whole.change.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cut short", "expected weights and plain data"),
        pytest.param({"w": torch.zeros(1), "hook": print}, "print", marks=pytest.mark.slow),
        pytest.param({"0.weight": torch.zeros(4, 3, 3, 3)}, "missing", marks=pytest.mark.slow),
    ],
)
def test_a_bad_checkpoint_costs_only_itself(
    checkpoints, series_images, tmp_path, quick, measured, content, words
):
    good, bad, out = checkpoints / "epoch_2.pth", tmp_path / "good.pth", tmp_path / "out"
    shutil.copy(good, bad)
    good.write_bytes(content) if isinstance(content, bytes) else torch.save(content, good)
    with pytest.raises(natstats.NatstatsError) as caught:
        measure_series(network(), checkpoints, series_images, out=out)
    assert re.match(rf"checkpoint: .*1 of them .*epoch_2: .*({words})", str(caught.value), re.S)
    assert "3 finished runs are kept in" in str(caught.value)
    assert {path.name for path in out.iterdir()} == {"epoch_0", "epoch_1", "epoch_10"}
    with pytest.raises(natstats.NatstatsError, match="^checkpoint: "):
        measure_series(network(), checkpoints, series_images)
    shutil.copy(bad, good)
    seen = measured[1]
    seen.clear()
    assert len(measure_series(network(), checkpoints, series_images, out=out).frame) == 4
    assert seen == ["epoch_2.pth"]


def test_what_is_wrong_with_all_stops_at_once(
    checkpoints, series_images, tmp_path, quick, measured
):
    with pytest.raises(natstats.UsageError, match="^layers: "):
        measure_series(
            network(), checkpoints, series_images, out=tmp_path / "out", layers="nothing"
        )
    assert measured[1] == ["epoch_0.pth"]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_progress_counts_the_images_of_all_runs_to_come(
    checkpoints, series_images, tmp_path, quick, measured
):
    measured[0].stop = "epoch_1.pth"
    with pytest.raises(KeyboardInterrupt):
        measure_series(network(), checkpoints, series_images, out=tmp_path / "out")
    measured[0].stop = None
    calls = []
    measure_series(
        network(),
        checkpoints,
        series_images,
        out=tmp_path / "out",
        progress=lambda *now: calls.append(now),
    )
    assert calls[-1] == (3 * len(series_images), 3 * len(series_images))
    assert calls == sorted(calls)


@pytest.mark.slow
def test_what_a_killed_run_left_does_not_stand_in_the_way(measure_again, tmp_path, measured):
    home = tmp_path / "killed"
    (home / ".e1.abc").mkdir(parents=True)
    assert len(measure_again(out=home).frame) == 2
    assert (home / ".e1.abc").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_tables_are_written_whole_or_not_at_all(measure_again, tmp_path, monkeypatch, error):
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    torch.save(between(0.3), tmp_path / "e3.pth")

    def fail(*_):
        raise error

    monkeypatch.setattr("natstats.report.pages.series.write_series_report", fail)
    with pytest.raises(error):
        measure_again()
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"e1", "e2", "e3"}


def test_the_file_that_stands_for_the_whole_comes_last(tmp_path, monkeypatch):
    for name in ("a.csv", "series.json"):
        (tmp_path / name).write_text("old")
    real, moved = Path.replace, []

    def replace(self, target):
        moved.append((self.name, (tmp_path / "series.json").exists()))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with store.add_files(tmp_path, "series.json") as folder:
        for name in ("series.json", "z.csv", "a.csv"):
            (folder / name).write_text("new")
    assert [name for name, _ in moved] == ["a.csv", "z.csv", "series.json"]
    assert not any(there for _, there in moved)
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", "z.csv", "series.json"}
