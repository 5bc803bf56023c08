"""What a meta-analysis takes from each run, and whether the runs make a sample of networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from natstats import checks
from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.law.differences import Estimate, depths_of
from natstats.law.law import Law
from natstats.law.shape_agreement import Shape, fit_shape
from natstats.numbers import map_size
from natstats.runs.network_groups import family_of
from natstats.runs.random_weights import RandomWeights
from natstats.runs.run import Run
from natstats.runs.run_folders import FoundRun, find_runs, short_names
from natstats.spectra.records import LayerSpectrum
from natstats.text import few, printable

__all__ = ["Member", "Sample", "error_of", "gather"]

_LAW_OPTIONS = tuple(
    field.name
    for field in fields(FitOptions)
    if field.name not in ("interval", "resamples", "stopped")
)
"""Options of a fit that change the law, or its interval."""


@dataclass(frozen=True, eq=False)
class Member:
    """A network of the sample, with what a meta-analysis takes from its run.

    Attributes:
        place: its place among the runs that were given or found.
        name: what it is called in tables and figures.
        path: where the run is, for sentences.
        info: facts about the measurement.
        options: how it was fitted.
        edges: edge treatments of its maps.
        law: exponent against depth, with the verdict that the run by itself has.
        deepest: the largest depth of a layer, in the measure of the law, or in layers if that is a
            share.
        shape: line, square and cube; None where there are too few layers.
        random: slope with random weights, mean over seeds; None where none were measured.
        difference: slope of the run minus that with random weights, of the same layers.
        n_seeds: seeds of random weights.
    """

    place: int
    name: str
    path: str
    info: Mapping[str, Any]
    options: FitOptions
    edges: tuple[str, ...]
    law: Law
    deepest: float
    shape: Shape | None
    random: Estimate | None
    difference: Estimate | None
    n_seeds: int

    @property
    def model(self) -> Mapping[str, Any]:
        """Facts about the network."""
        return self.info.get("model") or {}

    @property
    def images(self) -> Mapping[str, Any]:
        """Facts about the images."""
        return self.info.get("images") or {}

    @property
    def has_law(self) -> bool:
        """Whether there are enough layers for a law."""
        variance = self.law.covariance[1][1]
        return bool(np.isfinite([self.law.slope, variance, self.law.dof]).all())

    def column(self, name: str) -> str:
        """Its text in one of :data:`natstats.runs.network_groups.COLUMNS`."""
        model = str(self.model.get("name") or self.name)
        if name == "trained":
            known = {True: "trained", False: "random weights", None: "not known"}
            return known[self.model.get("trained")]
        found = {
            "family": family_of(model),
            "model": model,
            "weights": self.model.get("weights"),
            "images": self.images.get("source"),
        }[name]
        return str(found or "not known")

    @property
    def unit_factor(self) -> float:
        """Factor that makes the law's slope one per unit of depth."""
        return 1 / self.deepest if DEPTH_AXES[self.options.depth].is_share else 1.0

    @property
    def whole_factor(self) -> float:
        """Factor that makes the law's slope one over the whole depth."""
        return 1.0 if DEPTH_AXES[self.options.depth].is_share else self.deepest


@dataclass(frozen=True, eq=False)
class Sample:
    """Networks that can be taken together.

    Attributes:
        members: those with a law, two or more.
        n_given: runs that were given or found.
        notes: what was left out and what to know, in sentences.
    """

    members: list[Member]
    n_given: int
    notes: list[str]


def gather(
    runs: Iterable[Run | str | Path] | Mapping[str, Run], changes: Mapping[str, Any]
) -> Sample:
    """Open runs, fit all alike, and take from each what a meta-analysis needs.

    Args:
        runs: runs, or paths of runs, of series and of folders that hold them; or runs by name.
        changes: fields of :class:`natstats.fits.options.FitOptions`, the same for all.

    Returns:
        The networks that make a sample.

    Raises:
        UsageError: they do not make a sample: too few, one network twice, measured or fitted in
            different ways, of images alone.
        NatstatsError: a run is damaged.
    """
    if isinstance(runs, str | Path):
        runs = [runs]
    named, notes = _named(runs)
    members: list[Member] = []
    for place, (name, path, source) in enumerate(named):
        run = source if isinstance(source, Run) else Run.open(source.path)
        if run.info.get("model", {}) is None or all(m.layer.kind == "input" for m in run.spectra):
            if isinstance(source, FoundRun) and not source.is_named:
                notes.append(f"{printable(path)} is of images alone and left out.")
                continue
            raise UsageError(
                f"runs: expected runs of networks; {printable(path)} is of images alone"
            )
        members.append(_member(run, place, name, path, changes))
    if len(members) < 2:
        got = f"1 ({printable(members[0].path)})" if members else "none"
        raise UsageError(
            f"runs: expected two networks or more, for networks are the sample; got {got}"
        )
    _refuse_one_twice(members)
    _refuse_other_quantity(members)
    return Sample(_with_law(members, notes), len(named), notes)


def _named(runs: Any) -> tuple[list[tuple[str, str, Run | FoundRun]], list[str]]:
    """For each its name, where it is, and the run or what was found, as given; and notes."""
    if isinstance(runs, Mapping):
        return [(str(name), str(name), _checked(run)) for name, run in runs.items()], []
    named: list[tuple[str, str, Run | FoundRun]] = []
    found: list[FoundRun] = []
    given = list(runs)
    places = [place for place, one in enumerate(given) if isinstance(one, str | Path)]
    paths = [given[place] for place in places]
    notes: list[str] = []
    if paths:
        found, notes = find_runs(paths)
        shown = short_names([one.path for one in found], [2 if one.series else 1 for one in found])
        named += [(name, str(one.path), one) for name, one in zip(shown, found, strict=True)]
        notes += [
            f"Of the series {printable(one.series)} the last checkpoint counts, {one.path.name}."
            for one in found
            if one.series
        ]
    order = [places[one.place] for one in found]
    for place, one in enumerate(given):
        if place in places:
            continue
        name, number = _checked(one).name, 2
        while name in {other for other, _, _ in named}:
            name, number = f"{one.name} ({number})", number + 1
        named.append((name, f"runs[{place}], {name}", one))
        order.append(place)
    # Labels of groups are given in the order of the runs.
    return [named[row] for row in np.argsort(order, kind="stable")], notes


def _checked(run: Any) -> Run:
    if not isinstance(run, Run):
        raise UsageError(f"runs: expected runs or their paths; got {type(run).__name__}")
    return run


def _brief(
    spectra: Sequence[LayerSpectrum],
    info: Mapping[str, Any],
    options: FitOptions,
    random: Sequence[RandomWeights] = (),
) -> Run:
    """A run without the images, with only those fits that a law needs."""
    own = Run([m for m in spectra if m.layer.kind != "input"], [], dict(info), options, random)
    own.fits = fit_layers(own.spectra, options, is_brief=True)
    return own


def _member(run: Run, place: int, name: str, path: str, changes: Mapping[str, Any]) -> Member:
    """Fit a run and take from it what a meta-analysis needs."""
    for option in changes:
        checks.one_of("option", option, run.options.to_dict())
    options = replace(run.options, **changes)
    own = _brief(run.spectra, run.info, options, run.random_weights)
    measure = DEPTH_AXES[options.depth]
    depth = depths_of(own.spectra, "layers" if measure.is_share else options.depth)
    deepest = float(np.max(depth[np.isfinite(depth)], initial=0.0)) or float("nan")
    counted = own.law_places
    layers = [own.spectra[row].layer for row in counted]
    shape = fit_shape(
        depth[counted] / deepest,
        own.fits.exponents[counted],
        own.fits.deviations[:, counted],
        [map_size(layer.height, layer.width) for layer in layers],
    )
    control = own.control
    return Member(
        place=place,
        name=name,
        path=path,
        info=run.info,
        options=options,
        edges=tuple(sorted({m.spectrum.edges for m in own.spectra})),
        law=own.verdict.law,  # as `show` and the page of the run have it
        deepest=deepest,
        shape=shape,
        random=_random_slope(own) if control is not None else None,
        difference=control.slope if control is not None else None,
        n_seeds=len(run.random_weights),
    )


def _random_slope(run: Run) -> Estimate | None:
    """Slope with random weights: the mean over seeds, which count as one network.

    The errors are those of one seed: the seeds saw the same images, and what sets layers apart is
    mostly the architecture, so that more seeds do not make them smaller.
    """
    laws = [_brief(one.spectra, run.info, run.options).law for one in run.random_weights]
    slope = float(np.mean([law.slope for law in laws]))
    variance = float(np.mean([law.covariance[1][1] for law in laws]))
    dof = float(np.mean([law.dof for law in laws]))
    if not np.isfinite([slope, variance, dof]).all():
        return None
    return Estimate.of(slope, [variance], [dof], run.options.level)


def error_of(estimate: Estimate, level: float) -> float:
    """Standard error behind an interval."""
    if not np.isfinite(estimate.dof):
        return 0.0
    reach = special.stdtrit(estimate.dof, 0.5 + level / 2)
    return float((estimate.high - estimate.low) / 2 / reach)


def _refuse_one_twice(members: Sequence[Member]) -> None:
    seen: dict[str, Member] = {}
    for one in members:
        # Without a digest, the path at least tells if one run was given twice.
        key = one.model.get("digest") or f"path {Path(one.path).resolve()}"
        if key in seen:
            raise UsageError(
                "runs: expected each network once, for networks are the sample; the weights in "
                f"{printable(seen[key].path)} and {printable(one.path)} are the same"
            )
        seen[key] = one


def _typed(value: object) -> str:
    """A value of an option as it is typed: a band as LOW:HIGH."""
    return ":".join(f"{end:g}" for end in value) if isinstance(value, tuple) else str(value)


def _refuse_other_quantity(members: Sequence[Member]) -> None:
    """Slopes that were measured or fitted in different ways are not the same quantity."""
    first = members[0]
    for name in _LAW_OPTIONS:
        option = {"normalize": "--equal-power"}.get(name, f"--{name.replace('_', '-')}")
        for other in members[1:]:
            pair = [getattr(one.options, name) for one in (first, other)]
            if pair[0] != pair[1]:
                raise UsageError(
                    f"{name}: expected the same in all runs, or their slopes are not the same "
                    f"quantity; got {_typed(pair[0])} in {printable(first.path)} and "
                    f"{_typed(pair[1])} in "
                    f"{printable(other.path)} (give {option} to fit all alike)"
                )
    for other in members[1:]:
        for name, measured in (("edges", _edges), ("layers", _selection), ("temporal", _temporal)):
            ways = [measured(one) for one in (first, other)]
            if None not in ways and ways[0] != ways[1]:
                raise UsageError(
                    f"{name}: expected the same in all runs, or their slopes are not the same "
                    f"quantity; got {ways[0]} in {printable(first.path)} and {ways[1]} in "
                    f"{printable(other.path)} (this is chosen as a network is measured: measure "
                    "one of them again)"
                )


def _edges(one: Member) -> str:
    return ", ".join(one.edges)


def _selection(one: Member) -> str | None:
    """The layers that were asked for, however they were written; None where it is not known."""
    asked = (one.info.get("options") or {}).get("layers")
    if asked is None:
        return None
    parts = asked.split(",") if isinstance(asked, str) else asked
    return ", ".join(sorted({str(part).strip() for part in parts}))


def _temporal(one: Member) -> str:
    asked = (one.info.get("options") or {}).get("temporal")
    return "spectra along time" if asked else "spectra in space"


def _with_law(members: Sequence[Member], notes: list[str]) -> list[Member]:
    """The networks with enough layers for a law; a note names the others."""
    good = [one for one in members if one.has_law]
    short = [one for one in members if not one.has_law]
    if short:
        names = few([one.path for one in short])
        if len(good) < 2:
            raise UsageError(
                f"runs: expected two networks or more with layers enough for a law; got {len(good)}"
                f" of {len(members)} (too few layers: {names})"
            )
        notes.append(f"Too few layers for a law, and left out: {names}.")
    contents = {one.images.get("contents") or one.images.get("digest") for one in good}
    if len(contents) > 1:
        notes.append("The networks saw different images, which may be a part of how they differ.")
    return good
