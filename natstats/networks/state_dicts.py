"""Finding the weights in what a checkpoint file holds: state dicts at any depth, by their places.

A small file can refer to one object many times: what is shared is visited once, and nothing here
recurses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from natstats.errors import NatstatsError, UsageError
from natstats.text import few, printable

__all__ = [
    "CONTAINERS",
    "WRAPPERS",
    "EndlessError",
    "Unread",
    "opened",
    "state_at",
    "state_in",
]

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
"""Keys under which training scripts put the weights; of several, the first one here counts."""

_MOST_MODULES, _DEEPEST = 20_000, 200
"""Most modules and levels in one that was saved whole: a few bytes can repeat one endlessly."""

_NOT_WEIGHTS = ("optim", "sched", "scaler", "rng", "args", "config", "callback", "loop", "hyper")

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of keys that wrappers around a network, or around parts of it, leave."""


class EndlessError(Exception):
    """Entries stand inside themselves, and so never end."""


class Unread:
    """Stands in for an object of a class that is not imported, and keeps its state."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


def opened(content: Any) -> Any:
    """The content with every module that was saved whole replaced by its state dict.

    A shared object is opened once, and stays shared; one that is inside itself stays so.
    """
    done: dict[int, Any] = {}
    result: dict[str, Any] = {}
    todo: list[tuple[dict[Any, Any], Any, Any]] = [(result, "", content)]
    while todo:
        parent, key, value = todo.pop()
        if id(value) not in done and isinstance(value, Unread):
            done[id(value)] = _opened_module(value)
        elif id(value) not in done and isinstance(value, Mapping):
            # Reversed, as the stack turns the order of the file round.
            done[id(value)] = copied = dict.fromkeys(value)
            todo += [(copied, name, inner) for name, inner in reversed([*value.items()])]
        parent[key] = done.get(id(value), value)
    return result[""]


def _opened_module(content: Unread) -> Any:
    state = getattr(content, "state", None)
    if isinstance(state, Mapping) and "_parameters" in state and "_modules" in state:
        return dict(_state_of(content))
    return content


def _state_of(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors of a module and of those in it, by their dotted names."""
    todo = [("", module, 0)]
    for _ in range(_MOST_MODULES):
        if not todo:
            return
        prefix, module, depth = todo.pop()
        if depth > _DEEPEST:
            break
        state = getattr(module, "state", None)
        if not isinstance(state, Mapping):
            continue
        passing = state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        for kind in ("_parameters", "_buffers"):
            for name, value in _entries(state, kind):
                if isinstance(value, Tensor) and name not in passing:
                    yield f"{prefix}{name}", value
        todo += [
            (f"{prefix}{name}.", child, depth + 1)
            for name, child in reversed(_entries(state, "_modules"))
        ]
    raise EndlessError


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


def _walked(content: Any) -> dict[str, dict[str, Any]]:
    """All state dicts in a file by their dotted places; what is shared is visited once."""
    found: dict[str, dict[str, Any]] = {}
    seen: set[int] = set()
    states: dict[int, dict[str, Any] | None] = {}
    todo: list[tuple[str, Any]] = [("", content)]
    while todo:
        place, value = todo.pop()
        if not isinstance(value, Mapping):
            continue
        if id(value) not in states:
            states[id(value)] = _state_dict(value)
        state = states[id(value)]
        if state is not None:
            found[place] = state
        if id(value) in seen:
            continue
        seen.add(id(value))
        names = [name for name in value if isinstance(name, str | int)][::-1]
        todo += [
            (f"{place}.{name}" if place else str(name), value[name])
            for name in sorted(names, key=_by_container, reverse=True)
            if isinstance(value[name], Mapping)
        ]
    return found


def _by_container(name: Any) -> int:
    return CONTAINERS.index(name) if name in CONTAINERS else len(CONTAINERS)


def state_in(content: Any, path: Path) -> tuple[dict[str, Any], str | None]:
    """The state dict that a file is most likely meant for, and a note where there was a choice."""
    walked = _walked(content)
    inside = {place: s for place, s in walked.items() if {*place.split(".")} <= {*CONTAINERS}}
    # A place that holds another has no state dict itself, but counters or the like.
    known = {
        place: state
        for place, state in inside.items()
        if not any(other.startswith(f"{place}.") for other in inside)
    }
    if known:
        place, *others = known
        note = None
        if others:
            note = (
                f"the weights are those under {place} in the checkpoint; it also has "
                f"{', '.join(others)} (--checkpoint-key)"
            )
        return _joined(_below(walked, place)), note
    if not isinstance(content, Mapping):
        raise NatstatsError(
            f"checkpoint: expected a state dict; {printable(path)} holds a {type(content).__name__}"
        )
    unnamed = _below(walked, "")
    if len(unnamed) == 1:
        ((place, state),) = unnamed.items()
        return state, f"the weights are those under {printable(place)} in the checkpoint" * (
            place != ""
        )
    if len({frozenset(state) for state in unnamed.values()}) == 1:
        raise NatstatsError(
            f"checkpoint: expected one state dict; {printable(path)} has several, under "
            f"{few([*unnamed], 6)}; name one with --checkpoint-key"
        )
    if unnamed:
        # Which of them is the network's is told by its keys and shapes.
        return _joined(unnamed), None
    if _is_endless(content):
        raise EndlessError
    entries = few([str(key)[:200] for key in content], 6) or "no entry"
    raise NatstatsError(
        f"checkpoint: expected a state dict; {printable(path)} holds none (it has {entries})"
    )


def _below(walked: Mapping[str, dict[str, Any]], place: str) -> dict[str, dict[str, Any]]:
    """The state dicts at a place and below it, but for those of optimizers and the like."""
    found = {}
    for where, state in walked.items():
        below = where.removeprefix(place).removeprefix(".")
        is_below = where == place or not place or where.startswith(f"{place}.")
        if is_below and not any(word in below for word in _NOT_WEIGHTS):
            found[below] = state
    return found


def _joined(states: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Several state dicts as one, each key after its place."""
    return {
        f"{place}.{key}" if place else key: value
        for place, state in states.items()
        for key, value in state.items()
    }


def _is_endless(content: Any) -> bool:
    """Whether a mapping is inside itself."""
    todo: list[tuple[Any, bool]] = [(content, True)]
    around: set[int] = set()
    seen: set[int] = set()
    while todo:
        value, is_entered = todo.pop()
        if not is_entered:
            around.discard(id(value))
        elif id(value) in around:
            return True
        elif id(value) not in seen:
            seen.add(id(value))
            around.add(id(value))
            todo.append((value, False))
            todo += [(inner, True) for inner in value.values() if isinstance(inner, Mapping)]
    return False


def state_at(content: Any, key: str, path: Path) -> dict[str, Any]:
    """The state dict at a dotted place, or the keys that start with it.

    Where nothing stands at `key` itself, it is looked for within places and keys: first where only
    containers and wrappers stand in front, else anywhere, where it must be found only once.
    """
    place = content
    for part in key.split("."):
        place = place.get(part) if isinstance(place, Mapping) else None
    if place is not None:
        walked = _walked(place)
        inside = [
            s for where, s in walked.items() if where and {*where.split(".")} <= {*CONTAINERS}
        ]
        state = next(iter(inside), None) or walked.get("")
        if state is not None:
            return state
    walked = _walked(content)
    if place is not None:  # it holds state dicts under names that are not in CONTAINERS
        walked = _walked({key: place})
    names = _joined(_below(walked, ""))
    starts: dict[str, tuple[bool, str]] = {}
    parts = key.split(".")
    for name in names:
        pieces = name.split(".")
        for end in range(len(parts), len(pieces)):
            if pieces[end - len(parts) : end] == parts:
                before = pieces[: end - len(parts)]
                start = ".".join(pieces[:end])
                starts[start] = ({*before} <= {*CONTAINERS, *WRAPPERS}, start)
                break
    plain = [start for start, (is_plain, _) in starts.items() if is_plain] or [*starts]
    if len(plain) > 1 and any(starts[start][0] for start in plain):
        plain = plain[:1]  # the container that comes first, as without a key
    if len(plain) > 1:
        raise UsageError(
            f"checkpoint_key: expected one place in {printable(path)}; got {printable(key)!r}, and "
            f"it is in {few(plain, 6)}"
        )
    if not plain:
        entries = few([where for where in walked if where] + _tops(names), 6) or "no entry"
        raise UsageError(
            f"checkpoint_key: expected where {printable(path)} has a state dict; got "
            f"{printable(key)!r}, and it has {entries}"
        )
    return {n[len(plain[0]) + 1 :]: v for n, v in names.items() if n.startswith(f"{plain[0]}.")}


def _tops(names: Iterable[str]) -> list[str]:
    """The first parts of keys that are no containers or wrappers."""
    around = {*CONTAINERS, *WRAPPERS}
    parts = ([part for part in name.split(".") if part not in around] for name in names)
    return list(dict.fromkeys(part[0] for part in parts if part))
