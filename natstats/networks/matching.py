"""Loading a state dict into a network: matching keys, what may differ, and what does not fit."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from natstats.errors import NatstatsError
from natstats.networks.state_keys import BOOKKEEPING, is_auxiliary, is_beside, locate, shape_of
from natstats.numbers import counted
from natstats.text import few, printable

__all__ = ["NO_CLASSIFIER", "Mismatch", "load_state", "mismatch", "with_keys_of"]

NO_CLASSIFIER = "the checkpoint lacks a fitting classifier"
"""How the note of a network begins whose classifier is left at random."""

MOST_LISTED = 10
"""Keys of each kind that an error lists."""

LEAST_SHARE = 0.5
"""Share of the numbers in the weights before the classifier that must fit without `strict`."""


@dataclass(frozen=True)
class Mismatch:
    """What of a state dict does not fit a network, by keys.

    Attributes:
        missing: in the network, not in the state dict.
        unknown: in the state dict, not in the network.
        shapes: in both, of another shape.
    """

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)


def _words(shape: Any) -> str:
    if isinstance(shape, tuple) and all(isinstance(side, int) for side in shape):
        return " x ".join(map(str, shape)) or "a single number"
    return "packed parameters"


def mismatch(state: Mapping[str, Any], own: Mapping[str, Any]) -> Mismatch:
    """Compare a state dict with a network's `own`; counters of the training do not matter.

    >>> weight = nn.Linear(2, 2).state_dict()["weight"]
    >>> mismatch({"weight": weight[:1], "b": weight}, {"weight": weight, "bias": weight})
    Mismatch(missing=('bias',), unknown=('b',), shapes=('weight',))
    """
    return Mismatch(
        tuple(k for k in own if k not in state and not k.endswith(BOOKKEEPING)),
        tuple(k for k in state if k not in own and not k.endswith(BOOKKEEPING)),
        tuple(k for k in state if k in own and shape_of(state[k]) != shape_of(own[k])),
    )


def with_keys_of(
    own: Mapping[str, Any], state: Mapping[str, Any], source: str
) -> tuple[dict[str, Any], list[str]]:
    """Bring the keys of a state dict to those of a network.

    Args:
        own: state dict of the network.
        state: state dict of the checkpoint, see :func:`natstats.networks.state_keys.locate`.
        source: the file, for an error.

    Returns:
        The weights by the keys of the network, and notes on what was taken off and left out.

    Raises:
        NatstatsError: several networks in the file fit equally well.

    >>> weight = nn.Linear(2, 2).state_dict()["weight"]
    >>> found, notes = with_keys_of({"weight": weight}, {"module.net.weight": weight}, "a.pth")
    >>> list(found), notes
    (['weight'], ['net. was taken off the keys of the checkpoint'])
    """
    found = locate(own, state, source)
    return found.state, found.all_notes()


def load_state(
    model: nn.Module,
    state: Mapping[str, Any],
    source: str,
    *,
    strict: bool = True,
    classifier: Collection[str] = (),
    hint: Callable[[], str] | None = None,
) -> list[str]:
    """Load a state dict whose keys are those of the network, see :func:`with_keys_of`.

    The classifier may differ: its own layers may be missing or of another shape, so may all of the
    part of the network that holds it where that has no convolution, and another head may stand in
    its place. Auxiliary classifiers, which run only in training, may differ, too.

    Args:
        model: the network; its weights stay as they are when this raises.
        state: weights by key.
        source: the file, for notes and errors.
        strict: refuse every other difference; else load what fits, which must be at least half of
            the numbers in the weights before the classifier.
        classifier: keys that depend on the number of classes.
        hint: says what may be wrong; called only for an error.

    Returns:
        Notes on what was not loaded.

    Raises:
        NatstatsError: the state dict does not fit; the lines after the first list the keys.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 10))
    >>> weights = {k: v for k, v in model.state_dict().items() if k.startswith("0.")}
    >>> load_state(model, weights, "a.pth", classifier=["2.weight", "2.bias"])[0][:50]
    'the checkpoint lacks a fitting classifier (2.weigh'
    """
    own = model.state_dict()
    wrong = mismatch(state, own)
    head = _head(model, wrong, own, state, classifier)
    bad = _refusable(wrong, head, own)
    usable = OrderedDict((k, v) for k, v in state.items() if k in own and k not in wrong.shapes)
    fit = _n_fitting(own, usable, {*head, *classifier})
    if bad and (strict or fit[0] < LEAST_SHARE * fit[1]):
        hints = [hint() if hint is not None else "", _way_out(fit)]
        raise NatstatsError(*_report(bad, own, state, source, [h for h in hints if h]))
    _load(model, own, usable, source)
    return _notes(model, wrong, bad, head, fit)


def _refusable(wrong: Mismatch, head: Collection[str], own: Mapping[str, Any]) -> Mismatch:
    """Differences that count: none in classifiers, nor in what trainings put beside a network."""
    bad = Mismatch(
        *(
            tuple(key for key in keys if key not in head and not is_auxiliary(key))
            for keys in (wrong.missing, wrong.unknown, wrong.shapes)
        )
    )
    is_whole = not bad.missing and not bad.shapes
    return Mismatch() if is_whole and all(is_beside(key, own) for key in bad.unknown) else bad


def _n_fitting(
    own: Mapping[str, Any], usable: Collection[str], classifier: Collection[str]
) -> tuple[int, int]:
    """How many numbers in the weights before the classifier fit, and how many there are."""
    sizes = {
        key: value.numel()
        for key, value in own.items()
        if isinstance(value, Tensor) and key not in classifier
    }
    return sum(n for key, n in sizes.items() if key in usable), sum(sizes.values())


def _way_out(fit: tuple[int, int]) -> str:
    if fit[0] >= LEAST_SHARE * fit[1]:
        return "with --no-strict what fits is loaded"
    return f"{fit[0]} of the {fit[1]} numbers before the classifier fit"


def _load(
    model: nn.Module, own: Mapping[str, Any], usable: OrderedDict[str, Any], source: str
) -> None:
    """Load the weights that fit.

    Raises:
        NatstatsError: the model refuses them.
    """
    if not all(isinstance(value, Tensor) for value in own.values()):
        usable = OrderedDict({**own, **usable})  # a quantised layer loads all of its own or raises
    # The versions of the layers' formats, without which quantised layers do not load.
    usable._metadata = getattr(own, "_metadata", None)  # type: ignore[attr-defined]
    try:
        model.load_state_dict(usable, strict=False)
    except (RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise NatstatsError(
            f"checkpoint: expected weights that the model takes; {printable(source)} has others: "
            f"{printable(reason)}"
        ) from error


def _head(
    model: nn.Module,
    wrong: Mismatch,
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    classifier: Collection[str],
) -> set[str]:
    """The wrong keys that belong to the classifier, or to what stands in its place."""
    layers = {layer for key in classifier if (layer := key.rpartition(".")[0])}
    found = {
        key
        for key in (*wrong.missing, *wrong.unknown, *wrong.shapes)
        if key.startswith(tuple(f"{layer}." for layer in layers))
    }
    for top in {f"{layer.split('.')[0]}." for layer in layers}:
        inside = [part for name, part in model.named_modules() if name.startswith(top)]
        has_maps = any(_is_convolution(part) for part in inside)
        fits = any(key.startswith(top) and key in state and key not in wrong.shapes for key in own)
        if not has_maps and not fits:
            found |= {key for key in (*wrong.missing, *wrong.unknown) if key.startswith(top)}
    if {*classifier} & {*wrong.missing}:
        known = {key.split(".")[0] for key in own}
        other = [key for key in wrong.unknown if key.split(".")[0] not in known]
        if all(isinstance(state[key], Tensor) and state[key].ndim <= 2 for key in other):
            found |= {*other}
    return {key for key in found if not is_auxiliary(key)}


def _is_convolution(part: nn.Module) -> bool:
    return isinstance(part, nn.modules.conv._ConvNd)


def _report(
    bad: Mismatch,
    own: Mapping[str, Any],
    state: Mapping[str, Any],
    source: str,
    hints: list[str],
) -> list[str]:
    """One sentence, then the keys of each kind on lines of their own."""
    counts = [
        f"{len(keys)} {what}"
        for keys, what in (
            (bad.missing, "missing"),
            (bad.unknown, "unknown"),
            (bad.shapes, "of another shape"),
        )
        if keys
    ]
    lines = [
        f"checkpoint: expected the {counted(len(own), 'key')} of the model in {printable(source)}; "
        + ", ".join(counts)
        + "".join(f"; {hint}" for hint in hints)
    ]
    lines += _listed("missing", [f"{k} ({_words(shape_of(own[k]))})" for k in bad.missing])
    lines += _listed("unknown", [printable(k) + _near(k, bad.missing) for k in bad.unknown])
    lines += _listed(
        "of another shape",
        [
            f"{k}: expected {_words(shape_of(own[k]))}, in the file {_words(shape_of(state[k]))}"
            for k in bad.shapes
        ],
    )
    return lines


def _listed(title: str, entries: list[str]) -> list[str]:
    if not entries:
        return []
    lines = [f"  {title}:", *(f"    {entry}" for entry in entries[:MOST_LISTED])]
    more = len(entries) - MOST_LISTED
    return [*lines, f"    and {more} more"] if more > 0 else lines


def _near(key: str, names: tuple[str, ...]) -> str:
    # Comparing every pair of two long lists takes seconds, and says nothing.
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.8) if len(names) <= 50 else []
    return f" (near {near[0]})" if near else ""


def _notes(
    model: nn.Module, wrong: Mismatch, bad: Mismatch, head: set[str], fit: tuple[int, int]
) -> list[str]:
    notes = []
    unfilled = [key for key in (*wrong.missing, *wrong.shapes) if key in head]
    if unfilled:
        layers = {key.rpartition(".")[0] for key in unfilled}
        drawn = [
            name for name, part in model.named_modules() if name in layers and _is_convolution(part)
        ]
        notes.append(
            f"{NO_CLASSIFIER} ({few(unfilled)}); it is left at random "
            + (
                f"weights, and so are the maps of {few(drawn)}"
                if drawn
                else "weights, and no measured map depends on it"
            )
        )
    auxiliary = [k for k in (*wrong.missing, *wrong.unknown, *wrong.shapes) if is_auxiliary(k)]
    if auxiliary:
        notes.append(
            "the auxiliary classifiers, which run only in training, differ from those of the "
            f"checkpoint ({few(auxiliary)})"
        )
    unused = [
        key
        for key in wrong.unknown
        if key in head or (key not in bad.unknown and not is_auxiliary(key))
    ]
    if unused:
        notes.append(
            f"{counted(len(unused), 'key of the checkpoint is', 'keys of the checkpoint are')} "
            f"not in the model ({few(unused)})"
        )
    if bad:
        parts = [
            f"{len(keys)} {what} ({few(keys)})"
            for keys, what in (
                (bad.missing, "are missing"),
                (bad.unknown, "are unknown"),
                (bad.shapes, "have another shape"),
            )
            if keys
        ]
        is_whole = not bad.missing and not bad.shapes
        loaded = (
            f"everything before the classifier was loaded, {fit[1]} numbers"
            if is_whole
            else f"what fits was loaded, {fit[0]} of {fit[1]} numbers before the classifier, and "
            "the rest is random"
        )
        notes.append(f"the checkpoint does not fit: of its keys {', '.join(parts)}; {loaded}")
    return notes
