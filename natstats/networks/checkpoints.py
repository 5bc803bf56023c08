"""Reading the state dict in a checkpoint file, without running any code that the file may hold."""

from __future__ import annotations

import builtins
import pickle
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular
from natstats.files.torch_files import is_spread, refuse_packed
from natstats.networks.state_dicts import (
    CONTAINERS,
    EndlessError,
    Unread,
    opened,
    state_at,
    state_in,
)
from natstats.text import few, printable

__all__ = ["CONTAINERS", "Checkpoint", "read_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """The weights in a file.

    Attributes:
        source: the file.
        state: tensors by key, as they are in the file; of a quantised layer, its packed parameters.
        notes: what a reader of the results must know of how they were found.
        metadata: what a ``.safetensors`` file says beside them, by name.
    """

    source: str
    state: dict[str, Any]
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read the state dict in a file, without running any code that the file may hold.

    The state dict may be all of the content, or stand under one of :data:`CONTAINERS`, also one in
    another. A module that was saved whole is read, too. Objects of other classes, such as the
    settings of the training, are not created: an inert record stands in for each, and a note names
    the classes.

    Args:
        path: a ``.safetensors`` file, or one that :func:`torch.save` wrote.
        key: where the state dict is in the file, such as ``ema`` or ``models.student``; also the
            start of its keys, such as ``student`` for ``student.conv1.weight``.

    Raises:
        UsageError: there is no such file, or nothing in it at `key`.
        NatstatsError: it cannot be read, it holds no state dict or several,
            or functions would have to be called to read it.
    """
    path = Path(path)
    try:
        open_regular(path).close()
    except FileNotFoundError:
        raise UsageError(
            f"checkpoint: expected a file; there is none at {printable(path)}"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NatstatsError(
            f"checkpoint: expected a file; there is none at {printable(path)} that can be opened "
            f"({reason})"
        ) from None
    content, unread = _content(path)
    notes = []
    try:
        content = opened(content)
        if key is not None:
            state = state_at(content, key, path)
        else:
            state, note = state_in(content, path)
            notes += [note] if note else []
    except (RecursionError, EndlessError) as error:
        raise NatstatsError(
            f"checkpoint: expected a state dict; {printable(path)} holds entries inside one "
            "another without an end in sight"
        ) from error
    for name, value in state.items():
        if is_spread(value):
            raise NatstatsError(
                f"checkpoint: expected tensors no larger than their file; {printable(name)} in "
                f"{printable(path)} has the shape {tuple(value.shape)} for fewer numbers"
            )
    if unread:
        notes.append(f"objects in the checkpoint that are no weights were not read ({few(unread)})")
    return Checkpoint(str(path), state, tuple(notes), _metadata(path))


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _content(path: Path) -> tuple[Any, list[str]]:
    """What is in a file, and the classes of the objects that were not created."""
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path), []
        with open_regular(path) as file:
            refuse_packed(file)
        return _unpickled(path)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        raise NatstatsError(
            f"checkpoint: expected weights and plain data; {printable(path)} "
            + (
                f"needs {printable(needed[1])} to be unpickled, and is refused because that can "
                "run any code"
                if needed
                else "is damaged, or was not written by torch.save in its usual way"
            )
        ) from error
    except NatstatsError:
        raise
    except Exception as error:
        if "TorchScript" in str(error):
            raise NatstatsError(
                f"checkpoint: expected a state dict; {printable(path)} is a TorchScript archive, "
                "which holds code; save the state_dict() of the Python module"
            ) from error
        reason = shorten(printable(" ".join(str(error).split())), 160, placeholder=" ...")
        if isinstance(error, LookupError | EOFError):  # of the unpickler, about its own state
            reason = "it is damaged, or was not written by torch.save"
        raise NatstatsError(
            f"checkpoint: expected a .pth, .pt or .safetensors file; "
            f"{printable(path)} cannot be read: {reason}"
        ) from error


def _unpickled(path: Path) -> tuple[Any, list[str]]:
    """Load with torch's restricted unpickler, with stand-ins for the classes it does not know."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # a file of torch before 1.6, or a damaged one: loading it below raises
        names = []
    for name in names:
        home, _, what = name.rpartition(".")
        if home == "builtins" and not isinstance(getattr(builtins, what, None), type):
            raise pickle.UnpicklingError(f"GLOBAL {name}")
    mappings = {"collections.defaultdict"}
    while True:
        stand_ins: list[Any] = [(_stand_in(name, name in mappings), name) for name in names]
        try:
            with torch.serialization.safe_globals(stand_ins):
                content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # The unpickler puts items into real mappings only: find out which class is one.
            found = [n for n in names if f"'{__name__}.{n}'" in str(error) and n not in mappings]
            if "SETITEM" not in str(error) or not found:
                raise
            mappings.update(found)
        else:
            return content, names


def _stand_in(name: str, is_mapping: bool) -> type:
    """A class for the objects of the class `name`, which is neither imported nor called."""

    def new(cls: type, *arguments: Any, **named: Any) -> Any:
        # Of the mappings that the unpickler knows, a Counter also takes the state of a subclass.
        return Counter() if is_mapping else object.__new__(cls)

    return type(name, (Unread,), {"__new__": new, "__init__": lambda *a, **k: None})
