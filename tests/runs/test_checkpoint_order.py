"""Which files are the checkpoints of a series, in what order, and what they are called."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import natstats
from natstats.networks.checkpoint_files import find_checkpoints, number_checkpoints, step_name


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["epoch_10", "epoch_2"], {"epoch_2": 2, "epoch_10": 10}),
        (["e1-v3", "e2-v3"], {"e1-v3": 1, "e2-v3": 2}),
        (["3", "12"], {"3": 3, "12": 12}),
        (["epoch_2", "epoch_10", "last"], {"epoch_2": 0, "epoch_10": 1, "last": 2}),
        (["e1_loss3", "e2_loss1"], {"e1_loss3": 0, "e2_loss1": 1}),
        (["e1", "e01"], {"e1": 0, "e01": 1}),
        (["first", "last"], {"first": 0, "last": 1}),
        (["last", "first"], {"last": 0, "first": 1}),
    ],
)
def test_the_number_that_differs_is_the_step_else_the_order_is(names, steps):
    found = number_checkpoints([Path(f"{name}.pth") for name in names])
    assert {one.name: one.step for one in found} == steps
    assert [one.step for one in found] == sorted(steps.values())


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["checkpoint-500/m.pt", "checkpoint-1000/m.pt"], ["checkpoint-500", "checkpoint-1000"]),
        (["m.pth", "m.pt"], ["m.pth", "m.pt"]),
        (["a/x/m.pt", "b/y/m.pt"], ["a_x", "b_y"]),
        (["m.pt", "old/m.pt"], ["m.pt", "old"]),
        (["figures.pt", "b.pt"], ["checkpoint-figures", "b"]),
        (["series.json.pt", "b.pt"], ["checkpoint-series.json", "b"]),
        ([".a.pt", "b.pt"], ["checkpoint-a", "b"]),
    ],
)
def test_files_are_called_by_what_tells_them_apart(paths, names):
    assert [one.name for one in number_checkpoints([Path(path) for path in paths])] == names


def test_files_that_cannot_be_told_apart_are_refused():
    with pytest.raises(natstats.UsageError, match="^checkpoint: expected files that"):
        number_checkpoints([Path("figures.pt"), Path("checkpoint-figures.pt")])


def test_patterns_folders_and_files_are_found_in_natural_order(checkpoints, monkeypatch):
    names = ["epoch_0.pth", "epoch_1.pth", "epoch_2.pth", "epoch_10.pth"]
    (checkpoints / "notes.txt").write_text("")
    (checkpoints / ".hidden.pth").write_text("")
    (checkpoints / "epoch_deep").mkdir()
    assert [path.name for path in find_checkpoints(checkpoints / "epoch_*")] == names
    assert [path.name for path in find_checkpoints(checkpoints)] == names
    chosen = [checkpoints / "epoch_10.pth", checkpoints / "epoch_?.pth", checkpoints]
    assert [path.name for path in find_checkpoints(chosen)] == [names[3], *names[:3]]
    monkeypatch.setenv("HOME", str(checkpoints.parent))
    assert len(find_checkpoints("~/ck/*.pth")) == 4
    (checkpoints / "a[1].pth").write_text("")
    assert find_checkpoints(checkpoints / "a[1].pth") == [checkpoints / "a[1].pth"]
    assert find_checkpoints(checkpoints / "none.pth") == [checkpoints / "none.pth"]


@pytest.mark.parametrize("given", ["no_*.pth", "epoch_deep"])
def test_a_pattern_or_folder_without_files_is_a_mistake(checkpoints, given):
    (checkpoints / "epoch_deep").mkdir()
    with pytest.raises(natstats.UsageError, match=f"^checkpoint: expected a .*{re.escape(given)}"):
        find_checkpoints(checkpoints / given)


def test_what_the_steps_count():
    assert step_name(["Epoch1", "Epoch2"]) == "epoch"
    assert step_name(["iter1", "iter2"]) == "iteration"
    assert step_name(["ck1", "ck2"]) == "step"
    assert step_name(["epoch1", "best"]) == "checkpoint"
