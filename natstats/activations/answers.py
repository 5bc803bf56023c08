"""Where the maps of a layer answer to changes of the image, and whether its layout is right.

A patch of the image was changed at a few places, one at a time. The *energy* of an answer is the
squared change of the output, summed over its channels. A layout says which of these energies belong
to which point of the map. Here is only arithmetic on energies; no network runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats.activations.layouts import Layout

__all__ = ["Answers", "Outcome", "verdict"]

_Array = NDArray[np.float64]

NEAR = 0.15
"""Distance from the patch, as a share of a side, within which a map has to answer. Maps of networks
that do not pad, or that pad the image itself, stand for a little less or more than the image."""

NEAR_TOKENS = 0.05
"""The same for tokens, which are the image's own patches; at least the next token is near."""

LEAST = 0.5
"""Energy near the patch, as a share of what as many of the strongest points hold: a map that
answers in place has at least this share, one that answers elsewhere less than half of it."""

CLEAR = 2.0
"""How much more energy the strongest points must hold than they would if all were alike."""

CONCENTRATED = 0.4
"""Share of the energy that the strongest points hold in a map that answers in one place."""

OWN = 0.3
"""Share of an answer's energy that must be its own, beyond what all answers have in common, before
its place says anything: a gain that comes from the whole image always changes the same points."""

FEWEST_FOR_BROAD = 4
"""Fewest answers from which a map that answers broadly is judged."""

ALIKE = 0.85
"""Of two layouts one is chosen only if the other scores less than this share of its score."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Energies of one layer.

    Attributes:
        spans: start and end of each patch along height and along width, as shares, (K, 2, 2).
        first: with channels second, (K, *output without its second axis); None where channels
            cannot be there.
        last: with channels last, (K, *output without its last axis), or None.
        floor: energy of an answer that may be rounding.
    """

    spans: _Array
    first: Tensor | None
    last: Tensor | None
    floor: float = 0.0

    def on(self, layout: Layout) -> _Array:
        """Energies (K, M, H, W) of M sets of maps in a layout; those of a clip summed over frames.

        >>> image = torch.arange(6.0).reshape(1, 1, 2, 3)
        >>> answers = Answers(np.zeros((1, 2, 2)), image, torch.zeros(1, 1, 9, 2))
        >>> answers.on(Layout("NCHW", (2, 3)))[0, 0].tolist()
        [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        """
        is_first = layout.channels_first
        plain = replace(layout, is_quantized=False)
        energies = self.first if is_first else self.last
        assert energies is not None  # no layout that a module cannot have is ever looked at
        energies = energies.unsqueeze(2 if is_first else -1)
        maps = torch.stack([plain.maps(one)[:, 0] for one in energies])
        if maps.ndim == 5:
            maps = maps.sum(2)
        found: _Array = maps.double().numpy()
        return found


@dataclass(frozen=True)
class Outcome:
    """What the answers say of a layer.

    Attributes:
        layout: the one that puts the answers where the patches are; None when none does.
        is_elsewhere: whether the layer answers in few places, which are not those of the patches.
        words: what was seen, for use in a reason.
        is_silent: whether it does not answer at all.
    """

    layout: Layout | None = None
    is_elsewhere: bool = False
    words: str = ""
    is_silent: bool = False


@dataclass(frozen=True)
class _Reading:
    """The answers in one layout.

    Attributes:
        is_clear: the strongest points are near the patches.
        is_right: it is clear, or the answers are broad, each strongest near its own patch.
        is_elsewhere: the strongest points are not near the patches.
        n_right: patches near which the strongest points are.
        n: patches that the layer answers to.
        score: share of an answer's energy that lies at the very points of its patch and sets it
            apart from the other answers; the mean over answers.
        words: about the sets of maps, where these show that the layout is wrong.
    """

    is_clear: bool = False
    is_right: bool = False
    is_elsewhere: bool = False
    n_right: int = 0
    n: int = 0
    score: float = 0.0
    words: str = ""


def verdict(
    answers: Answers, read: Layout | None, other_ways: Callable[[], Sequence[Layout]]
) -> Outcome:
    """Whether the layout of the rules, or else another way to read the output, is right.

    Args:
        answers: energies of the layer.
        read: in which layout the rules read it; None when they do not.
        other_ways: returns other layouts that fit the shape; called only where they are needed.
    """
    heard = answers.last if answers.first is None else answers.first
    if heard is None or not float(heard.flatten(1).sum(1).max()) > answers.floor:
        return Outcome(is_silent=True, words="no change of the image shows")
    own = _Reading() if read is None else _read(answers, read)
    if read is not None and own.is_right and read.kind.tokens is None:
        return Outcome(layout=read)
    ways = other_ways()
    if read is not None and own.is_right:
        other = _better_tokens(answers, read, ways)
        if other is None:
            return Outcome(layout=read)
        if isinstance(other, Layout):
            return Outcome(layout=other)
        return Outcome(is_elsewhere=True, words=other)
    if read is not None:
        ways = [way for way in ways if way.sets == 1 or _is_like(way, read)]
    readings = [(_read(answers, way), way) for way in ways]
    fitting = sorted((pair for pair in readings if pair[0].is_clear), key=lambda p: -p[0].score)
    if fitting and (len(fitting) == 1 or fitting[1][0].score < ALIKE * fitting[0][0].score):
        found = fitting[0][1]
        other = _better_tokens(answers, found, ways)
        if other is None or isinstance(other, Layout):
            return Outcome(layout=other or found)
    words = own.words or f"{own.n_right} of {own.n} changes of the image show where they are"
    return Outcome(is_elsewhere=own.is_elsewhere, words=words)


def _is_like(way: Layout, read: Layout) -> bool:
    """Whether two layouts see as many sets of maps on the same axis."""
    is_of_other_tokens = way.name != read.name and way.kind.tokens is not None
    return way.sets == read.sets and not is_of_other_tokens


def _read(answers: Answers, layout: Layout) -> _Reading:
    energies = answers.on(layout)
    words = _about_sets(energies)
    if words:
        return _Reading(is_elsewhere=True, words=words)
    energies = energies.sum(1)
    totals = energies.sum((1, 2))
    heard = np.flatnonzero(totals > max(1e-9 * totals.max(), answers.floor))
    if len(heard) < 2:
        return _Reading()
    shares = energies[heard] / totals[heard, None, None]
    is_tokens = layout.kind.tokens is not None
    turns = (_in_place(turned, answers.spans[heard], is_tokens) for turned in _turns(shares))
    as_it_is = next(turns)
    if as_it_is.is_right:
        return as_it_is
    # In one of many turns some answers may be right by chance.
    whole = (turned for turned in turns if turned.is_clear and turned.n_right == turned.n)
    return next(whole, as_it_is)


def _about_sets(energies: _Array) -> str:
    """What is wrong where the sets of maps of an image are not whole maps; empty when nothing is.

    Sets that are heads or frames all answer to every patch. Of the windows of a map only one does,
    and sets with which a network pads a batch never do.
    """
    by_set = energies.sum((2, 3))
    n_sets = by_set.shape[1]
    heard = by_set.sum(1) > 0
    if n_sets == 1 or not heard.any():
        return ""
    shares = by_set[heard] / by_set[heard].sum(1, keepdims=True)
    dead = int((shares.max(0) < 1e-9).sum())
    if dead:
        return f"{dead} of {n_sets} sets of maps of the image never answer"
    effective = 1 / np.square(shares).sum(1)
    differ = len(set(shares.argmax(1).tolist())) > 1
    if n_sets >= 4 and differ and float(np.median(effective)) < n_sets / 3:
        return f"each change of the image shows in a few of {n_sets} pieces"
    return ""


def _turns(energies: _Array) -> list[_Array]:
    """The maps as they are, mirrored, and if square transposed, all of which have one spectrum."""
    found = [energies, energies[:, ::-1], energies[:, :, ::-1], energies[:, ::-1, ::-1]]
    if energies.shape[1] == energies.shape[2]:
        found += [turned.swapaxes(1, 2) for turned in found]
    return found


def _near(n: int, span: _Array, is_tokens: bool) -> NDArray[np.bool_]:
    """Which of `n` points along a side are near a patch."""
    centres = (np.arange(n) + 0.5) / n
    reach = max(NEAR_TOKENS, 1 / n) if is_tokens else max(NEAR, 0.75 / n)
    near: NDArray[np.bool_] = (centres >= span[0] - reach) & (centres <= span[1] + reach)
    return near


def _leads(density: _Array) -> bool:
    """Whether each change (columns) shows the most at its own place (rows), however broad it is.

    The means of rows and columns are taken off the logarithms. Then every entry on the diagonal
    must exceed all others in size. By chance that happens once in 29,000 tables of 4 x 4: the four
    entries would have to be the largest of sixteen, and all positive.
    """
    table = np.log(density + max(1e-3 * density.mean(), 1e-12))
    table = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    own = np.eye(len(table), dtype=bool)
    return bool(table[own].min() > np.abs(table[~own]).max())


def _shows_on_both_axes(shares: _Array, spans: _Array) -> bool:
    """Whether rows alone, and columns alone, tell most of the changes apart.

    Where only one axis is one of the map (and the other holds channels, say), all places differ
    along that one, so each axis has to tell them apart by itself.
    """
    for axis in (0, 1):
        along = shares.sum(2 - axis)
        bands = np.stack([_near(along.shape[1], span[axis], False) for span in spans])
        density = np.stack([along[:, band].mean(1) for band in bands])  # (band, answer)
        table = np.log(density + max(1e-3 * density.mean(), 1e-12))
        table = table - table.mean(1, keepdims=True)
        if int((table.argmax(0) == np.arange(len(table))).sum()) < len(table) - 1:
            return False
    return True


def _strongest(shares: _Array, sizes: NDArray[np.int_]) -> _Array:
    """The energy that the strongest `sizes` points of each answer hold, (K,)."""
    ordered = -np.sort(-shares.reshape(len(shares), -1))
    most: _Array = ordered.cumsum(1)[np.arange(len(shares)), sizes - 1]
    return most


def _in_place(shares: _Array, spans: _Array, is_tokens: bool) -> _Reading:
    """Whether answers, as shares (K, H, W), are near the patches of these spans."""
    n, height, width = shares.shape
    masks = np.stack(
        [
            np.outer(_near(height, rows, is_tokens), _near(width, cols, is_tokens))
            for rows, cols in spans
        ]
    )
    sizes = masks.sum((1, 2))
    density = np.stack([shares[:, mask].sum(1) for mask in masks])  # (near which patch, answer)
    near = np.diag(density)
    strongest, area = _strongest(shares, sizes), sizes / (height * width)
    is_clear = (near >= LEAST * strongest) & (strongest >= np.minimum(CLEAR * area, 0.75))
    own, points = _apart(shares), _points(spans, height, width)
    total = own.sum((1, 2))
    near_own = np.array([one[mask].sum() for one, mask in zip(own, masks, strict=True)])
    strongest_own = _strongest(own, sizes)
    is_away = (near_own < LEAST / 2 * strongest_own) & (total >= OWN)
    is_away &= strongest_own >= np.maximum(1.5 * CLEAR * area, CONCENTRATED) * total
    # Attention in windows answers all over the window, and the patch's own point is one of them.
    at_point = np.where(points > 0, own, 0).max((1, 2))
    is_away &= at_point < LEAST / 2 * own.max((1, 2))
    # One answer may be unclear; but if it is elsewhere, the others are right by chance.
    clear = int(is_clear.sum()) >= max(3, n - 1) and not (is_away & ~is_clear).any()
    right = clear or (
        n >= FEWEST_FOR_BROAD
        and _shows_on_both_axes(shares, spans)
        and (_leads(density) or _leads(np.einsum("khw,jhw->jk", shares, points)))
    )
    return _Reading(
        is_clear=clear,
        is_right=right,
        is_elsewhere=not right and int(is_away.sum()) >= max(2, n - 1),
        n_right=int(is_clear.sum()),
        n=n,
        score=float((own * points).sum((1, 2)).mean()),
    )


def _overlap(n: int, span: _Array) -> _Array:
    """Shares of a patch that fall on each of `n` points along a side, (n,)."""
    edges = np.arange(n + 1) / n
    low, high = np.maximum(edges[:-1], span[0]), np.minimum(edges[1:], span[1])
    shares: _Array = np.maximum(high - low, 0) / (span[1] - span[0])
    return shares


def _points(spans: _Array, height: int, width: int) -> _Array:
    """Shares of each patch that fall on the points of a map, (K, H, W)."""
    return np.stack(
        [np.outer(_overlap(height, rows), _overlap(width, cols)) for rows, cols in spans]
    )


def _apart(shares: _Array) -> _Array:
    """What sets each answer apart: its shares beyond the mean of the others, (K, H, W)."""
    excess: _Array = np.maximum(shares - (shares.sum(0) - shares) / (len(shares) - 1), 0)
    return excess


def _better_tokens(answers: Answers, read: Layout, ways: Sequence[Layout]) -> Layout | str | None:
    """Whether tokens other than the map's stand elsewhere than a layout says.

    One token more or less before the map moves it by a single point, so answers are compared point
    by point, without what they all have in common.

    Returns:
        None when the layout is right; the layout that is; or in words why none is.
    """
    if read.kind.tokens is None or read.tokens is not None:
        return None
    alike = [read] + [
        way
        for way in ways
        if way.name == read.name and way.grid == read.grid and way.tokens is None and way != read
    ]
    if len(alike) == 1:
        return None
    height, width = read.grid[-2:]
    expected = np.stack(
        [np.outer(_overlap(height, s[0]), _overlap(width, s[1])) for s in answers.spans]
    )
    scores = []
    for way in alike:
        energies = answers.on(way).sum(1)
        totals = energies.sum((1, 2), keepdims=True)
        shares = energies / np.where(totals > 0, totals, 1)
        scores.append(np.einsum("khw,khw->k", _apart(shares), expected))
    table = np.stack(scores)  # ways, places
    best = int(table.sum(1).argmax())
    # If another way is clearly better at one of the places, the tokens do not stand together.
    others = np.delete(table, best, axis=0).max(0)
    if bool((others > 2 * table[best]).any()):
        return "tokens that are not of the map stand amid those that are"
    return None if best == 0 or table[best].sum() < 1.2 * table[0].sum() else alike[best]
