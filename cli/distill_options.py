"""The options of ``natstats distill``: all that it takes is declared here, in the order of help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import click

from . import options
from .model_options import KeyValue, once

__all__ = ["HELP", "RECIPE_OPTIONS", "SETTINGS", "Seeds", "distill_options"]

RECIPE_OPTIONS = {
    "epochs": "epochs", "batch_size": "batch_size", "lr": "learning_rate", "size": "size",
    "amp": "amp",
}  # fmt: skip
"""Options of their own for fields of the recipe, and the fields."""

SETTINGS = frozenset(
    f"{role}{part}"
    for role in ("student", "teacher")
    for part in ("", "_checkpoint", "_weights", "_args")
) | {
    "data", "holdout", "limit", "strict", "method", "method_args", "teacher_run", "taps", "seeds",
    "preset", "fields", *RECIPE_OPTIONS,
}  # fmt: skip
"""Parameters that say what is trained; the others say how this call goes about it."""


class Seeds(click.Command):
    """A command whose ``--seed`` takes several numbers, as in ``--seed 0 1 2``."""

    called: ClassVar[dict[str, tuple[str, ...]]] = {
        "lr": ("learning_rate",),
        "data": ("images",),
    }
    """What the library calls arguments that have other names here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every word behind ``--seed`` its own option; what is no number is refused there."""
        spread: list[str] = []
        follows = False
        for word in args:
            is_value = not word.startswith("-") or word[1:].isdigit()
            if follows and is_value and spread[-1] != "--seed":
                spread.append("--seed")
            spread.append(word)
            follows = word == "--seed" or (follows and is_value)
        return super().parse_args(ctx, spread)


class _Argument(KeyValue):
    """An argument of a method, written METHOD.NAME=VALUE or NAME=VALUE."""

    name = "method.name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return name and value; the value is a Python literal where it is one, else text."""
        if not isinstance(value, str):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.replace(".", "_").isidentifier():
            self.fail(
                f"expected METHOD.NAME=VALUE, such as spectral.weight=2; got {value!r}", param, ctx
            )
        return key, super().convert(f"x={text}", param, ctx)[1]


class _Tap(click.ParamType):
    """A layer of the student and one of the teacher, written STUDENT=TEACHER."""

    name = "student=teacher"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the two names."""
        if not isinstance(value, str):
            return value
        student, equals, teacher = value.partition("=")
        if not (equals and student and teacher):
            self.fail(f"expected STUDENT=TEACHER, such as layer2=layer2; got {value!r}", param, ctx)
        return student, teacher


HELP = """Train a student network, alone or from a teacher.

Methods: ce (labels alone), kd, dkd, dist, fitnets, at, fsp, jacobian, ft, ab, ofd, reviewkd; three
published ones on frequencies, spectralkd, freekd and ffl; and spectral, which pulls the power
spectra of the student's layers towards the teacher's. kd+spectral trains with both. The spectral
terms are ours, after the abstract of Rotman and Wolf (2021), whose formulas we do not know.

An interrupted training goes on when the same command is given again, with its --out and without
--overwrite. Under torchrun every process takes its share of each batch.

Options may also come from a file (--config) or from an earlier run (--from); those on the command
line take precedence.

\b
natstats distill --student wrn_16_2 --data imagefolder:DIR --out runs/teacher
natstats distill --student wrn_16_1 --teacher wrn_16_2 --data imagefolder:DIR \\
    --teacher-checkpoint runs/teacher/student.safetensors \\
    --method kd+spectral --seed 0 1 2 --out runs/kd1
natstats distill --from runs/kd1 --seed 3 4 --out runs/kd1-more
natstats table runs/kd*
"""

_OPTIONS = (
    click.option("--student", help="Network to train: a name, or module:factory."),
    click.option("--teacher", help="Network to learn from; without it the student trains alone."),
    click.option("--data", help="Labelled images: imagefolder:DIR with DIR/train/CLASS "
                 "and DIR/val/CLASS, cifar100:ROOT, imagenet:DIR and others."),
    click.option("--from", "recorded", type=options.PATH, help="Repeat a run, or the runs of "
                 "several seeds: a folder or its distill.json."),
    click.option("--config", type=options.PATH, help="Take options from this TOML file (or YAML, "
                 "with PyYAML)."),
    click.option("--write-config", type=options.PATH,
                 help="Write all settings to this file, for --config, and stop."),
    click.option("--method", default=None, help="One of the methods above, or several "
                 "joined by +, such as kd+spectral.  [default: kd; ce without a teacher]"),
    click.option("--method-arg", "method_args", type=_Argument(), multiple=True, callback=once,
                 help="Argument of a method, such as spectral.weight=2; may be repeated."),
    click.option("--teacher-checkpoint", type=options.PATH,
                 help="File with the weights of the teacher."),
    click.option("--teacher-weights", default="default", show_default=True,
                 help="Published weights of the teacher by name, if no file is given."),
    click.option("--teacher-arg", "teacher_args", type=KeyValue(), multiple=True, callback=once,
                 help="Argument of the teacher's builder, such as num_classes=10."),
    click.option("--teacher-run", type=options.PATH,
                 help="Measured run of the teacher, for the spectral terms."),
    click.option("--student-checkpoint", type=options.PATH,
                 help="File with the weights to start from."),
    click.option("--student-weights", default="none", show_default=True,
                 help="Published weights to start from, by name."),
    click.option("--student-arg", "student_args", type=KeyValue(), multiple=True, callback=once,
                 help="Argument of the student's builder."),
    click.option("--tap", "taps", type=_Tap(), multiple=True,
                 help="Layers to compare in place of those found automatically; may be repeated."),
    click.option("--preset", default="default", show_default=True, help="Recipe of the training: "
                 "default, cifar100, imagenet and others (docs/distillation.md)."),
    click.option("--epochs", type=int, help="Epochs of the main stage.  [default: the preset's]"),
    click.option("--batch-size", type=int, help="Images per batch.  [default: the preset's]"),
    click.option("--lr", type=float, help="Learning rate.  [default: the preset's]"),
    click.option("--size", type=int,
                 help="Side of the images, in pixels.  [default: the preset's]"),
    click.option("--amp", type=click.Choice(("none", "bf16", "fp16")),
                 help="Type in which the networks compute; losses are float32."),
    click.option("--recipe", "fields", type=KeyValue(), multiple=True, callback=once,
                 help="Any other field of the recipe, such as clip=1; may be repeated."),
    click.option("--holdout", type=float, default=0.0, show_default=True, help="Evaluate on this "
                 "share of the training images, and leave the test images alone."),
    click.option("--limit", type=int,
                 help="Train on at most this many images, a random sample."),
    click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True,
                 help="Seed of the training; several give a run each: --seed 0 1 2."),
    click.option("--evaluate-every", type=int, default=1, show_default=True,
                 help="Epochs from one evaluation to the next."),
    click.option("--evaluate-on", type=int, help="Images of each evaluation, a random sample; the "
                 "last one takes all.  [default: an eighth of the training images]"),
    click.option("--gap/--no-gap", default=True, show_default=True,
                 help="Measure the spectral gap before and after the training."),
    click.option("--gap-on", type=int, help="Images for the spectral gap.  [default: 64 to 512]"),
    click.option("--gradients/--no-gradients", default=True, show_default=True,
                 help="Measure now and then how large the gradient of each term is."),
    click.option("--teacher-cache", type=options.PATH, help="Folder that keeps the teacher's "
                 "outputs, for this and other trainings.  [default: none]"),
    click.option("--teacher-cache-limit", type=float, help="Largest size of that folder, in GiB; "
                 "where there is no room, the teacher runs.  [default: what the disk allows]"),
    click.option("--compile", type=click.Choice(("none", "student", "teacher", "both")),
                 default="none", show_default=True, help="Networks that torch compiles; for "
                 "methods that take no maps of them."),
    click.option("--workers", type=int, default=0, show_default=True,
                 help="Processes that read images."),
    click.option("--device", help="Device of the networks, such as cpu, cuda or cuda:1.  "
                 "[default: cuda if there is one]"),
    click.option("--strict/--no-strict", default=True, show_default=True,
                 help="Fail on an unreadable image, or skip it with --no-strict."),
    click.option("--dry-run", is_flag=True, help="Show stages, terms and taps, and stop."),
    click.option("--tensorboard", is_flag=True, help="Write logs for TensorBoard beside the run."),
    click.option("--out", type=options.PATH,
                 help="Folder of the run.  [default: runs/STUDENT-METHOD]"),
    click.option("--overwrite", is_flag=True, help="Begin again, and replace what is there."),
    options.debug_option,
)  # fmt: skip


def distill_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to the command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
