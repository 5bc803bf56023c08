"""Where networks and images of a training come from, checked against those of a recorded run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from natstats import checks
from natstats.distill.training.data import LabelledData, open_labelled
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import classifier
from natstats.errors import NatstatsError, UsageError
from natstats.networks.network import Network
from natstats.text import printable

__all__ = ["DataSettings", "NetworkSettings"]


@dataclass(frozen=True, eq=False)
class NetworkSettings:
    """A network that is loaded by its name.

    Attributes:
        name: name of the network.
        weights: published weights, or ``none``.
        checkpoint: file of weights.
        model_args: arguments of the builder.
        loading: what else :func:`natstats.networks.load.load_network` takes.
        seed: seed of random weights; None for that of the training.
        digests: digest of the weights that a recorded run had, by its seed.
        is_other: whether something other than what that run had was asked for.
        unknown: why it cannot be loaded again, in words; empty where it can.
    """

    name: str
    weights: str = "none"
    checkpoint: str | Path | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    loading: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    digests: Mapping[int, str] = field(default_factory=dict)
    is_other: bool = False
    unknown: str = ""

    @property
    def is_random(self) -> bool:
        """Whether it starts with random weights."""
        return self.checkpoint is None and self.weights == "none"

    def changed(
        self,
        weights: str | None = None,
        checkpoint: str | Path | None = None,
        model_args: Mapping[str, Any] | None = None,
    ) -> NetworkSettings:
        """The same with the given changes; weights and a checkpoint replace each other."""
        if weights is None and checkpoint is None and not model_args:
            return self
        changes: dict[str, Any] = {"model_args": {**self.model_args, **(model_args or {})}}
        if weights is not None or checkpoint is not None:
            # The key in the file, and how strictly it must fit, belong to the replaced checkpoint.
            changes |= {"weights": weights or "none", "checkpoint": checkpoint, "loading": {}}
            changes["unknown"] = ""
        return replace(self, is_other=True, **changes)

    def load(self, role: str, n_classes: int, seed: int, device: Any = "cpu") -> Network:
        """The network, loaded; other weights than a recorded run had are refused or noted.

        Args:
            role: ``student`` or ``teacher``, for the error.
            n_classes: K.
            seed: seed of the training.
            device: where to put it.

        Raises:
            UsageError: no such network, or other weights than the recorded run had.
            NatstatsError: the weights cannot be loaded.
        """
        again = f"(--{role}-checkpoint says which file has them, --{role} {self.name} takes others)"
        if self.unknown:
            raise UsageError(f"{role}: expected weights that can be found again; {self.unknown}")
        was = self.digests.get(seed)
        try:
            found = classifier(
                self.name,
                n_classes,
                checkpoint=self.checkpoint,
                weights=self.weights,
                model_args=self.model_args,
                seed=seed if self.seed is None else self.seed,
                device=device,
                **self.loading,
            )
        except NatstatsError as error:
            if was is None or self.is_other:
                raise type(error)(_of_role(role, str(error.args[0])), *error.args[1:]) from error
            raise type(error)(
                f"{role}: expected the weights of the run that is repeated, with the digest {was}; "
                f"{error} {again}"
            ) from None
        now = found.digest() if was is not None else None
        if was == now:
            return found
        if not self.is_other:
            where = f"in {printable(self.checkpoint)}" if self.checkpoint else f"of {self.name}"
            raise UsageError(
                f"{role}: expected the weights of the run that is repeated, with the digest {was}; "
                f"those {where} have the digest {now} {again}"
            )
        note = f"the run that is repeated had other weights, with the digest {was}"
        return replace(found, notes=(*found.notes, note))


def _of_role(role: str, sentence: str) -> str:
    """An error of a network whose arguments have the name of its role in front here.

    >>> _of_role("teacher", "weights: expected none"), _of_role("student", "model: expected a name")
    ('teacher_weights: expected none', 'student: expected a name')
    """
    name, _, rest = sentence.partition(":")
    names = {"model": role, "model_args": f"{role}_args"}
    names |= {one: f"{role}_{one}" for one in ("weights", "checkpoint", "checkpoint_key")}
    return f"{names[name]}:{rest}" if name in names else sentence


@dataclass(frozen=True, eq=False)
class DataSettings:
    """Labelled images, see :func:`natstats.distill.training.data.open_labelled`.

    Attributes:
        source: source of the images.
        holdout: share of the training images that are held out.
        limit: train on at most this many; None for all.
        strict: fail on an unreadable image.
        seed: decides what is held out and what a limit keeps.
        digest: digest of the images of a recorded run; None for none.
        is_other: whether another source than that of the recorded run was asked for.
        n_train: training images of a recorded run that does not say whether there was a limit.
    """

    source: str
    holdout: float = 0.0
    limit: int | None = None
    strict: bool = True
    seed: int = 0
    digest: str | None = None
    is_other: bool = False
    n_train: int | None = None

    def __post_init__(self) -> None:
        checks.finite("holdout", self.holdout, least=0, below=1)
        if self.limit is not None:
            checks.positive_int("limit", self.limit)

    def open(self, recipe: Recipe, workers: int = 0) -> LabelledData:
        """The images.

        Raises:
            UsageError: there are none, or others than a recorded run had.
            NatstatsError: an image cannot be read.
        """
        found = self._opened(recipe, self.limit, workers)
        if self.limit is None and self.n_train is not None and self.n_train < len(found.train):
            found = self._opened(recipe, self.n_train, workers)
        if self.digest in (None, found.digest, found.listing):
            return found
        if self.is_other:
            note = f"the run that is repeated had other images, with the digest {self.digest}"
            return replace(found, notes=(*found.notes, note))
        raise UsageError(
            "data: expected the images of the run that is repeated, with the digest "
            f"{self.digest}; those of {found.source} have the digest {found.digest} "
            f"(--data {found.source} takes them as they are)"
        )

    def _opened(self, recipe: Recipe, limit: int | None, workers: int) -> LabelledData:
        return open_labelled(
            self.source, recipe, holdout=self.holdout, seed=self.seed, limit=limit,
            strict=self.strict, workers=workers,
        )  # fmt: skip
