"""Checkpoint files: the state dict in one, read without running any code that the file may hold."""

from __future__ import annotations

import builtins
import pickle
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from natstats.errors import NatstatsError, UsageError

__all__ = ["Checkpoint", "read_checkpoint"]

CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "network",
    "ema_state_dict",
    "state_dict_ema",
    "model_ema",
    "ema",
    "module",
)
"""Where training scripts put the weights, the first that is there first."""

_NOT_WEIGHTS = ("optim", "sched", "scaler", "rng", "args", "config", "callback", "loop", "hyper")


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


class _Unread:
    """Stands in for an object of a class that is not imported, and keeps what was its state."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def read_checkpoint(path: str | Path, key: str | None = None) -> Checkpoint:
    """Read the state dict in a file, without running any code that the file may hold.

    The state dict may stand bare or under one of :data:`CONTAINERS`, also one in another. A module
    that was saved whole is read, too. Objects of other classes, such as the settings of the
    training, are not made: an inert record stands in for each, and a note names the classes.

    Args:
        path: a ``.safetensors`` file, or one that :func:`torch.save` wrote.
        key: where the state dict is in the file, such as ``ema`` or ``models.student``; also the
            start of its keys, such as ``student`` for ``student.conv1.weight``.

    Raises:
        UsageError: there is nothing at `key`.
        NatstatsError: there is no such file, it cannot be read, it holds no state dict or several,
            or functions would have to be called to read it.
    """
    path = Path(path)
    if not path.is_file():
        raise NatstatsError(f"checkpoint: expected a file; there is none at {path}")
    content, unread = _content(path)
    notes = []
    try:
        content = _opened(content)
        if key is not None:
            state = _at(content, key, path)
        else:
            state, note = _found(content, path)
            notes += [note] if note else []
    except RecursionError as error:
        raise NatstatsError(
            f"checkpoint: expected a state dict; {path} holds entries inside one another without "
            "an end in sight"
        ) from error
    if unread:
        notes.append(
            f"objects in the checkpoint that are no weights were not read ({_few(unread, 3)})"
        )
    return Checkpoint(str(path), state, tuple(notes), _metadata(path))


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    import safetensors

    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _content(path: Path) -> tuple[Any, list[str]]:
    """What is in a file, and the classes of the objects that were not made."""
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            return safetensors.torch.load_file(path), []
        return _unpickled(path)
    except pickle.UnpicklingError as error:
        needed = re.search(r"GLOBAL (\S+)", str(error))
        reason = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split())[:120]
        raise NatstatsError(
            f"checkpoint: expected weights and plain data; {path} "
            + (
                f"needs {needed[1]} to be unpickled, and is refused because that can run any code"
                if needed
                else f"is damaged, or was not written by torch.save in its usual way: {reason}"
            )
        ) from error
    except NatstatsError:
        raise
    except Exception as error:
        if "TorchScript" in str(error):
            raise NatstatsError(
                f"checkpoint: expected a state dict; {path} is a TorchScript archive, which holds "
                "code; save the state_dict() of the Python module"
            ) from error
        reason = " ".join(str(error).split())[:160]
        if isinstance(error, LookupError | EOFError):  # of the unpickler, about its own state
            reason = "it is damaged, or was not written by torch.save"
        raise NatstatsError(
            f"checkpoint: expected a .pth, .pt or .safetensors file; "
            f"{path} cannot be read: {reason}"
        ) from error


def _unpickled(path: Path) -> tuple[Any, list[str]]:
    """Load with torch's restricted unpickler, with stand-ins for the classes it does not know."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # a file of torch before 1.6, or none at all: the loading below says it
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

    return type(name, (_Unread,), {"__new__": new, "__init__": lambda *a, **k: None})


def _opened(content: Any) -> Any:
    """The content with every module that was saved whole replaced by its state dict."""
    if isinstance(content, _Unread):
        state = getattr(content, "state", None)
        if isinstance(state, Mapping) and "_parameters" in state and "_modules" in state:
            return dict(_state_of(content, ""))
        return content
    if isinstance(content, Mapping):
        return {key: _opened(value) for key, value in content.items()}
    return content


def _state_of(module: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    state = getattr(module, "state", None)
    if not isinstance(state, Mapping):
        return
    passing = state.get("_non_persistent_buffers_set")
    passing = passing if isinstance(passing, set) else set()
    for kind in ("_parameters", "_buffers"):
        for name, value in _entries(state, kind):
            if isinstance(value, Tensor) and name not in passing:
                yield f"{prefix}{name}", value
    for name, child in _entries(state, "_modules"):
        yield from _state_of(child, f"{prefix}{name}.")


def _entries(state: Mapping[str, Any], kind: str) -> list[tuple[Any, Any]]:
    # A file may hold anything under these names.
    entries = state.get(kind)
    return list(entries.items()) if isinstance(entries, Mapping) else []


def _is_weight(value: Any) -> bool:
    """A tensor, or what a quantised layer has for one."""
    if isinstance(value, tuple) and value:
        return all(isinstance(part, Tensor) or part is None for part in value)
    return isinstance(value, Tensor | torch.dtype)


def _state_dict(content: Any) -> dict[str, Any] | None:
    """The content as a state dict, None where it is none."""
    if not isinstance(content, Mapping):
        return None
    state = {
        key: value for key, value in content.items() if isinstance(key, str) and _is_weight(value)
    }
    return state if any(isinstance(value, Tensor) for value in state.values()) else None


def _inside(content: Any, names: tuple[str, ...], place: str = "") -> dict[str, dict[str, Any]]:
    """State dicts below the entries `names`, also one in another, by their places."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        value = content.get(name) if isinstance(content, Mapping) else None
        if isinstance(value, Mapping):
            deeper = _inside(value, names, f"{place}{name}.")
            state = _state_dict(value)
            found |= deeper or ({} if state is None else {f"{place}{name}": state})
    return found


def _found(content: Any, path: Path) -> tuple[dict[str, Any], str | None]:
    """The state dict that a file is most likely meant for, and a note where there was a choice."""
    known = _inside(content, CONTAINERS)
    if known:
        place, *others = known
        note = None
        if others:
            note = (
                f"the weights are those under {place} in the checkpoint; it also has "
                f"{', '.join(others)} (--checkpoint-key)"
            )
        return known[place], note
    bare = _state_dict(content)
    if bare is not None:
        return bare, None
    if not isinstance(content, Mapping):
        raise NatstatsError(
            f"checkpoint: expected a state dict; {path} holds a {type(content).__name__}"
        )
    unnamed = {
        key: state
        for key, value in content.items()
        if (state := _state_dict(value)) and not any(word in str(key) for word in _NOT_WEIGHTS)
    }
    if len(unnamed) == 1:
        ((place, state),) = unnamed.items()
        return state, f"the weights are those under {place} in the checkpoint"
    if unnamed:
        raise NatstatsError(
            f"checkpoint: expected one state dict; {path} has several, under "
            f"{', '.join(map(str, unnamed))}; name one with --checkpoint-key"
        )
    entries = _few([str(key) for key in content]) or "no entry"
    raise NatstatsError(f"checkpoint: expected a state dict; {path} holds none (it has {entries})")


def _at(content: Any, key: str, path: Path) -> dict[str, Any]:
    """The state dict at a dotted place, or the keys that start with it."""
    place = content
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    if place is not None:
        inner = _inside(place, CONTAINERS)
        state = next(iter(inner.values()), None) or _state_dict(place)
        if state is not None:
            return state
    known = _inside(content, CONTAINERS)
    state = next(iter(known.values()), None) or _state_dict(content) or {}
    start = f"{key}."
    chosen = {name[len(start) :]: v for name, v in state.items() if name.startswith(start)}
    if not chosen:
        entries = _few([*known, *(str(k) for k in content)] if isinstance(content, Mapping) else [])
        entries = entries or "no entry"
        raise UsageError(
            f"checkpoint_key: expected where {path} has a state dict; got {key!r}, and it has "
            f"{entries}"
        )
    return chosen


def _few(names: list[str], most: int = 6) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
