"""A file is there whole or not at all, whoever writes beside."""

from __future__ import annotations

import pytest

from natstats.files.whole_files import whole_file


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "scores"
    with whole_file(path) as one, whole_file(path) as other:
        for writer in (one, other):
            writer.write(bytes(24))
    assert [found.stat().st_size for found in tmp_path.iterdir()] == [24]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_is_cut_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "scores"
    path.write_bytes(b"before")
    with pytest.raises(error), whole_file(path) as file:
        file.write(b"half")
        raise error
    assert [found.read_bytes() for found in tmp_path.iterdir()] == [b"before"]
