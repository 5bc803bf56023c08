"""How networks are grouped: by a column, by patterns of names, or by labels."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from natstats import checks
from natstats.errors import UsageError
from natstats.text import printable

if TYPE_CHECKING:
    from natstats.runs.network_sample import Member, Sample

__all__ = ["COLUMNS", "By", "family_of", "labels_of"]

By: TypeAlias = str | Mapping[str, str | Sequence[str]] | Sequence[str] | None

COLUMNS = ("family", "model", "weights", "trained", "images")
"""What networks can be grouped by."""

_SIZES = {
    "pico", "nano", "micro", "mini", "tiny", "small", "medium", "base", "large", "huge", "giant",
    "xlarge", "xs", "xl", "t", "s", "m", "b", "l", "h", "x", "y", "v", "bn",
}  # fmt: skip
"""Words that name the size or the version of a network, not its family."""


def family_of(model: str) -> str:
    """The family of a network by its name: the letters before the first number or size.

    >>> [family_of(name) for name in ("resnet20", "mobilenet_v2", "convnext_tiny", "timm:vit_b_16")]
    ['resnet', 'mobilenet', 'convnext', 'vit']
    >>> family_of("cifar_resnet56"), family_of("512"), family_of("DnCNN")
    ('cifar_resnet', '512', 'dncnn')
    """
    plain = re.split(r"[:/]", model)[-1].lower()
    words = [word for word in re.split(r"[_\-. ]+", re.split(r"\d", plain)[0]) if word]
    for place, word in enumerate(words):
        if place and word in _SIZES:
            words = words[:place]
            break
    return "_".join(words) or plain or model


def labels_of(sample: Sample, by: By) -> tuple[str | None, list[str]]:
    """What networks are grouped by, and the group of each.

    Args:
        sample: the networks.
        by: one of :data:`COLUMNS`; one or several patterns, as in a shell, by the name of a group;
            or a label for each run that was given or found.

    Raises:
        UsageError: there is no such column, a group gets no network, or the labels are not one for
            each network.
    """
    members = sample.members
    if by is None:
        return None, ["all networks"] * len(members)
    if isinstance(by, str):
        checks.one_of("by", by, COLUMNS)
        return by, [one.column(by) for one in members]
    if isinstance(by, Mapping):
        return "group", _matched(members, by)
    labels = [str(label) for label in by]
    if len(labels) != sample.n_given:
        raise UsageError(
            f"by: expected a label for each of {sample.n_given} networks; got {len(labels)}"
        )
    return "group", [labels[one.place] for one in members]


def _matched(members: Sequence[Member], patterns: Mapping[str, str | Sequence[str]]) -> list[str]:
    """The first group with a pattern of each network's name, path or model; else ``other``."""
    if not patterns:
        raise UsageError("by: expected a group or more; got none")
    labels = ["other"] * len(members)
    for place, one in enumerate(members):
        texts = (one.name, one.path, str(one.model.get("name")))
        for group, given in patterns.items():
            wanted = [given] if isinstance(given, str) else list(given)
            if any(fnmatch.fnmatchcase(text, str(p)) for text in texts for p in wanted):
                labels[place] = str(group)
                break
    for group, given in patterns.items():
        if str(group) not in labels:
            asked = given if isinstance(given, str) else ", ".join(map(str, given))
            raise UsageError(
                f"group: expected a pattern of a run's path, or of a network's name; no network is "
                f"left for {printable(str(group))}={printable(asked)}"
            )
    return labels
