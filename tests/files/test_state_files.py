"""States come back as they were; what is damaged or hostile is refused with a sentence."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save

from natstats.errors import NatstatsError
from natstats.files.state_files import read_state, state_in_bytes, write_state

STATE = {
    "n": 3,
    "text": "a\nb",
    "none": None,
    "values": [1.5, float("nan"), float("inf"), True],
    "layers": [{"sums": np.arange(6.0).reshape(2, 3), "key": ["conv", 0, ""]}],
    "bytes": np.arange(4, dtype=np.uint8),
    "empty": np.zeros((0, 32), np.uint8),
    "numbers": np.array([2**40], np.int64),
}


def test_a_state_comes_back(tmp_path):
    write_state(tmp_path / "s", STATE)
    found = read_state(tmp_path / "s")
    np.testing.assert_equal(found, STATE)
    assert found["layers"][0]["sums"].dtype == np.float64
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_any_change_of_a_byte_is_noticed(tmp_path):
    content = bytearray(state_in_bytes(STATE))
    for place in range(0, len(content), 7):
        damaged = content.copy()
        damaged[place] ^= 1
        (tmp_path / "s").write_bytes(damaged)
        with pytest.raises(NatstatsError, match="state: expected a whole file that natstats wrote"):
            read_state(tmp_path / "s")


def deep(n: int) -> str:
    return "[" * n + "]" * n


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 8, b"x" * 100, (2**40).to_bytes(8, "little") + b"{}",
        save({"a": np.ones(2)}),
        save({"natstats.state": np.frombuffer(b"[1]", np.uint8)}),
        save({"natstats.state": np.frombuffer(deep(100_000).encode(), np.uint8)}),
        save({"natstats.state": np.frombuffer(
            json.dumps({"a": {"natstats.array": "missing"}}).encode(), np.uint8)}),
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(NatstatsError, match="state: expected"):
        read_state(tmp_path / "s")


@pytest.mark.parametrize("begin", [b"", state_in_bytes(STATE)])
def test_a_terabyte_of_holes_is_refused_unread(tmp_path, begin):
    (tmp_path / "s").write_bytes(begin)
    os.truncate(tmp_path / "s", 2**40)
    with pytest.raises(NatstatsError, match="no head|tells of .* bytes, and it has 1099511627776"):
        read_state(tmp_path / "s")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "s")
    with pytest.raises(NatstatsError, match="state: expected"):
        read_state(tmp_path / "s")
