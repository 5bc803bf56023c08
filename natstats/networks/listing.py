"""All networks that go by a name, by library and family, with their published weights."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from natstats.errors import UsageError
from natstats.networks import zoo
from natstats.networks.external import timm_library
from natstats.networks.torchvision_imports import torchvision_models
from natstats.text import printable

__all__ = ["Entry", "catalogue"]


@dataclass(frozen=True)
class Entry:
    """A network that goes by a name.

    Attributes:
        name: as MODEL takes it.
        library: ``torchvision``, ``natstats`` or ``timm``.
        family: the module of the library that it is in.
        weights: names of its published weights, as ``--weights`` takes them.
    """

    name: str
    library: str
    family: str
    weights: tuple[str, ...] = ()


def catalogue(pattern: str | None = None, timm: bool = False) -> list[Entry]:
    """The networks of torchvision and of natstats, and those of timm where asked for.

    Args:
        pattern: part of a name or of a family, in any case, or a pattern of whole ones such as
            ``vit_*``; one that starts with ``timm:`` asks for timm's.
        timm: whether to list timm's.

    Raises:
        UsageError: nothing has such a name, or timm is not installed.

    >>> [entry.name for entry in catalogue("googlenet")]
    ['googlenet', 'quantized_googlenet']
    """
    entries = [*_by_family(_of_torchvision()), *_by_family(_of_ours())]
    if timm or (pattern or "").startswith("timm:"):
        entries += _by_family(_of_timm())
    if pattern is None:
        return entries
    found = [entry for entry in entries if _is_meant(entry, pattern.lower())]
    if not found:
        names = [entry.name for entry in entries]
        near = difflib.get_close_matches(pattern, names, n=5, cutoff=0.5)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise UsageError(
            "pattern: expected part of the name of a network or of its family, or a pattern such "
            f"as 'vit_*'; got {printable(pattern)!r}{hint}"
        )
    return found


def _by_family(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.family)


def _is_meant(entry: Entry, pattern: str) -> bool:
    if any(char in pattern for char in "*?["):
        name = entry.name.lower()
        return any(
            fnmatch.fnmatchcase(text, pattern)
            for text in (name, name.removeprefix("timm:"), entry.family)
        )
    return pattern in entry.name.lower() or pattern in entry.family


def _of_torchvision() -> Iterator[Entry]:
    for name in torchvision_models().list_models():
        home = torchvision_models().get_model_builder(name).__module__
        weights = tuple(one.name for one in torchvision_models().get_model_weights(name))
        yield Entry(name, "torchvision", home.removeprefix("torchvision.models."), weights)


def _of_ours() -> Iterator[Entry]:
    for name, network in zoo.NETWORKS.items():
        yield Entry(name, "natstats", network.family.rpartition(".")[2])


def _of_timm() -> Iterator[Entry]:
    library = timm_library()
    tags: dict[str, list[str]] = {}
    for tagged in library.list_pretrained():
        base, _, tag = tagged.partition(".")
        tags.setdefault(base, []).append(tag)
    for family in library.list_modules():
        for name in library.list_models(module=family):
            weights = tuple(tag for tag in tags.get(name, ()) if tag)
            yield Entry(f"timm:{name}", "timm", family, weights)
