"""The studies of distillation, each a frozen record: what is trained, on what, and what is tested.

Not a study by itself: analyses/distill_table.py trains what stands here, and reports it. The pairs
that are tested (`contrasts`) are part of a record, and so are fixed before anything is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

__all__ = [
    "STUDIES", "Arm", "Network", "Setting", "Study", "Teacher", "arms_of", "at_budgets", "digest",
]  # fmt: skip

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Network:
    """A network by name, with arguments of its builder."""

    name: str
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class Teacher:
    """How a teacher comes to be.

    Attributes:
        network: what it is.
        epochs: of its training.
        limit: training images; None for all.
        start: name of the file of published weights that it begins from; empty for random ones.
        recipe: fields in which its recipe differs from that of the study.
        has_part: whether a second one is trained without the held-out images, which weights are
            chosen with. Elsewhere the teacher has seen these images, the students have not.
    """

    network: Network
    epochs: int
    limit: int | None = None
    start: str = ""
    recipe: Arguments = field(default_factory=dict)
    has_part: bool = True


@dataclass(frozen=True)
class Setting:
    """A student, its teacher, a number of training images and of epochs.

    Attributes:
        name: short, for tables and folders.
        student: what is trained.
        teacher: name of a teacher of the study.
        limit: training images; None for all.
        epochs: of every training, also of those that choose weights.
        seeds: of part main: so many, from 0.
        arms: names of the arms that are trained; all if empty.
        is_wider: whether a grid goes on by factors of ten while its end is best.
    """

    name: str
    student: Network
    teacher: str
    limit: int | None
    epochs: int
    seeds: int = 8
    arms: tuple[str, ...] = ()
    is_wider: bool = False


@dataclass(frozen=True)
class Arm:
    """A method with its arguments, one of which has a grid.

    Attributes:
        name: for tables and folders.
        method: a name, or several with +.
        arguments: those that are fixed.
        tuned: argument with a grid of `factors` times its default; empty for nothing to choose.
        beside: arm whose chosen arguments are taken over.
    """

    name: str
    method: str
    arguments: Arguments = field(default_factory=dict)
    tuned: str = ""
    beside: str = ""


@dataclass(frozen=True)
class Study:
    """A study: everything that decides its numbers.

    Attributes:
        name: of the study.
        title: what it is on, in words.
        size: side of the images, pixels.
        recipe: fields of the recipe that all trainings share.
        teachers: by name.
        settings: what is trained.
        arms: methods.
        contrasts: pairs of arms, first over second, fixed before training.
        controls: pairs whose gain, where it is seen, shows that a gain could be seen.
        factors: of the grids, on the default of an argument.
        holdout: share of the training images that weights are chosen on.
        choosing_seeds: of part weights.
        ablation: setting, and arms that are trained in it; all on the held-out images.
        ablation_contrasts: pairs of them.
        ablation_seeds: none of those that choose.
        budget_setting: in which epochs are varied.
        budgets: epochs.
        budget_arms: arms of `arms`.
        budget_seeds: so many, from 0.
        looks: how often a training is evaluated on the way.
        look_images: evaluation images of such a look; the last one is on all.
        goal: arms that are held against kd, at, ofd and dkd beside the planned contrasts.
        note: what a reader of its tables has to know; empty for nothing.
    """

    name: str
    title: str
    size: int
    recipe: Arguments
    teachers: Mapping[str, Teacher]
    settings: tuple[Setting, ...]
    arms: tuple[Arm, ...]
    contrasts: tuple[tuple[str, str], ...]
    controls: tuple[tuple[str, str], ...] = (("kd", "ce"), ("at", "ce"))
    factors: tuple[float, ...] = (0.1, 1.0, 10.0)
    holdout: float = 0.2
    choosing_seeds: tuple[int, ...] = (100,)
    ablation_setting: str = ""
    ablation: tuple[Arm, ...] = ()
    ablation_contrasts: tuple[tuple[str, str], ...] = ()
    ablation_seeds: tuple[int, ...] = (200, 201, 202, 203)
    budget_setting: str = ""
    budgets: tuple[int, ...] = (6, 30, 100)
    budget_arms: tuple[str, ...] = ("ce", "kd", "kd+spectral", "at")
    budget_seeds: int = 4
    looks: int = 10
    look_images: int = 1000
    goal: tuple[str, ...] = ("kd+spectral",)
    note: str = ""

    def setting(self, name: str) -> Setting:
        """The setting of this name."""
        return {one.name: one for one in self.settings}[name]

    def planned(self) -> dict[str, list[list[str]]]:
        """What is tested, as it was fixed before training."""
        pairs = {
            "contrasts": self.contrasts, "controls": self.controls,
            "ablation_contrasts": self.ablation_contrasts,
        }  # fmt: skip
        return {name: [list(pair) for pair in own] for name, own in pairs.items()}


def digest(value: Any, length: int = 12) -> str:
    """A short name for plain values or a record, the same whenever they are the same."""
    plain = value if isinstance(value, dict | list | tuple | str) else asdict(value)
    text = json.dumps(plain, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def arms_of(study: Study, setting: Setting) -> list[Arm]:
    """The arms that are trained in a setting."""
    names = setting.arms or [arm.name for arm in study.arms]
    return [arm for arm in study.arms if arm.name in names]


def at_budgets(setting: Setting, budgets: Sequence[int]) -> list[Setting]:
    """A setting with other numbers of epochs."""
    return [replace(setting, epochs=epochs) for epochs in budgets]


def _tuned(name: str, **arguments: Any) -> Arm:
    """A method whose weight is chosen."""
    own = {f"{name}.{key}": value for key, value in arguments.items()}
    return Arm(name, name, own, f"{name}.weight")


# The two terms of power spectra alone, which was the default when the plans were fixed.
POWER: Arguments = {"spectral.coherence": 0.0}


def _with_spectral(name: str) -> Arm:
    return Arm(f"{name}+spectral", f"{name}+spectral", POWER, "spectral.weight", name)


# Beside kd the weight of the labels is 1, as in all other methods. ofd's teacher keeps its running
# statistics, so that what it returns is that of other methods, and can be kept.
BASES = (
    Arm("ce", "ce"),
    _tuned("kd", ce_weight=1.0),
    _tuned("at"),
    _tuned("ofd", teacher_bn="running"),
    _tuned("dkd"),
)
COMBINED = tuple(_with_spectral(name) for name in ("kd", "at", "ofd", "dkd"))
BASELINES = tuple(
    _tuned(name)
    for name in ("dist", "reviewkd", "fitnets", "ft", "spectralkd", "freekd", "ffl")
)  # fmt: skip
ARMS = (*BASES, _tuned("spectral", coherence=0.0), *COMBINED, *BASELINES)

# ce+spectral is spectral itself, as the weight of the labels is 1 in both.
CONTRASTS = (("spectral", "ce"), *((arm.name, arm.beside) for arm in COMBINED))


def _variant(name: str, **arguments: Any) -> Arm:
    own = POWER | {f"spectral.{key}": value for key, value in arguments.items()}
    return Arm(f"kd+{name}", "kd+spectral", own, "spectral.weight", "kd")


def _control(name: str) -> Arm:
    """One of the optional terms by itself, with no power spectrum beside it."""
    return _variant(name, spectrum=0.0, exponent=0.0, **{name: 1.0})


ABLATION = (
    Arm("ce", "ce"),
    _tuned("kd", ce_weight=1.0),
    _variant("both"),
    _variant("spectrum", exponent=0.0),
    _variant("exponent", spectrum=0.0, exponent=1.0),
    _variant("level-free", level="free"),
    _control("channels"),
    _control("amplitude"),
    _control("phase"),
    _control("coherence"),
    _control("spatial"),
    *(
        Arm(f"kd+{name}", f"kd+{name}", {}, f"{name}.weight", "kd")
        for name in ("at", "freekd", "ffl")
    ),
    # Its own soft targets and weight of the labels would stand beside those of kd.
    Arm(
        "kd+spectralkd",
        "kd+spectralkd",
        {"spectralkd.kd_weight": 0.0, "spectralkd.ce_weight": 1.0},
        "spectralkd.weight",
        "kd",
    ),
    _variant("pre", activation="pre"),
    _variant("ring", weighting="ring"),
    _variant("low", weighting="low"),
    _variant("high", weighting="high"),
    _variant("deep", layers="deep"),
    _variant("shallow", layers="shallow"),
    _variant("skip-last", skip_last=1),
    # Added when 33 of the trainings that choose weights were done, and none of the others.
    _control("relative"),
    _control("likeness"),
    _variant("both-likeness", likeness=10.0),
    _variant("both-spatial", spatial=1.0),
)
# The best of the ablation on textures, tested on the two other data sets.
BEST = _control("coherence")
# Tried after the ablation, and so in none of the planned contrasts: the term that was best beside
# the power spectra in place of alone, and other methods beside kd that have connectors as it does.
LATER = (
    _variant("both-coherence", coherence=10.0),
    Arm("kd+ofd", "kd+ofd", {"ofd.teacher_bn": "running"}, "ofd.weight", "kd"),
    Arm("kd+fitnets", "kd+fitnets", {}, "fitnets.weight", "kd"),
    _control("spatial"),
)
# With 10,000 images, weights were first taken from the setting with 2,000, and power spectra beside
# kd turned out below kd. So a smaller weight was tried, and then weights were chosen there as well.
OTHER_WEIGHTS = tuple(
    Arm(f"kd+spectral-{weight:g}", "kd+spectral", POWER | {"spectral.weight": weight}, "", "kd")
    for weight in (3.0, 0.3)
)
# Held against kd, at, ofd and dkd: power spectra, coherence, and both, the default since 0.14.
GOAL = ("kd+spectral", BEST.name, LATER[0].name)
ABLATION_CONTRASTS = tuple((arm.name, "kd") for arm in ABLATION if arm.beside == "kd")

# Numbers of 32 bits throughout: half precision is no faster on most CPUs. The changes of the images
# in an epoch are the same for all seeds, so that what a teacher returns can be kept.
RECIPE: Arguments = {
    "batch_size": 64, "learning_rate": 0.1, "schedule": "cosine", "augmentation": "crop-flip",
    "amp": "none", "channels_last": True, "augmentation_seed": 0,
}  # fmt: skip
CIFAR = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}

RESNET8 = Network("cifar_resnet8")
RESNET20 = Network("cifar_resnet20")
COARSE = {"stem_stride": 2}


# What differs in the trainings of teachers: no outputs of theirs are kept meanwhile.
TUNED: Arguments = {"augmentation_seed": None}


def _cifar_teacher(depth: int) -> Teacher:
    recipe = {**TUNED, "learning_rate": 0.01, "warmup_epochs": 0, "batch_size": 128}
    return Teacher(
        Network(f"cifar_resnet{depth}", {"shortcut": "conv"}), 2,
        start=f"cifar10_resnet{depth}.pth", recipe=recipe, has_part=False,
    )  # fmt: skip


TEXTURES = Study(
    name="textures",
    title="textures: 24 classes of photographs' parts",
    size=32,
    recipe=RECIPE,
    teachers={"r20": Teacher(RESNET20, 60, limit=1200, recipe=TUNED, has_part=False)},
    settings=(Setting("r8-r20", RESNET8, "r20", 1200, 30),),
    arms=(*ARMS, BEST, *LATER),
    goal=GOAL,
    contrasts=CONTRASTS,
    ablation_setting="r8-r20",
    ablation=(*ABLATION, LATER[0]),
    ablation_contrasts=ABLATION_CONTRASTS,
    budget_setting="r8-r20",
    note=(
        "The trainings of version 0.9.0 (those that chose weights, among them 33 of variants) had "
        "another teacher of this kind, 91.4 % of the test images, whose weights were lost with the "
        "machine. All final trainings have the teacher of the record."
    ),
)
CIFAR10 = Study(
    name="cifar10",
    title="CIFAR-10 as JPEG",
    size=32,
    recipe={**RECIPE, **CIFAR},
    teachers={"r56": _cifar_teacher(56), "r20": _cifar_teacher(20)},
    settings=(
        Setting(
            "w10-r20-2k", Network("wrn_10_1"), "r20", 2000, 30,
            arms=tuple(arm.name for arm in (*ARMS, BEST, *LATER)), is_wider=True,
        ),
        # 2,512 steps, the arms that the claim is about. ofd and kd+both-coherence were added before
        # anything was trained here.
        Setting(
            "r8-r56-10k", RESNET8, "r56", 10000, 16,
            arms=(
                "ce", "kd", "at", "ofd", "kd+spectral", "at+spectral", "kd+both-coherence",
                *(arm.name for arm in OTHER_WEIGHTS),
            ),
            is_wider=True,
        ),
    ),
    arms=(*ARMS, BEST, *LATER, *OTHER_WEIGHTS),
    goal=(*GOAL, *(arm.name for arm in OTHER_WEIGHTS)),
    contrasts=CONTRASTS,
    budget_setting="w10-r20-2k",
    budget_arms=("ce", "kd", "kd+both-coherence"),
)  # fmt: skip
TINY40 = Study(
    name="tiny40",
    title="40 classes of Tiny ImageNet",
    size=64,
    recipe=RECIPE,
    teachers={
        "r20": Teacher(
            Network("cifar_resnet20", {"shortcut": "conv", "num_classes": 40, **COARSE}), 30,
            start="cifar100_resnet20.pth", recipe={**TUNED, "learning_rate": 0.05}, has_part=False,
        )
    },
    settings=(
        Setting("r8-r20", Network("cifar_resnet8", COARSE), "r20", 2000, 30, is_wider=True),
    ),
    arms=(*ARMS, BEST, *LATER),
    goal=GOAL,
    contrasts=CONTRASTS,
    budget_setting="r8-r20",
)  # fmt: skip

STUDIES: dict[str, Study] = {one.name: one for one in (CIFAR10, TINY40, TEXTURES)}
"""Every study by its name."""
