"""Which weights a named network is given: the choices, checked once.

Loads neither torch nor numpy, so that the command line takes defaults and words from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypedDict

from natstats import checks
from natstats.errors import UsageError

__all__ = ["INPUT_FORMS", "InputForm", "LoadOptions", "LoadSettings"]

InputForm = Literal["images", "list", "clips", "pairs"]
"""The names in :data:`INPUT_FORMS`, for type checkers."""

INPUT_FORMS = ("images", "list", "clips", "pairs")
"""What a network takes: a batch (N, C, H, W); a list of N images (detection); a batch of clips
(N, C, T, H, W) (video); or two batches, of first and second frames (optical flow)."""


@dataclass(frozen=True)
class LoadOptions:
    """Weights and arguments of a network that is given by its name.

    Attributes:
        weights: ``default`` (the newest published weights, or what a factory returns), the name of
            published weights such as ``IMAGENET1K_V1``, or ``none`` for the untrained network.
        checkpoint: a file of weights, in place of `weights`.
        checkpoint_key: where in the file the weights are, such as ``ema``; found if not given.
        model_args: arguments of the builder or the factory.
        takes: the form in which the network takes images, one of :data:`INPUT_FORMS`; by default
            known of torchvision's networks, and ``images`` for any other.

    Raises:
        UsageError: an unknown form.

    >>> LoadOptions(takes="sound")
    Traceback (most recent call last):
    natstats.errors.UsageError: takes: expected one of images, list, clips, pairs; got 'sound'
    """

    weights: str = "default"
    checkpoint: str | Path | None = None
    checkpoint_key: str | None = None
    model_args: Mapping[str, Any] | None = None
    takes: InputForm | None = None

    def __post_init__(self) -> None:
        if self.takes is not None:
            checks.one_of("takes", self.takes, INPUT_FORMS)

    def refuse_contradictions(self) -> None:
        """Raise where the options of one network do not go together.

        The constructor does not check this: a series has one set of options for all of its
        checkpoints, which come later.

        Raises:
            UsageError: weights, or ``none``, beside a checkpoint, or a key without a checkpoint.

        >>> LoadOptions(checkpoint_key="ema").refuse_contradictions()
        Traceback (most recent call last):
        natstats.errors.UsageError: checkpoint_key: expected only beside a checkpoint; got 'ema'
        """
        if self.checkpoint is not None and self.weights != LoadOptions.weights:
            raise UsageError(
                "weights: expected not to be given beside a checkpoint, which has its own; got "
                f"{self.weights!r}"
            )
        if self.checkpoint_key is not None and self.checkpoint is None:
            raise UsageError(
                f"checkpoint_key: expected only beside a checkpoint; got {self.checkpoint_key!r}"
            )

    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults, by name.

        >>> LoadOptions(model_args={}, takes="clips").given()
        {'takes': 'clips'}
        """
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        usual: tuple[Any, ...] = (None, LoadOptions.weights, {})
        return {name: value for name, value in values.items() if value not in usual}


class LoadSettings(TypedDict, total=False):
    """The fields of :class:`LoadOptions` as keyword arguments, but for the checkpoint."""

    weights: str
    checkpoint_key: str | None
    model_args: Mapping[str, Any] | None
    takes: InputForm | None
