"""Changes that a foe or a broken disk may have made to a file: of its bytes, or of what it says.

A file that can be taken apart is changed at one place of what it holds and put together again, with
all its digests right; every file is changed in its bytes, too.
"""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["CODECS", "HOSTILE_TEXTS", "Code", "Codec", "bytes_changed", "values_changed"]

HOSTILE_TEXTS = (
    "", " ", "\x00", "a\x1b[2J\nError: all is lost", "\u202egnp.exe", "=cmd|'/C calc'!A1",
    "../../x", "/etc/passwd", "<script>alert(1)</script>", "{{7*7}}", "\ud800", "x" * 5000,
    "1e999", "nan", "9" * 5000, "~nobody/x", "CON", "%s%n", "a" * 255, "\uff1d1+1", "-", "--help",
)  # fmt: skip

_NUMBERS = (
    0, 1, -1, 2, 5, 1000, 2**16, 2**20, 2**31 - 1, 2**31, 2**40, 2**53, 2**62, 2**63, 2**64, 10**30,
    10**400, -(2**63), 0.5, -0.0, 1e-320, 1e300, float("nan"), float("inf"), -float("inf"),
)  # fmt: skip


def _deep(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def _hostile(choose: random.Random) -> Any:
    """A value that nobody expects."""
    made: tuple[Callable[[], Any], ...] = (
        lambda: choose.choice(_NUMBERS),
        lambda: choose.choice(HOSTILE_TEXTS),
        lambda: choose.choice([None, True, False]),
        lambda: choose.choice([[], {}, [None], {"a": 1}, [[1, 2], [3]]]),
        lambda: _deep(choose.choice([3, 50, 900])),
        lambda: [0] * choose.choice([1, 100, 20_000]),
        lambda: dict.fromkeys(HOSTILE_TEXTS, 1),
        lambda: _array(choose),
    )
    return choose.choice(made)()


def _array(choose: random.Random) -> np.ndarray[Any, Any]:
    shape = choose.choice([(), (0,), (1,), (3,), (128, 7), (2, 0, 3), (1,) * 20, (4, 4, 4, 4, 4)])
    kind = choose.choice(["<f8", "<f4", "<i8", "|u1", "<f2", "|b1", ">f8", "<c16", "<u8"])
    fill = choose.choice([0, 1, 3.5, np.nan, np.inf, -1e300, 2**62])
    with np.errstate(all="ignore"):
        return np.full(shape, np.complex128(fill).real).astype(kind)


def _changed_array(array: np.ndarray[Any, Any], choose: random.Random) -> Any:
    with np.errstate(all="ignore"):
        ways: tuple[Callable[[], Any], ...] = (
            lambda: array.reshape(-1),
            lambda: array[:-1] if array.ndim and len(array) else array[None],
            lambda: np.concatenate([array, array]) if array.ndim else array[None],
            lambda: array.astype(choose.choice(["<f8", "<f4", "<i8", "|u1", "|b1", ">f8", "<c16"])),
            lambda: np.full_like(array, np.nan) if array.dtype.kind == "f" else -array,
            lambda: np.full(array.shape, 1e308) if array.dtype.kind == "f" else array + 2**62,
            lambda: array[..., None],
            lambda: array.T,
            lambda: -array if array.dtype.kind != "b" else ~array,
            lambda: _array(choose),
        )
        return choose.choice(ways)()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inner = list(enumerate(value))[:20]
    for name, own in inner:
        yield from _places(own, (*path, name))


def values_changed(value: Any, choose: random.Random) -> Any:
    """The same with one place changed: another value, none, one more, or another name."""
    changed = _changed(value, choose.choice([*_places(value)]), choose)
    return {} if changed is _GONE or changed is _RENAMED else changed


_GONE, _RENAMED = object(), object()


def _changed(value: Any, place: tuple[Any, ...], choose: random.Random) -> Any:
    if not place:
        return _replaced(value, choose)
    name = place[0]
    own = _changed(value[name], place[1:], choose)
    if isinstance(value, dict):
        if own is _GONE:
            return {key: one for key, one in value.items() if key != name}
        if own is _RENAMED:
            new = choose.choice([*HOSTILE_TEXTS, *map(str, value)])
            return {(new if key == name else key): one for key, one in value.items()}
        return {**value, name: own}
    copied = list(value)
    copied[name : name + 1] = [] if own is _GONE or own is _RENAMED else [own]
    return copied


def _replaced(value: Any, choose: random.Random) -> Any:
    way = choose.randrange(6)
    if way < 2:
        return (_GONE, _RENAMED)[way]
    if isinstance(value, np.ndarray) and way < 5:
        return _changed_array(value, choose)
    if isinstance(value, list) and value and way < 4:
        return choose.choice([value + value, value[:-1], value * 300, value[::-1]])
    if isinstance(value, dict) and value and way < 4:
        return {**value, choose.choice(HOSTILE_TEXTS): choose.choice([*value.values()])}
    return _hostile(choose)


def bytes_changed(content: bytes, choose: random.Random) -> bytes:
    """The same with some bytes flipped, cut out, doubled, or put in."""
    changed = bytearray(content)
    for _ in range(choose.choice([1, 1, 1, 2, 5, 30])):
        if not changed:
            break
        # Heads and tails of files say what the rest is.
        start = choose.choice([0, choose.randrange(len(changed)), max(0, len(changed) - 200)])
        place = min(len(changed) - 1, start + choose.randrange(200))
        length = choose.choice([1, 2, 4, 8, 100, 5000])
        way = choose.randrange(7)
        if way == 0:
            changed[place] ^= 1 << choose.randrange(8)
        elif way == 1:
            changed[place] = choose.choice([0, 1, 127, 128, 255])
        elif way == 2:
            del changed[place : place + length]
        elif way == 3:
            del changed[place:]
        elif way == 4:
            source = choose.randrange(len(changed))
            changed[place:place] = changed[source : source + length]
        elif way == 5:
            changed[place : place + 8] = choose.choice(
                [b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f" * 2, (2**40).to_bytes(8, "little")]
            )
        else:
            changed[place:place] = choose.randbytes(min(length, 100))
    return bytes(changed)


class Code:
    """Makes a folder when it is unpickled in the usual way: a sign that a file's code was run."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.mkdir, (self.path,)


@dataclass(frozen=True)
class Codec:
    """How a kind of file is taken apart and put together again.

    Attributes:
        taken: its bytes as plain values and arrays.
        made: the inverse; raises where values cannot be written so.
    """

    taken: Callable[[bytes], Any]
    made: Callable[[Any], bytes]


def _npz(value: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **value)  # what is no array is pickled
    return buffer.getvalue()


def _arrays_of(content: bytes) -> Any:
    with np.load(io.BytesIO(content)) as found:
        return {name: found[name] for name in found.files}


def _headers_of(content: bytes) -> Any:
    """What the heads of arrays in an archive say, beside their bytes."""
    found = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            found[name] = _npy_taken(archive.read(name))
    return found


def _with_headers(value: Any) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, own in value.items():
            archive.writestr(name, _npy_made(own))
    return buffer.getvalue()


def _npy_taken(content: bytes) -> dict[str, Any]:
    file = io.BytesIO(content)
    np.lib.format.read_magic(file)
    shape, order, kind = np.lib.format.read_array_header_1_0(file)
    head = {"descr": kind.str, "fortran_order": order, "shape": [*shape]}
    return {"head": head, "data": np.frombuffer(file.read(), np.uint8)}


def _npy_made(value: dict[str, Any]) -> bytes:
    head = dict(value["head"])
    if isinstance(head.get("shape"), list):
        head["shape"] = tuple(head["shape"])
    text = repr(head).encode("utf-8", "replace").ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + value["data"].tobytes()


def _safetensors_taken(content: bytes) -> Any:
    length = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + length])
    return {"head": head, "data": np.frombuffer(content[8 + length :], np.uint8)}


def _safetensors_made(value: Any) -> bytes:
    head = json.dumps(value["head"]).encode()
    return len(head).to_bytes(8, "little") + head + value["data"].tobytes()


def _state_taken(content: bytes) -> Any:
    from natstats.files.state_files import state_from_bytes

    return state_from_bytes(content)


def _state_made(value: Any) -> bytes:
    from natstats.files.state_files import state_in_bytes

    return state_in_bytes(value)


def _torch_taken(content: bytes) -> Any:
    import torch

    return _numpy(torch.load(io.BytesIO(content), weights_only=True))


def _numpy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _numpy(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [_numpy(own) for own in value]
    return value.numpy() if hasattr(value, "numpy") else value


def _torch_made(value: Any, is_zip: bool = True) -> bytes:
    import torch

    def with_tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: with_tensors(own) for name, own in value.items()}
        if isinstance(value, list):
            return [with_tensors(own) for own in value]
        if isinstance(value, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(value).copy())
        return value

    buffer = io.BytesIO()
    torch.save(with_tensors(value), buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def _csv_made(value: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(value)
    return text.getvalue().encode("utf-8", "surrogatepass")


def _json_made(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


_TAR_FIELDS = {
    "name": (0, 100), "mode": (100, 8), "uid": (108, 8), "gid": (116, 8), "size": (124, 12),
    "mtime": (136, 12), "type": (156, 1), "linkname": (157, 100), "magic": (257, 8),
    "prefix": (345, 155),
}  # fmt: skip


def _tar_taken(content: bytes) -> Any:
    found, place = [], 0
    while content[place : place + 1].strip(b"\0"):
        head = {n: content[place + a : place + a + k].decode() for n, (a, k) in _TAR_FIELDS.items()}
        length = -(-int(head["size"].strip("\0 "), 8) // 512) * 512
        data = np.frombuffer(content[place + 512 : place + 512 + length], np.uint8)
        found.append({"head": head, "data": data})
        place += 512 + length
    return found


def _tar_made(value: Any) -> bytes:
    content = bytearray()
    for one in value:
        head = bytearray(512)
        for name, (start, length) in _TAR_FIELDS.items():
            text = one["head"].get(name, "")
            if isinstance(text, int) and abs(text) < 2**63:  # large numbers are written so
                own = b"\x80" + text.to_bytes(length - 1, "big", signed=True)
            else:
                own = str(text).encode("utf-8", "surrogatepass")
            head[start : start + length] = own[:length].ljust(length, b"\0")
        head[148:156] = b" " * 8
        head[148:156] = b"%06o\0 " % sum(head)
        content += head + one["data"].tobytes()
    return bytes(content) + bytes(1024)


CODECS: dict[str, tuple[Codec, ...]] = {
    "json": (Codec(json.loads, _json_made),),
    "csv": (Codec(lambda c: [*csv.reader(io.StringIO(c.decode()))], _csv_made),),
    "npz": (Codec(_arrays_of, _npz), Codec(_headers_of, _with_headers)),
    "npy": (Codec(_npy_taken, _npy_made),),
    "safetensors": (Codec(_safetensors_taken, _safetensors_made),),
    "state": (Codec(_state_taken, _state_made), Codec(_safetensors_taken, _safetensors_made)),
    "tar": (Codec(_tar_taken, _tar_made),),
    "torch": (Codec(_torch_taken, _torch_made),),
    "legacy": (Codec(_torch_taken, lambda value: _torch_made(value, is_zip=False)),),
}
"""How files are taken apart, by the kind of file; of any other only the bytes are changed."""
