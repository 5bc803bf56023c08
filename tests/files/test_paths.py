"""What others may have made: opened only if it is a file, named only below its folder."""

import os
import socket

import pytest

from natstats.errors import NatstatsError
from natstats.files.paths import is_plain_name, open_regular, plain_name, read_regular


def test_a_file_and_a_link_to_one_are_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "a") == read_regular(tmp_path / "b") == b"abc"


def test_what_is_no_file_is_named_and_nothing_waits(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    try:
        listening.bind(str(tmp_path / "socket"))
        for name, kind in (("pipe", "named pipe"), ("link", "named pipe"), (".", "folder")):
            with pytest.raises(OSError, match=kind):
                open_regular(tmp_path / name)
        with pytest.raises(OSError, match="socket"):
            open_regular(tmp_path / "socket")
    finally:
        listening.close()
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["epoch_1", "...", "a b", "-x", "café"])
def test_plain_names_pass(name):
    assert plain_name(name, "f.json, name") == name


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc", "..\\a", "a\0", None, 3, ["a"]])
def test_paths_and_what_is_no_text_are_refused(name):
    assert not is_plain_name(name)
    with pytest.raises(NatstatsError, match=r"^f\.json, name: expected a plain name; got"):
        plain_name(name, "f.json, name")
