"""The names that fields of a recipe can have, for type checkers."""

from __future__ import annotations

from typing import Literal

__all__ = ["Amp", "Augmentation", "Optimizer", "PadMode", "Schedule"]

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["step", "cosine", "constant"]
Augmentation = Literal["crop-flip", "resized-crop", "none"]
PadMode = Literal["zero", "reflect"]
Amp = Literal["none", "bf16", "fp16"]
