"""How a network is trained: optimiser, learning rate over time, and changes of the images."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from natstats import checks
from natstats.distill.training.recipe_names import Amp, Augmentation, Optimizer, PadMode, Schedule
from natstats.errors import UsageError

__all__ = [
    "AMPS",
    "AUGMENTATIONS",
    "OPTIMIZERS",
    "PAD_MODES",
    "PRESETS",
    "SCHEDULES",
    "Preset",
    "Recipe",
]

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("step", "cosine", "constant")
AUGMENTATIONS = ("crop-flip", "resized-crop", "none")
PAD_MODES = ("zero", "reflect")
AMPS = ("none", "bf16", "fp16")

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_SMALLEST = 5
_LEAST_ALPHA = 0.001
_STRONGEST = 30  # magnitude of RandAugment, which has 31 steps


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Every field is checked.

    Attributes:
        epochs: length of the main stage.
        batch_size: images in a step, over all processes.
        optimizer: ``sgd`` or ``adamw``.
        learning_rate: before any factor of the schedule.
        momentum: momentum of SGD, or the first beta of AdamW.
        nesterov: momentum in Nesterov's form; SGD only.
        weight_decay: added to the gradient by SGD, taken from the weights by AdamW.
        decay_vectors: False takes parameters of one axis (biases, batch norm) out of the decay.
        schedule: ``step``, ``cosine`` or ``constant``.
        milestones: epochs at which ``step`` lowers the rate; fractions are allowed.
        gamma: factor of ``step`` at each milestone.
        warmup_epochs: epochs in which the learning rate rises in a straight line, step by step.
        clip: largest norm of the gradient of all parameters; None for no limit.
        label_smoothing: smoothing of the labels in the cross-entropy.
        augmentation: ``crop-flip``, a random cut of the padded image; ``resized-crop``, a random
            part of 8 to 100 % of the area scaled to the size; or ``none``.
        flip: whether the first two mirror images left to right, each with a chance of one half;
            None for yes, except in data sets of digits and characters (mnist, kmnist, svhn), whose
            mirror images are neither.
        pad_mode: padding for ``crop-flip``, ``zero`` (black pixels) or ``reflect``.
        padding: pixels added on every side for ``crop-flip``.
        augmentation_seed: seed of the random changes of the images; None for that of the training.
            If trainings with different seeds share it, they see the same changed images in
            different orders, and a teacher's outputs can be kept for all of them.
        draws: number of random changes drawn for every image; each epoch takes the next, and after
            the last the first again. None for new ones in every epoch.
        size: side of the images that the network sees, pixels; None for the shorter side of the
            smallest training image.
        resize: shorter side of an evaluated image before its centre is cut out, pixels; None for
            the size. Of training images with ``crop-flip`` and ``none`` it is always the size.
        mean: subtracted from each channel in [0, 1]; None together with `std` for those of the
            training images.
        std: divisor of each channel after that.
        amp: ``none``, or the type in which the networks compute in training: ``bf16`` or ``fp16``.
            Evaluation is always in float32.
        channels_last: whether networks and images are in the channels-last memory format.
        randaugment: strength of the two random changes of colour or shape that every training image
            gets (RandAugment, Cubuk et al. 2020), 1 to 30; 0 for none. 9 is usual.
        mixup: alpha of mixup (Zhang et al. 2018): a batch is blended with itself in another order,
            its labels likewise; 0 for none.
        cutmix: alpha of CutMix (Yun et al. 2019): a rectangle comes from another image; 0 for
            none. With `mixup` too, each batch has one or the other, with equal chances.
        ema: decay of a running average of the student's weights over the steps, which is evaluated
            and saved in their place; 0 for none.
        sync_bn: whether batch norms of the student see the batches of all processes, on CUDA
            devices. A single process sees the whole batch anyway.
        accumulate: number of parts in which a batch goes through the networks, one after another,
            before its one step, which saves memory. The gradient is the same except for batch norms
            and for losses that compare the images of a batch (dist, spectral.relative,
            spectral.likeness, spectra of a teacher run), which see one part at a time.

    Raises:
        UsageError: a field is invalid.

    >>> Recipe(epochs=10, schedule="step", milestones=(5, 8)).milestones
    (5, 8)
    >>> Recipe(momentum=1.5)
    Traceback (most recent call last):
    natstats.errors.UsageError: momentum: expected a number that is at least 0 and below 1; got 1.5
    """

    epochs: int = 60
    batch_size: int = 64
    optimizer: Optimizer = "sgd"
    learning_rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay_vectors: bool = True
    schedule: Schedule = "cosine"
    milestones: tuple[float, ...] = ()
    gamma: float = 0.1
    warmup_epochs: float = 0
    clip: float | None = None
    label_smoothing: float = 0.0
    augmentation: Augmentation = "crop-flip"
    pad_mode: PadMode = "reflect"
    padding: int = 4
    augmentation_seed: int | None = None
    draws: int | None = None
    size: int | None = None
    resize: int | None = None
    mean: tuple[float, ...] | None = _IMAGENET["mean"]
    std: tuple[float, ...] | None = _IMAGENET["std"]
    amp: Amp = "none"
    channels_last: bool = False
    flip: bool | None = None
    randaugment: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    ema: float = 0.0
    sync_bn: bool = False
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            checks.positive_int(name, getattr(self, name))
        checks.positive_int("padding", self.padding, 0)
        least = {"augmentation_seed": 0, "draws": 1, "size": _SMALLEST, "resize": _SMALLEST}
        for name, smallest in least.items():
            if getattr(self, name) is not None:
                checks.positive_int(name, getattr(self, name), smallest)
        for name, allowed in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("augmentation", AUGMENTATIONS),
            ("pad_mode", PAD_MODES),
            ("amp", AMPS),
        ):
            checks.one_of(name, getattr(self, name), allowed)
        for name in ("nesterov", "decay_vectors", "channels_last", "sync_bn", "flip"):
            value = getattr(self, name)
            if not isinstance(value, bool) and (name != "flip" or value is not None):
                raise UsageError(f"{name}: expected true or false; got {value!r}")
        checks.finite("learning_rate", self.learning_rate, above=0)
        checks.finite("momentum", self.momentum, least=0, below=1)
        checks.finite("weight_decay", self.weight_decay, least=0)
        checks.finite("gamma", self.gamma, above=0, most=1)
        checks.finite("warmup_epochs", self.warmup_epochs, least=0, below=self.epochs)
        checks.finite("label_smoothing", self.label_smoothing, least=0, below=1)
        checks.finite("ema", self.ema, least=0, below=1)
        for name in ("mixup", "cutmix"):
            alpha = checks.finite(name, getattr(self, name), least=0)
            if 0 < alpha < _LEAST_ALPHA:
                raise UsageError(f"{name}: expected 0 or at least {_LEAST_ALPHA}; got {alpha:g}")
        checks.positive_int("randaugment", self.randaugment, 0)
        if self.randaugment > _STRONGEST:
            raise UsageError(
                f"randaugment: expected a whole number from 0 to {_STRONGEST}; "
                f"got {self.randaugment}"
            )
        if self.clip is not None:
            checks.finite("clip", self.clip, above=0)
        self._check_together()

    def _check_together(self) -> None:
        if self.accumulate > 1 and 2 * self.accumulate > self.batch_size:
            raise UsageError(
                f"accumulate: expected at most half of the batch of {self.batch_size}, as a batch "
                f"norm needs two images; got {self.accumulate}"
            )
        if self.flip and self.augmentation == "none":
            raise UsageError("flip: expected an augmentation beside it; got none")
        if self.nesterov and self.optimizer == "sgd" and not self.momentum:
            raise UsageError("nesterov: expected a momentum above 0 beside it; got 0")
        object.__setattr__(self, "milestones", _numbers("milestones", self.milestones))
        rising = (0, *self.milestones, self.epochs)
        if any(after <= before for before, after in itertools.pairwise(rising)):
            raise UsageError(
                f"milestones: expected rising epochs between 0 and {self.epochs}; "
                f"got {list(self.milestones)}"
            )
        if (self.schedule == "step") != bool(self.milestones):
            raise UsageError(
                "milestones: expected with the schedule step and with no other; "
                f"got {list(self.milestones)} with {self.schedule}"
            )
        if None not in (self.size, self.resize) and self.resize < self.size:  # type: ignore[operator]
            raise UsageError(f"resize: expected at least the size {self.size}; got {self.resize}")
        is_reflected = self.augmentation == "crop-flip" and self.pad_mode == "reflect"
        if is_reflected and self.size is not None:
            checks.finite("padding", self.padding, below=self.size)
        if (self.mean is None) != (self.std is None):
            raise UsageError(f"std: expected together with mean or not at all; got {self.std}")
        if self.mean is not None:
            for name in ("mean", "std"):
                values = _numbers(name, getattr(self, name))
                if len(values) != 3 or (name == "std" and min(values) <= 0):
                    above = " above 0" if name == "std" else ""
                    raise UsageError(f"{name}: expected three numbers{above}; got {list(values)}")
                object.__setattr__(self, name, values)

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Recipe:
        """A recipe of :data:`PRESETS`, with other values for some fields.

        Fields that depend on a changed one follow it unless they are given: milestones keep their
        shares of the epochs, and are dropped with another schedule; the warm-up keeps its number of
        epochs, up to half of all; `resize` keeps its proportion to the size; `flip` is dropped with
        the augmentation.

        Raises:
            UsageError: no such preset or field, or an invalid value.

        >>> Recipe.from_preset("cifar100").milestones
        (150, 180, 210)
        >>> Recipe.from_preset("cifar100", epochs=60).milestones
        (37.5, 45, 52.5)
        >>> [Recipe.from_preset("default", epochs=n).warmup_epochs for n in (60, 6, 1)]
        [1, 1, 0.5]
        """
        checks.one_of("preset", name, PRESETS)
        return PRESETS[name].recipe.changed(**changes)

    def changed(self, **changes: Any) -> Recipe:
        """The same with other values for some fields, see :meth:`from_preset`.

        Raises:
            UsageError: no such field, or an invalid value.
        """
        fields = [field.name for field in dataclasses.fields(self)]
        for key in changes:
            checks.one_of("recipe field", key, fields)
        if changes.get("schedule", self.schedule) != "step":
            changes.setdefault("milestones", ())
        if "epochs" in changes:
            share = Fraction(checks.positive_int("epochs", changes["epochs"]), self.epochs)
            changes.setdefault("milestones", tuple(_times(at, share) for at in self.milestones))
            if share != 1:
                changes.setdefault("warmup_epochs", self.warmup_in(changes["epochs"]))
        if changes.get("augmentation") == "none":
            changes.setdefault("flip", None)
        if self.resize is not None and self.size is not None and changes.get("size") is not None:
            checks.positive_int("size", changes["size"], _SMALLEST)
            changes.setdefault("resize", round(changes["size"] * self.resize / self.size))
        return dataclasses.replace(self, **changes)

    def warmup_in(self, epochs: int) -> float:
        """Epochs of warm-up in a stage of `epochs` epochs: the recipe's, at most half of the stage.

        Keeping the share of the stage, as milestones do, would leave a step or two of warm-up in a
        short training, where starting with a large learning rate does the same harm as in a long
        one.
        """
        if epochs == self.epochs:
            return self.warmup_epochs
        half = Fraction(epochs, 2)
        return self.warmup_epochs if self.warmup_epochs <= half else _times(1, half)

    def to_dict(self) -> dict[str, Any]:
        """The fields, fit for JSON.

        >>> Recipe.from_dict(Recipe().to_dict()) == Recipe()
        True
        """
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that :meth:`to_dict` wrote.

        Raises:
            UsageError: an unknown field, or an invalid value.
        """
        fields = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            checks.one_of("recipe field", key, fields)
        return cls(**values)


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        numbers = tuple(values)
        good = all(math.isfinite(number) for number in numbers)
    except (TypeError, OverflowError):  # a whole number may be larger than any float
        good = False
    if not good:
        raise UsageError(f"{name}: expected a list of numbers; got {values!r}")
    return numbers


def _times(value: float, share: Fraction) -> float:
    """The product, a whole number where it is one."""
    product = Fraction(value) * share
    return product.numerator if product.denominator == 1 else float(product)


@dataclass(frozen=True)
class Preset:
    """A recipe by name: published elsewhere, or ours.

    Attributes:
        title: what it is for, in a line.
        source: repository and commit that it was read from, or ``ours``.
        recipe: its values.
    """

    title: str
    source: str
    recipe: Recipe


_CIFAR = Recipe(
    epochs=240,
    batch_size=64,
    learning_rate=0.05,
    nesterov=False,
    schedule="step",
    milestones=(150, 180, 210),
    pad_mode="zero",
    size=32,
    mean=(0.5071, 0.4867, 0.4408),
    std=(0.2675, 0.2565, 0.2761),
)
_OVERHAUL_CIFAR = Recipe(
    epochs=200,
    batch_size=128,
    learning_rate=0.1,
    schedule="step",
    milestones=(100, 150),
    pad_mode="reflect",
    size=32,
    mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
    std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
)
_IMAGENET_100 = Recipe(
    epochs=100,
    batch_size=256,
    learning_rate=0.1,
    nesterov=False,
    weight_decay=1e-4,
    schedule="step",
    milestones=(30, 60, 90),
    augmentation="resized-crop",
    size=224,
    resize=256,
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "default": Preset("small labelled sets of small images", "ours", Recipe(warmup_epochs=1)),
        "cifar100": Preset(
            "CIFAR-100 as in most of the distillation literature; a learning rate of 0.01 for "
            "MobileNetV2 and ShuffleNet",
            "HobbitLong/RepDistiller at b84f547, and megvii-research/mdistiller at a08d46f",
            _CIFAR,
        ),
        "cifar100-overhaul": Preset(
            "CIFAR-100 of the overhaul of feature distillation; a batch of 64 with PyramidNet",
            "clovaai/overhaul-distillation at 76344a8",
            _OVERHAUL_CIFAR,
        ),
        "imagenet": Preset(
            "ImageNet, 100 epochs",
            "yoshitomo-matsubara/torchdistill at 3e4373c",
            _IMAGENET_100,
        ),
        "imagenet-overhaul": Preset(
            "ImageNet of the overhaul of feature distillation, with Nesterov's momentum",
            "clovaai/overhaul-distillation at 76344a8",
            _IMAGENET_100.changed(nesterov=True),
        ),
        "imagenet-mdistiller": Preset(
            "ImageNet with batches of 512; a batch of 128 and a rate of 0.05 for the overhaul",
            "megvii-research/mdistiller at a08d46f",
            _IMAGENET_100.changed(batch_size=512, learning_rate=0.2),
        ),
    }
)
"""Recipes by name. Those that were published differ in what they report (the last epoch or the
best one) and in the number of seeds; here it is always the accuracy after the last epoch."""
