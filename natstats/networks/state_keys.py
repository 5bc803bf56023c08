"""Matching keys: where in a state dict a network is, and what other code calls its parts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from natstats.errors import NatstatsError
from natstats.networks.builders import COUNTER, Classifier
from natstats.networks.state_dicts import WRAPPERS
from natstats.numbers import counted
from natstats.text import few, printable

__all__ = [
    "BOOKKEEPING",
    "Located",
    "is_auxiliary",
    "is_beside",
    "locate",
    "shape_of",
    "with_classifier",
]

BOOKKEEPING = (COUNTER, "n_averaged")
"""Counters of the training: old files lack the one, and averaging adds the other."""

_BESIDE = re.compile(
    r"(decoder|mask_token|queue|project|proj_head|predict|prototype|momentum|teacher|target|ema"
    r"|criterion|loss|metric|dino_head|ibot_head)"
)
"""Starts of names of parts that trainings put beside a network, unused in its forward pass."""

_NO_CLASSIFIER = ("proj", "pred", "queue", "prototype", "momentum", "embed", "center")
"""In the names of linear layers that are no classifiers, whatever their shape."""


@dataclass(frozen=True)
class Located:
    """A network's part of a state dict.

    Attributes:
        state: weights under the network's own keys, and what else stood among them.
        outside: weights whose keys did not have the network's start, by their whole keys.
        start: start that was taken off the keys.
        notes: on keys that were renamed or carried over.
    """

    state: dict[str, Any]
    outside: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    notes: tuple[str, ...] = ()

    def all_notes(self) -> list[str]:
        """What a reader must know of how the keys were brought to the network's."""
        if not self.start:
            return list(self.notes)
        note = f"{printable(self.start)} was taken off the keys of the checkpoint"
        left = [key for key in self.outside if not key.endswith(BOOKKEEPING)]
        if left:
            were = counted(len(left), "key without it was", "keys without it were")
            note += f"; {were} left out ({few(left)})"
        return [note, *self.notes]


def shape_of(value: Any) -> Any:
    """Shape of a tensor, or of the tensors that a quantised layer packs; None of anything else."""
    if isinstance(value, tuple):
        return tuple(shape_of(part) for part in value)
    return tuple(value.shape) if isinstance(value, Tensor) else None


def is_auxiliary(key: str) -> bool:
    """Whether a key is of a classifier that helps in training only, as torchvision names it."""
    return key.lower().startswith(("aux1.", "aux2.", "auxlogits.", "aux_classifier."))


def is_beside(key: str, own: Collection[str]) -> bool:
    """Whether a key that the network lacks is, by its name, of something that stands beside it.

    >>> is_beside("decoder_blocks.0.norm1.weight", ["blocks.0.norm1.weight"])
    True
    >>> is_beside("layer5.weight", ["layer4.weight"])
    False
    """
    top = key.split(".")[0]
    return bool(_BESIDE.match(top)) and all(name.split(".")[0] != top for name in own)


def locate(own: Mapping[str, Any], state: Mapping[str, Any], source: str) -> Located:
    """Find a network in a state dict, by keys and shapes.

    What data parallelism, compilation and sharding add to keys is taken off wherever it stands.
    Then the start that all keys of the network have in the file (``model.``, ``student.backbone.``)
    is found by matching: the one under which most keys have their shape. Another start
    that lacks at most one layer of these, such as the classifier, counts as fitting equally well.
    Keys that differ in dots, underscores, capitals or a level of numbering are brought to the
    network's (``norm.1`` to ``norm1``, ``blocks.0.3`` to ``blocks.3``), where the shape is the same
    and there is no choice.

    Args:
        own: state dict of the network.
        state: state dict of the checkpoint.
        source: the file, for an error.

    Raises:
        NatstatsError: several networks in the file fit equally well.
    """
    bare = _without_wrappers(own, state)
    hits: Counter[str] = Counter()
    fitting: dict[str, set[str]] = {}
    for key, value in bare.items():
        parts = key.split(".")
        for place in range(len(parts)):
            end = ".".join(parts[place:])
            if end in own:
                # A shape counts for more than a name: `weight` is the end of many keys.
                fits = shape_of(value) == shape_of(own[end])
                start = key[: len(key) - len(end)]
                hits[start] += len(own) + 1 if fits else 1
                if fits and not end.endswith(BOOKKEEPING):
                    fitting.setdefault(start, set()).add(end)
    best = [start for start, score in hits.items() if score == max(hits.values())]
    if not best or "" in best:
        return _renamed(own, Located(bare))
    alike = _alike(fitting, best[0])
    if len(alike) > 1 and 2 * len(fitting[best[0]]) > _n_weights(own):
        raise NatstatsError(
            f"checkpoint: expected one network; {printable(source)} has several that fit alike, "
            f"{few([start.rstrip('.') for start in sorted(alike)], 8)}; name one with "
            "--checkpoint-key"
        )
    if len(best) > 1:  # similar parts of some other network
        return _renamed(own, Located(bare))
    start = best[0]
    inside = {k[len(start) :]: value for k, value in bare.items() if k.startswith(start)}
    outside = {key: value for key, value in bare.items() if not key.startswith(start)}
    return _renamed(own, Located(inside, outside, start))


def _alike(fitting: Mapping[str, set[str]], best: str) -> list[str]:
    """The starts under which the keys fit that fit under the best one, except at most one layer."""
    most = fitting.get(best, set())
    found = []
    for start, keys in fitting.items():
        lacking = {key.rpartition(".")[0] for key in most - keys}
        if len(lacking) <= 1 and 2 * len(keys & most) > len(most):
            found.append(start)
    return found


def _n_weights(own: Collection[str]) -> int:
    return sum(not key.endswith(BOOKKEEPING) for key in own)


def _without_wrappers(own: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    leave = {part for key in own for part in key.split(".")}
    drop = WRAPPERS - leave
    bare = {
        ".".join(part for part in key.split(".") if part not in drop): value
        for key, value in state.items()
    }
    return bare if len(bare) == len(state) else dict(state)


# Styles of keys


def _renamed(own: Mapping[str, Any], found: Located) -> Located:
    """The weights with keys that differ from the network's only in style renamed to those."""
    missing = [key for key in own if key not in found.state]
    unknown = [key for key in found.state if key not in own]
    ours = _pairs(own, found.state, missing, unknown)
    for flat in ((True, False), (False, True)):
        taken = {*ours.values()}
        theirs = [key for key in unknown if key not in ours]
        pairs = _pairs(own, found.state, [k for k in missing if k not in taken], theirs, *flat)
        # Where one chunk does not fit, the file counts in another way.
        left = {_words_before(k) for k in theirs if k not in pairs and _CHUNKED.match(k)}
        ours |= {k: v for k, v in pairs.items() if _words_before(k) not in left}
    if not ours:
        return found
    state = {ours.get(key, key): value for key, value in found.state.items()}
    first = next(iter(ours))
    note = (
        f"{counted(len(ours), 'key of the checkpoint was', 'keys of the checkpoint were')} "
        f"brought to the network's style "
        f"({printable(first)} to {ours[first]})"
    )
    return replace(found, state=state, notes=(*found.notes, note))


def _pairs(
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    missing: Sequence[str],
    unknown: Sequence[str],
    flat_theirs: bool = False,
    flat_ours: bool = False,
) -> dict[str, str]:
    """By key of the file, the network's key that differs only in style and has the same shape."""
    theirs = _by_style(unknown, flat_theirs)
    found = {}
    for style, names in _by_style(missing, flat_ours).items():
        others = theirs.get(style, [])
        if len(names) == len(others) == 1 and (
            shape_of(own[names[0]]) == shape_of(state[others[0]])
        ):
            found[others[0]] = names[0]
    return found


def _by_style(keys: Sequence[str], flat: bool) -> dict[str, list[str]]:
    """Keys by what is left of them without dots, underscores and capitals.

    With `flat`, two numbers in a row (a chunk, and a block in it) become one, which counts through
    all chunks.
    """
    numbers = _counted(keys) if flat else {}
    found: dict[str, list[str]] = {}
    for key in keys:
        match = _CHUNKED.match(key) if flat else None
        plain = key
        if match is not None:
            chunk = (match[1], int(match[2]), int(match[3]))
            plain = f"{match[1]}.{numbers[chunk]}.{match[4]}"
        # Numbers keep an edge, so that 1.11 and 11.1 stay apart.
        style = re.sub(r"(\d+)", r"<\1>", plain.lower())
        found.setdefault(re.sub(r"[._]", "", style), []).append(key)
    return found


def _words_before(key: str) -> str:
    return re.split(r"[0-9]", key, maxsplit=1)[0]


_CHUNKED = re.compile(r"([^0-9]*[^0-9.])\.(\d{1,6})\.(\d{1,6})\.(.+)")


def _counted(keys: Sequence[str]) -> dict[tuple[str, int, int], int]:
    matches = [match for key in keys if (match := _CHUNKED.match(key))]
    chunks = sorted({(match[1], int(match[2]), int(match[3])) for match in matches})
    count: Counter[str] = Counter()
    numbers = {}
    for chunk in chunks:
        numbers[chunk] = count[chunk[0]]
        count[chunk[0]] += 1
    return numbers


# Classifiers


def with_classifier(
    found: Located, own: Mapping[str, Any], classifier: Classifier, free: bool
) -> Located:
    """Take the classifier in the file for the network's where they only differ in name.

    That is so where the network has one classifier that the file lacks, and the file has one layer
    that the network lacks, with the same parameters of the same shapes. Where there is a choice,
    nothing is done.

    Args:
        found: the network's part of the file.
        own: state dict of the network.
        classifier: the network's classifier.
        free: whether the number of classes may differ, as the network can be built with another.
    """
    layer = _lacking_layer(found, own, classifier)
    if layer is None:
        return found
    among = {key: value for key, value in found.state.items() if key not in own}
    unknown = among | _beside_no_other(own, found.outside)
    match = _matching_layer(unknown, own, layer, classifier, free)
    if match is None:
        return found
    name, keys = match
    state = {key: value for key, value in found.state.items() if key not in keys}
    state |= {ours: unknown[theirs] for theirs, ours in keys.items()}
    note = (
        f"{printable(name) or 'a layer without a name'} of the checkpoint was taken for the "
        f"network's {layer}, the only one with its shape"
    )
    outside = {key: value for key, value in found.outside.items() if key not in keys}
    return replace(found, state=state, outside=outside, notes=(*found.notes, note))


def _lacking_layer(found: Located, own: Mapping[str, Any], classifier: Classifier) -> str | None:
    """The one layer of the classifier that the file lacks; None where several do, or none."""
    layers = {key.rpartition(".")[0] for key in classifier.keys if not is_auxiliary(key)}
    held = _layers(own)
    lacking = [
        layer
        for layer in layers
        if held.get(layer) and not any(f"{layer}.{name}" in found.state for name in held[layer])
    ]
    if len(lacking) != 1 or not {"weight"} <= held[lacking[0]] <= {"weight", "bias"}:
        return None
    return lacking[0]


def _matching_layer(
    unknown: Mapping[str, Any],
    own: Mapping[str, Any],
    layer: str,
    classifier: Classifier,
    free: bool,
) -> tuple[str, dict[str, str]] | None:
    """The one layer of the file that can be the network's `layer`, and our key for each of its.

    Shapes must be the same; where no layer has the same and the number of classes is free, they may
    differ in that.
    """
    parts = _layers(own)[layer]
    pairs = [
        (name, {f"{name}.{p}" if name else p: f"{layer}.{p}" for p in parts})
        for name, names in _layers(unknown).items()
        if names == parts and not is_auxiliary(f"{name}.")
    ]
    fitting = [
        (name, keys)
        for name, keys in pairs
        if all(shape_of(unknown[theirs]) == shape_of(own[ours]) for theirs, ours in keys.items())
    ]
    if not fitting and free:
        fitting = [
            (name, keys)
            for name, keys in pairs
            if all(_but_for_classes(unknown[t], own[o], o, classifier) for t, o in keys.items())
            and not any(word in name.lower() for word in _NO_CLASSIFIER)
        ]
        if fitting and (
            classifier.n_classes({o: unknown[t] for t, o in fitting[0][1].items()}) is None
        ):
            return None
    return fitting[0] if len(fitting) == 1 else None


def _layers(state: Mapping[str, Any]) -> dict[str, set[str]]:
    """Names of the parameters and buffers of every layer."""
    found: dict[str, set[str]] = {}
    for key in state:
        layer, _, name = key.rpartition(".")
        found.setdefault(layer, set()).add(name)
    return found


def _beside_no_other(own: Mapping[str, Any], outside: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that belong to no other network of the kind in the file, whose classifier is its own."""
    others: Counter[str] = Counter()
    for key in outside:
        parts = key.split(".")
        for place in range(1, len(parts)):
            if ".".join(parts[place:]) in own:
                others[".".join(parts[:place]) + "."] += 1
    # A classifier by itself has a weight and a bias.
    starts = tuple(start for start, count in others.items() if count > 2)
    return {key: v for key, v in outside.items() if not starts or not key.startswith(starts)}


def _but_for_classes(theirs: Any, ours: Any, key: str, classifier: Classifier) -> bool:
    """Whether two tensors only differ in the number of classes."""
    if key not in classifier.sizes or not isinstance(theirs, Tensor):
        return False
    axis = classifier.sizes[key][0]
    sides = [[*value.shape] for value in (theirs, ours)]
    if len(sides[0]) != len(sides[1]):
        return False
    return [s for i, s in enumerate(sides[0]) if i != axis] == [
        s for i, s in enumerate(sides[1]) if i != axis
    ]
