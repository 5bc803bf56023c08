"""account.npz: read as it was written, and refused where it is not whole."""

from __future__ import annotations

import io
import json
import os
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.errors import NatstatsError
from natstats.runs.account_files import ACCOUNT, read_account, write_account


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 2),
        nn.ReLU(),
    )
    fields = natstats.power_law_fields(24, 16, 16, alpha=2.0, seed=0).reshape(8, 3, 16, 16)
    return natstats.measure(model, np.float32(fields), explain=True, n_groups=8)


@pytest.fixture
def folder(run, tmp_path):
    write_account(tmp_path, run.account_spectra)
    return tmp_path


def changed(folder, change):
    """The file again with its arrays changed by a function."""
    with np.load(folder / ACCOUNT) as file:
        arrays = dict(file)
    record = json.loads(arrays["record"].tobytes())
    change(arrays, record)
    if "record" in arrays and record is not None:
        arrays["record"] = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
    np.savez(folder / ACCOUNT, **arrays)


def test_what_was_written_is_read(run, folder):
    again, before = read_account(folder, 8), run.account_spectra
    assert again.every == before.every
    for one, other in zip(again.states, before.states, strict=True):
        assert np.allclose(one.power, other.power, rtol=1e-6)
        assert np.array_equal(one.count, other.count)
        assert (one.height, one.width, one.edges, one.span) == (
            other.height, other.width, other.edges, other.span
        )  # fmt: skip
    for one, other in zip(again.steps, before.steps, strict=True):
        plain = ("name", "kind", "operation", "module", "layers", "depth", "before", "after",
                 "is_trunk")  # fmt: skip
        assert [getattr(one, name) for name in plain] == [getattr(other, name) for name in plain]
        assert dict(one.predictions) == dict(other.predictions)
        assert np.allclose(one.kernel_exponent, other.kernel_exponent, equal_nan=True)
        if one.gaussian is not None:
            assert np.array_equal(one.gaussian.after, other.gaussian.after)


def test_a_run_without_one_has_none(tmp_path):
    assert read_account(tmp_path, 8) is None


CHANGES = {
    "an array is missing": (lambda a, r: a.pop("0001/power"), "0001/power: expected an array"),
    "another shape": (
        lambda a, r: a.update({"0001/power": a["0001/power"][:, 1:]}),
        r"0001/power: expected shape \(8, 8\)",
    ),
    "another number of groups": (
        lambda a, r: a.update({"0000/count": a["0000/count"][:5]}),
        r"0000/count: expected shape \(8,\)",
    ),
    "no number": (
        lambda a, r: a["0001/power"].__setitem__((0, 0), np.nan),
        "0001/power: expected finite numbers",
    ),
    "counts below zero": (lambda a, r: a["0000/count"].__setitem__(0, -1), "0000/count: expected"),
    "no record": (lambda a, r: a.pop("record"), "record: expected an array"),
    "a newer format": (lambda a, r: r.update(format=9), "written by a newer natstats"),
    "a step of an unknown state": (
        lambda a, r: r["steps"][0].update(after=999),
        r"steps\[0\]: expected states below",
    ),
    "a step without a name": (lambda a, r: r["steps"][0].pop("name"), r"steps\[0\].*name"),
    "a size of none": (lambda a, r: r["states"][0].update(height=0), r"states\[0\].*height"),
    "every of none": (lambda a, r: r.update(every=0), "every"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_what_is_wrong_with_a_file_is_said(folder, change, said):
    changed(folder, change)
    with pytest.raises(NatstatsError, match=f"expected a whole run in .*account.npz.*{said}"):
        read_account(folder, 8)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive"])
def test_what_is_no_archive_is_refused(folder, content):
    (folder / ACCOUNT).write_bytes(content)
    with pytest.raises(NatstatsError, match=r"account\.npz: expected arrays of numpy"):
        read_account(folder, 8)


def test_a_record_that_is_no_json_is_refused(folder):
    buffer = io.BytesIO()
    np.savez(buffer, record=np.frombuffer(b"{", dtype=np.uint8))
    (folder / ACCOUNT).write_bytes(buffer.getvalue())
    assert zipfile.is_zipfile(folder / ACCOUNT)
    with pytest.raises(NatstatsError, match="record: expected JSON"):
        read_account(folder, 8)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ACCOUNT)
    with pytest.raises(NatstatsError, match="a named pipe"):
        read_account(tmp_path, 8)
