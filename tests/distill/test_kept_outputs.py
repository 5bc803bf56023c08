"""What a cache holds of a teacher is what was written there, or the training stops and says so."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
import torch

from natstats.distill import distill
from natstats.distill.training.kept_outputs import KeptOutputs, OutputWriter
from natstats.errors import NatstatsError, UsageError

CPU = torch.device("cpu")
TOLD = r"teacher_cache: expected the teacher's outputs as they were written; .*for image \d+"
N, SHAPE = 6, (4, 8, 8)


def keep(folder, name, values):
    folder.mkdir(parents=True, exist_ok=True)
    with OutputWriter.opened(folder, name, values[:4], len(values)) as writer:
        for batch in values.split(4):
            writer.add(batch)
    return KeptOutputs.find(folder, name, len(values))


def values(seed=0, dtype=torch.float32):
    return torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_what_is_written_is_read(tmp_path, dtype):
    written = values(dtype=dtype)
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", written)
    places = torch.tensor([5, 0, 0, 3])
    found = kept.batch(places, CPU)
    assert found.dtype == dtype
    assert torch.equal(found, written[places])


def rows_of(path):
    raw = path.read_bytes()
    n_bytes = len(raw) - 4 * N
    return np.frombuffer(raw[:n_bytes], np.float32).reshape(N, *SHAPE).copy(), raw[n_bytes:]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: np.zeros_like(rows),
        lambda rows: rows[:, ::-1],
        lambda rows: rows[:, :, ::-1],
        lambda rows: np.roll(rows, 2),
        lambda rows: rows[[1, 0, *range(2, N)]],
        lambda rows: np.where(np.arange(SHAPE[0])[:, None, None] == 2, np.nan, rows),
    ],
    ids=["zeros", "channels reversed", "upside down", "shifted", "images exchanged", "NaN"],
)
def test_changed_numbers_are_told(tmp_path, change):
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", values())
    rows, sums = rows_of(kept.path)
    kept.path.write_bytes(change(rows).astype(np.float32).tobytes() + sums)
    with pytest.raises(NatstatsError, match=TOLD) as caught:
        KeptOutputs.find(kept.path.parent, "maps-a", N).batch(torch.arange(N), CPU)
    assert str(kept.path) in str(caught.value)


@pytest.mark.parametrize("place", [0, 41, 1023, -1])
def test_one_bit_is_told(tmp_path, place):
    """Whether it is in a number or in a checksum."""
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", values())
    raw = bytearray(kept.path.read_bytes())
    raw[place] ^= 1
    kept.path.write_bytes(raw)
    with pytest.raises(NatstatsError, match=TOLD):
        KeptOutputs.find(kept.path.parent, "maps-a", N).batch(torch.arange(N), CPU)


def test_a_file_of_holes_is_told(tmp_path):
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", values())
    n_bytes = kept.path.stat().st_size
    os.truncate(kept.path, 0)
    os.truncate(kept.path, n_bytes)
    with pytest.raises(NatstatsError, match=TOLD):
        KeptOutputs.find(kept.path.parent, "maps-a", N).batch(torch.arange(N), CPU)


@pytest.mark.parametrize(
    ("folder", "name"),
    [("key/main-0001", "maps-a"), ("other/main-0000", "maps-a"), ("key/main-0000", "maps-b")],
    ids=["other changes of the images", "another teacher", "another layer"],
)
def test_the_file_of_something_else_is_told(tmp_path, folder, name):
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", values())
    other = keep(tmp_path / folder, name, values(1))
    shutil.copy(other.path, kept.path)
    with pytest.raises(NatstatsError, match=TOLD):
        KeptOutputs.find(kept.path.parent, "maps-a", N).batch(torch.arange(N), CPU)


def test_another_shape_of_the_same_length_is_told(tmp_path):
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", values())
    kept.path.rename(kept.path.with_name(kept.path.name.replace("6x4x8x8", "6x8x4x8")))
    with pytest.raises(NatstatsError, match=TOLD):
        KeptOutputs.find(kept.path.parent, "maps-a", N).batch(torch.arange(N), CPU)


def test_a_file_that_is_cut_or_gone_meanwhile_is_told(tmp_path):
    kept = keep(tmp_path / "key" / "main-0000", "maps-a", values())
    os.truncate(kept.path, 100)
    with pytest.raises(NatstatsError, match=TOLD):
        kept.batch(torch.arange(N), CPU)
    kept.path.unlink()
    with pytest.raises(NatstatsError, match=r"outputs in .*; No such file .*same command again"):
        kept.batch(torch.arange(N), CPU)


@pytest.mark.parametrize("name", ["a" * 250, "\udc80", "~", "a/b*[c]", "é" * 80])
def test_any_name_of_a_layer_makes_a_file(tmp_path, name):
    written = values()
    kept = keep(tmp_path / "key" / "main-0000", f"maps-{name}", written)
    assert torch.equal(kept.batch(torch.arange(N), CPU), written)
    assert KeptOutputs.find(kept.path.parent, f"maps-{name}x", N) is None


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stem"), [("kd", "scores"), ("at", "maps")])
@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_training_stops_at_a_changed_file_and_makes_a_removed_one_again(
    method, stem, amp, setup_of, data, teacher, recipe, tmp_path
):
    def train(name):
        setup = setup_of(data, teacher, method, recipe=recipe.changed(amp=amp))
        return distill(setup, tmp_path / name, report=False, teacher_cache=tmp_path / "cache")

    train("whole")
    path = min((tmp_path / "cache").rglob(f"{stem}*.bin"))
    raw = path.read_bytes()
    path.write_bytes(bytes([raw[0] ^ 1]) + raw[1:])
    with pytest.raises(NatstatsError, match=TOLD):
        train("again")
    path.unlink()
    train("again")
    assert path.read_bytes() == raw


@pytest.mark.slow
def test_a_damaged_probe_is_not_replaced_by_the_scores_of_whatever_teacher(
    setup_of, data, teacher, tmp_path
):
    options = {"report": False, "teacher_cache": tmp_path / "cache"}
    distill(setup_of(data, teacher), tmp_path / "a", **options)
    (probe,) = (tmp_path / "cache").rglob("probe.npy")
    probe.write_bytes(b"damaged")
    with pytest.raises(UsageError, match="teacher_cache: expected the scores that tell the teach"):
        distill(setup_of(data, teacher), tmp_path / "b", **options)
