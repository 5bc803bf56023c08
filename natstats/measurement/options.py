"""How images and layers are measured: the choices, checked once and kept in ``run.json``.

Loads neither torch nor numpy, so that the command line can take defaults and names from here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar

from natstats import checks
from natstats.errors import UsageError
from natstats.networks.load_options import LoadOptions, LoadSettings
from natstats.spectra.edge_names import EDGES, Edges

__all__ = [
    "EDGES",
    "MEASURED_COUNTERFACTUALS",
    "NETWORK_CONTROLS",
    "Counterfactual",
    "ImageSettings",
    "MeasureOptions",
    "MeasureSettings",
    "NetworkControl",
    "NetworkSettings",
    "SeriesSettings",
    "chosen_options",
    "keywords_shown",
]

NetworkControl = Literal["random-weights"]
Counterfactual = Literal["shuffle-kernels", "shuffle-channels"]
"""The names in the tuples below, for type checkers."""

NETWORK_CONTROLS = ("random-weights",)
"""The networks that a network can be compared with: the same architecture with random weights."""

MEASURED_COUNTERFACTUALS = ("shuffle-kernels", "shuffle-channels")
"""What can be shuffled in a copy of a network."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class MeasureOptions:
    """How images and the layers of a network are measured.

    Attributes:
        layers: which layers, see :func:`natstats.activations.selection.select_modules`.
        layouts: layouts of modules whose maps are not found by themselves, see
            :class:`natstats.spectra.collector.Collector`.
        temporal: measure the spectrum of clips (N, C, T, H, W) along time.
        probe: test where the maps of each layer are, see :mod:`natstats.activations.probe`; costs
            five passes of the first image.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        n_groups: groups of images, the unit of resampling.
        batch_size: images per forward pass; the result does not depend on it.
        workers: processes that read images; by default none on the CPU, else one per processor,
            eight at most.
        limit: at most this many images, a random sample; of a stream the first of every shard.
        until: read images until no layer's interval is wider than this, see
            :mod:`natstats.measurement.until`.
        seed: seed of the sample, of the numbering of images, and of random weights.
        size: side of the square that enters the network, pixels, in place of its own; the
            photograph is scaled and cut in the network's proportions. Without a network the
            shorter side of the photograph is scaled to it, which changes its spectrum.
        crop: side of a square that is cut from the unscaled photograph, pixels; with `size`, the
            shorter side is scaled to `size` first.
        normalize: bring the pixels of photographs to the mean and standard deviation that the
            network expects; without it they enter in [0, 1]. (The power of spectra is normalised by
            the option of the same name of :class:`natstats.fits.options.FitOptions`.)
        frames: frames of a clip, for ``clips:ROOT``; 16 by default.
        amp: run the model in mixed precision; spectra stay in float32.
        control: ``random-weights`` to measure the same architecture untrained as well, see
            :mod:`natstats.runs.control`.
        control_seeds: how many times, with the random weights of `seed`, `seed` + 1 and so on.
        explain: measure the maps before and after every operation, for the account of where the
            exponents come from, see :mod:`natstats.theory.account`.
        counterfactual: ``shuffle-kernels`` or ``shuffle-channels`` to measure such a copy of the
            network as well, of which the account has a prediction, see
            :mod:`natstats.networks.shuffled_weights`.

    Raises:
        UsageError: an option is out of range.

    The same again, on other images::

        run = natstats.Run.open("runs/first")
        options = natstats.MeasureOptions.from_dict(run.info["options"])
        natstats.measure("resnet50", "more_photos", options=options)

    >>> MeasureOptions(edges="han")
    Traceback (most recent call last):
    natstats.errors.UsageError: edges: expected one of sine, hann, none, periodic; got 'han' \
(did you mean hann?)
    """

    layers: str | Sequence[str] = "weight"
    layouts: Mapping[str, str] | None = None
    temporal: bool = False
    probe: bool = True
    edges: Edges = "sine"
    n_groups: int = 128
    batch_size: int = 16
    workers: int | None = None
    limit: int | None = None
    until: float | None = None
    seed: int = 0
    size: int | None = None
    crop: int | None = None
    normalize: bool = True
    frames: int | None = None
    amp: bool = False
    control: NetworkControl | None = None
    control_seeds: int = 3
    explain: bool = False
    counterfactual: Counterfactual | None = None

    def __post_init__(self) -> None:
        checks.one_of("edges", self.edges, EDGES)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None or name in ("n_groups", "batch_size", "seed"):
                checks.positive_int(name, value, least, checks.LARGEST[name])
        if self.until is not None:
            width = checks.finite("until", self.until)
            if width <= 0:
                raise UsageError(f"until: expected a width above 0; got {self.until!r}")
            if self.explain:
                raise UsageError("until: expected without explain, which takes all images")
        for name in ("temporal", "probe", "normalize", "amp", "explain"):
            checks.flag(name, getattr(self, name))
        if self.explain and self.temporal:
            raise UsageError(
                "explain: expected only for maps, not with temporal; nothing is known of what "
                "operations do along time"
            )
        if self.counterfactual is not None:
            checks.one_of("counterfactual", self.counterfactual, MEASURED_COUNTERFACTUALS)
            if not self.explain:
                raise UsageError(
                    "counterfactual: expected only with explain, whose account predicts what is "
                    f"measured; got {self.counterfactual!r}"
                )
        if self.control is not None:
            checks.one_of("control", self.control, NETWORK_CONTROLS)
            # One seed could not tell how much seeds differ, and so would have no interval.
            checks.positive_int(
                "control_seeds", self.control_seeds, 2, checks.LARGEST["control_seeds"]
            )

    @property
    def n_passes(self) -> int:
        """How often the images are measured: the network's pass, and those of its copies.

        >>> MeasureOptions().n_passes, MeasureOptions(control="random-weights").n_passes
        (1, 4)
        """
        n_random = 0 if self.control is None else self.control_seeds
        # A shuffled copy first estimates its statistics, then it is measured.
        return 1 + n_random + 2 * (self.counterfactual is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; control, account, `until`, counterfactual only where asked for."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["layers"] = self.layers if isinstance(self.layers, str) else list(self.layers)
        values["layouts"] = dict(self.layouts or {})
        if self.control is None:
            del values["control"], values["control_seeds"]
        if not self.explain:
            del values["explain"]
        if self.until is None:
            del values["until"]
        if self.counterfactual is None:
            del values["counterfactual"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MeasureOptions:
        """Inverse of :meth:`to_dict`; options that an older run did not have get their defaults.

        Raises:
            UsageError: a value is out of range.

        >>> MeasureOptions.from_dict({"seed": 3, "layers": None}).to_dict()["seed"]
        3
        """
        known = {one.name for one in fields(cls)}
        return cls(
            **{
                name: value
                for name, value in values.items()
                if name in known and value is not None and not (value == {} and name == "layouts")
            }
        )

    def of_images(self) -> dict[str, Any]:
        """Plain values of those options that images alone have.

        Raises:
            UsageError: an option was given that only a network has.

        >>> list(MeasureOptions(limit=4).of_images())[:4]
        ['edges', 'temporal', 'n_groups', 'batch_size']
        """
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name not in _OF_IMAGES and value not in (one.default, {}):
                raise UsageError(
                    f"{one.name}: expected only for a network, not for images alone; got {value!r}"
                )
        values = self.to_dict()
        return {name: values[name] for name in _OF_IMAGES if name in values}


_LEAST = {
    "n_groups": 1, "batch_size": 1, "workers": 0, "limit": 1, "seed": 0,
    "size": checks.MINIMUM_SIDE, "crop": checks.MINIMUM_SIDE, "frames": 1,
}  # fmt: skip
"""The least values of options; the largest are in :data:`natstats.checks.LARGEST`."""


class ImageSettings(TypedDict, total=False):
    """The fields of :class:`MeasureOptions` that images alone have, as keyword arguments."""

    edges: Edges
    temporal: bool
    n_groups: int
    batch_size: int
    workers: int | None
    limit: int | None
    until: float | None
    seed: int
    size: int | None
    crop: int | None
    frames: int | None


class MeasureSettings(ImageSettings, total=False):
    """All fields of :class:`MeasureOptions`, as keyword arguments."""

    layers: str | Sequence[str]
    layouts: Mapping[str, str] | None
    probe: bool
    normalize: bool
    amp: bool
    control: NetworkControl | None
    control_seeds: int
    explain: bool
    counterfactual: Counterfactual | None


class SeriesSettings(LoadSettings, MeasureSettings, total=False):
    """What all networks of a series have in common, as keyword arguments."""


class NetworkSettings(SeriesSettings, total=False):
    """The fields of :class:`MeasureOptions` and of ``LoadOptions``, as keyword arguments."""

    checkpoint: str | Path | None


_OF_IMAGES = tuple(ImageSettings.__annotations__)

_FIELDS: dict[str, Field[Any]] = {
    one.name: one for record in (LoadOptions, MeasureOptions) for one in fields(record)
}


def chosen_options(
    function: str, options: MeasureOptions | None, settings: Mapping[str, Any], known: type
) -> tuple[LoadOptions, MeasureOptions]:
    """The records of options, from a record or from keyword arguments.

    Args:
        function: whose arguments they are, for an error.
        options: the record; None where its fields were given by name.
        settings: the keyword arguments.
        known: the ``TypedDict`` with all that are known.

    Raises:
        TypeError: an argument that the function does not have, as Python itself would raise.
        UsageError: both the record and fields of it are given, or a value is out of range.

    >>> chosen_options("measure", MeasureOptions(), {"seed": 1}, NetworkSettings)
    Traceback (most recent call last):
    natstats.errors.UsageError: options: expected a MeasureOptions, or its fields by name; got \
both (seed)
    """
    for name in settings:
        if name not in known.__annotations__:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")
    loading = LoadOptions(
        **{one.name: settings[one.name] for one in fields(LoadOptions) if one.name in settings}
    )
    own = {name: value for name, value in settings.items() if hasattr(MeasureOptions, name)}
    if options is None:
        return loading, MeasureOptions(**own)
    if not isinstance(options, MeasureOptions):
        raise UsageError(f"options: expected a MeasureOptions; got a {type(options).__name__}")
    if own:
        raise UsageError(
            f"options: expected a MeasureOptions, or its fields by name; got both "
            f"({', '.join(own)})"
        )
    return loading, options


def keywords_shown(known: type) -> Callable[[F], F]:
    """Let ``help()`` show the keyword arguments behind ``**settings``, with their defaults.

    Type checkers know them from the ``TypedDict``; interactive shells ask the signature.

    >>> @keywords_shown(ImageSettings)
    ... def look(images, **settings): ...
    >>> str(inspect.signature(look))[:42]
    "(images, *, edges: 'Edges' = 'sine', tempo"
    """

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        *own, last = signature.parameters.values()
        assert last.kind is last.VAR_KEYWORD
        named = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_FIELDS[name].default,
                annotation=_FIELDS[name].type,
            )
            for name in known.__annotations__
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *named]
        )
        return function

    return decorate
