"""Loading a checkpoint into a network, which is built anew where the checkpoint has other sizes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from natstats.networks import zoo
from natstats.networks.builders import Builder, Classifier
from natstats.networks.checkpoints import Checkpoint, read_checkpoint
from natstats.networks.fitting import converted, looks_like, side_of, with_classes, with_side
from natstats.networks.matching import load_state, mismatch, with_keys_of
from natstats.networks.network import Network
from natstats.networks.preprocessing import GREY, NORMALISED, Preprocessing, recorded
from natstats.networks.published_weights import as_published
from natstats.networks.state_keys import Located, locate, with_classifier
from natstats.text import printable

__all__ = ["load_checkpoint", "with_checkpoint"]


def load_checkpoint(
    network: Network, builder: Builder, saved: Checkpoint, *, strict: bool = True, seed: int = 0
) -> Network:
    """A network with the weights in a checkpoint, built anew where these have other sizes.

    It gets the checkpoint's number of classes and size of images where its builder takes these as
    arguments and the user did not give them.

    Args:
        network: the network as it was built; its module may be changed.
        builder: its builder.
        saved: the checkpoint.
        strict: refuse anything that does not fit except the classifier; else load what fits.
        seed: seed of the weights that the checkpoint does not have.

    Raises:
        NatstatsError: the weights do not fit.
    """
    renamed_state, renamed = zoo.with_our_keys(network.model, saved.state)
    found = locate(network.model.state_dict(), renamed_state, saved.source)
    fitted = _Fitted(builder, network.model, found, network.preprocessing)
    if mismatch(found.state, network.model.state_dict()):
        fitted = _fitted(fitted, seed)
    builder, model, found = fitted.builder, fitted.model, fitted.found
    # Whether the weights are the published ones shows in the number of their classes.
    rebuilt, settings = as_published(builder, model, saved, fitted.n_classes)
    if rebuilt is not builder:
        builder, model = rebuilt, rebuilt.build(seed)
    left_out = load_state(
        model,
        found.state,
        saved.source,
        strict=strict,
        classifier=fitted.classifier.keys,
        hint=lambda: looks_like(builder, found.state),
    )
    own = [*saved.notes, *renamed, *found.all_notes(), *fitted.notes, *left_out, *settings]
    return replace(
        network,
        model=model,
        preprocessing=_as_recorded(fitted.preprocessing, saved),
        weights=f"checkpoint {printable(saved.source)}",
        trained=True,
        notes=_notes(own, network, builder, saved),
        builder=builder if builder.is_random else None,
    )


def _notes(
    own: list[str], network: Network, builder: Builder, saved: Checkpoint
) -> tuple[str, ...]:
    """Notes on the loading, and those of the network that still hold with these weights."""
    # What notes say of the weights that the network had before does not hold of these.
    is_said = "trained" if not builder.is_random else GREY
    kept = [note for note in network.notes if (is_said in note) == builder.is_random]
    is_recorded = recorded(saved.metadata) is not None
    return tuple(note for note in own + kept if not (is_recorded and note == NORMALISED))


@dataclass(frozen=True, eq=False)
class _Fitted:
    """A builder and its network, as far as they are fitted to a checkpoint.

    Attributes:
        builder: makes the network.
        model: the network.
        found: the network's part of the checkpoint.
        preprocessing: what the network expects of a photograph.
        classifier: what of it depends on the number of classes; empty where nothing was fitted.
        notes: what was changed, for a reader of the results.
    """

    builder: Builder
    model: nn.Module
    found: Located
    preprocessing: Preprocessing
    classifier: Classifier = field(default_factory=Classifier)
    notes: tuple[str, ...] = ()

    def n_classes(self) -> int | None:
        """How many classes the checkpoint has; None where that does not show."""
        is_known = bool(self.classifier.keys)
        classifier = self.classifier if is_known else self.builder.classifier(self.model)
        return classifier.n_classes(self.found.state)


def _fitted(before: _Fitted, seed: int) -> _Fitted:
    """Builder and network with the number of classes and the size of images of the checkpoint."""
    builder, model, preprocessing = before.builder, before.model, before.preprocessing
    own = model.state_dict()
    classifier = builder.classifier(model)
    found = with_classifier(before.found, own, classifier, builder.takes_classes())
    notes = []
    rebuilt, model = with_classes(builder, model, found.state, classifier, seed)
    if rebuilt is not builder:
        builder = rebuilt
        notes.append(
            f"the checkpoint has {builder.arguments['num_classes']} classes, and the network "
            "was built with as many"
        )
    rebuilt, model = with_side(builder, model, found.state, seed)
    side = side_of(rebuilt.arguments)
    if rebuilt is not builder and side is not None:
        builder, preprocessing = rebuilt, preprocessing.at_size(side)
        notes.append(
            f"the checkpoint is for images of {side} pixels, and the network was built for as many"
        )
    found = converted(builder, model, found)
    return _Fitted(builder, model, found, preprocessing, classifier, tuple(notes))


def _as_recorded(preprocessing: Preprocessing, saved: Checkpoint) -> Preprocessing:
    """The preprocessing with the normalisation that the file of weights records, if it has one."""
    found = recorded(saved.metadata)
    if found is None:
        return preprocessing
    mean, std = found
    n_channels = len(preprocessing.mean)
    if len(mean) == 1 and n_channels == 3:
        mean, std = mean * 3, std * 3
    saved_one = replace(preprocessing, mean=mean, std=std)
    return saved_one.in_grey() if n_channels == 1 else saved_one


def with_checkpoint(network: Network, path: Path) -> Network:
    """A copy of a network with the weights in a file; the network is left as it is.

    Its notes are about the weights that it had, and are not copied.

    Raises:
        NatstatsError: the weights cannot be read, or do not fit.
    """
    saved = read_checkpoint(path)
    copied = replace(
        network,
        model=copy.deepcopy(network.model),
        notes=(),
        preprocessing=_as_recorded(network.preprocessing, saved),
    )
    if network.builder is not None:
        loaded = load_checkpoint(copied, network.builder, saved)
        return replace(loaded, model=loaded.model.eval())
    state, notes = with_keys_of(copied.model.state_dict(), saved.state, saved.source)
    notes = [*saved.notes, *notes, *load_state(copied.model, state, saved.source)]
    return replace(
        copied, weights=f"checkpoint {printable(saved.source)}", trained=True, notes=tuple(notes)
    )
