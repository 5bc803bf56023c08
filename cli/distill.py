"""``natstats distill``: train a student network, alone or from a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, output
from .interruptions import interruptions
from .model_options import KeyValue, once
from .training_lines import logs

if TYPE_CHECKING:
    from natstats.distill.results import DistillationRun
    from natstats.distill.training.data import LabelledData
    from natstats.distill.training.distributed import Processes
    from natstats.distill.training.recipes import Recipe
    from natstats.distill.training.setup import Distillation

__all__ = ["command"]

DECIDED = {"learning_rate": "lr", "batch_size": "batch_size", "epochs": "epochs", "size": "size",
           "amp": "amp"}  # fmt: skip
"""Fields of a recipe with an option of their own."""


LOOKS = ("evaluate_every", "evaluate_on", "gap", "gap_on", "gradients")
"""Options that say what is looked at on the way; the weights do not depend on them."""


class _Seeds(click.Command):
    """A command whose ``--seed`` takes several numbers, as in ``--seed 0 1 2``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give every number behind ``--seed`` its own option."""
        spread: list[str] = []
        follows = False
        for word in args:
            if follows and word.isdigit() and spread[-1] != "--seed":
                spread.append("--seed")
            spread.append(word)
            follows = word == "--seed" or (follows and word.isdigit())
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

Methods: ce (the labels alone), kd, dkd, dist, fitnets, at, fsp, jacobian, ft, ab, ofd, reviewkd,
three of others on frequencies, spectralkd, freekd and ffl, and spectral, which brings the power
spectra of the student's layers to the teacher's; kd+spectral is both. The spectral terms are ours,
after the abstract of Rotman and Wolf (2021), whose own formulas are not open to us.

A training that was cut goes on when the same command is given again, with its --out and without
--overwrite. Under torchrun every process takes its share of each batch.

\b
natstats distill --student wrn_16_2 --data imagefolder:DIR --out runs/teacher
natstats distill --student wrn_16_1 --teacher wrn_16_2 --data imagefolder:DIR \\
    --teacher-checkpoint runs/teacher/student.safetensors \\
    --method kd+spectral --seed 0 1 2 --out runs/kd1
natstats table runs/kd*
"""


@click.command("distill", cls=_Seeds, help=HELP)
@click.option("--student", required=True, help="Network to train: a name, or module:factory.")
@click.option("--teacher", help="Network to learn from; none trains the student alone.")
@click.option("--data", required=True, help="Labelled images: imagefolder:DIR with DIR/train/CLASS "
              "and DIR/val/CLASS, cifar100:ROOT, imagenet:DIR, ...")  # fmt: skip
@click.option("--method", default=None, help="One of ce, kd, dkd, dist, fitnets, at, fsp, "
              "jacobian, ft, ab, ofd, reviewkd, spectralkd, freekd, ffl, spectral, or several "
              "with +.  [default: kd; ce without a teacher]")  # fmt: skip
@click.option("--method-arg", "method_args", type=_Argument(), multiple=True, callback=once,
              help="Argument of a method, such as spectral.weight=2; repeat it.")  # fmt: skip
@click.option("--teacher-checkpoint", type=options.PATH, help="The teacher's weights: a file.")
@click.option("--teacher-weights", default="default", show_default=True,
              help="The teacher's published weights by name, where there is no file.")  # fmt: skip
@click.option("--teacher-arg", "teacher_args", type=KeyValue(), multiple=True, callback=once,
              help="Argument of the teacher's builder, such as num_classes=10.")  # fmt: skip
@click.option("--teacher-run", type=options.PATH,
              help="Measured run of the teacher, for the spectral terms.")  # fmt: skip
@click.option("--student-checkpoint", type=options.PATH, help="Weights to start from.")
@click.option("--student-weights", default="none", show_default=True,
              help="Published weights to start from.")  # fmt: skip
@click.option("--student-arg", "student_args", type=KeyValue(), multiple=True, callback=once,
              help="Argument of the student's builder.")  # fmt: skip
@click.option("--tap", "taps", type=_Tap(), multiple=True,
              help="Layers to compare in place of those that are found; repeat it.")  # fmt: skip
@click.option("--preset", default="default", show_default=True, help="Recipe of the training: "
              "default, cifar100, cifar100-overhaul, imagenet, ...")  # fmt: skip
@click.option("--epochs", type=int, help="Of the main stage.  [default: the preset's]")
@click.option("--batch-size", type=int, help="[default: the preset's]")
@click.option("--lr", type=float, help="Learning rate.  [default: the preset's]")
@click.option("--size", type=int, help="Side of the images, pixels.  [default: the preset's]")
@click.option("--amp", type=click.Choice(("none", "bf16", "fp16")),
              help="Type in which the networks compute; losses are float32.")  # fmt: skip
@click.option("--recipe", "fields", type=KeyValue(), multiple=True, callback=once,
              help="Any other field of the recipe, such as clip=1; repeat it.")  # fmt: skip
@click.option("--holdout", type=float, default=0.0, show_default=True, help="Evaluate on this "
              "share of the training images, and leave the test images alone.")  # fmt: skip
@click.option("--limit", type=int, help="Train on at most this many images, a random sample.")
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True,
              help="Of the training; several give a run each: --seed 0 1 2.")  # fmt: skip
@click.option("--evaluate-every", type=int, default=1, show_default=True,
              help="Epochs between looks at the evaluation images.")  # fmt: skip
@click.option("--teacher-cache", type=options.PATH, help="Folder that keeps the teacher's "
              "outputs, for this and other trainings.  [default: none]")  # fmt: skip
@click.option("--evaluate-on", type=int, help="Images of every look but the last, which is on all: "
              "a random sample.  [default: an eighth of the training images]")  # fmt: skip
@click.option("--gap/--no-gap", default=True, show_default=True,
              help="Measure the spectral gap before and after the training.")  # fmt: skip
@click.option("--gap-on", type=int, help="Images for it.  [default: 64 to 512]")
@click.option("--gradients/--no-gradients", default=True, show_default=True,
              help="Measure now and then how hard each term pulls.")  # fmt: skip
@click.option("--workers", type=int, default=0, show_default=True,
              help="Processes that read images.")  # fmt: skip
@click.option("--device", help="[default: cuda if there is any, else cpu]")
@click.option("--strict/--no-strict", default=True, show_default=True,
              help="Fail on an unreadable image, or skip it.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show stages, terms and taps, and stop.")
@click.option("--tensorboard", is_flag=True, help="Write logs for TensorBoard beside the run.")
@click.option("--out", type=options.PATH, help="Run directory.  [default: runs/STUDENT-METHOD]")
@click.option("--overwrite", is_flag=True, help="Begin again, and replace what is there.")
@options.debug_option
def command(**settings: Any) -> None:
    """Train a student network, alone or from a teacher."""
    from natstats.distill.training.distributed import processes

    with processes(settings.pop("device")) as together:
        _distill(together, **settings)


def _distill(together: Processes, **settings: Any) -> None:
    from natstats.distill.training.data import open_labelled
    from natstats.distill.training.out_folders import check_out, check_seeds_out, finished
    from natstats.errors import UsageError
    from natstats.files.paths import expanded
    from natstats.runs import store

    seeds = settings.pop("seeds")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"seed: expected each seed once; got {' '.join(map(str, seeds))}")
    teacher = settings["teacher"]
    method = settings.pop("method") or ("ce" if teacher is None else "kd")
    given, overwrite = settings.pop("out"), settings["overwrite"]
    name = f"{settings['student']}-{method}".replace(":", "-").replace("/", "-")
    path = store.free_path(Path("runs") / name) if given is None else expanded(given, "out")
    folders = [path if len(seeds) == 1 else path / f"seed-{seed}" for seed in seeds]
    if not settings["dry_run"]:
        if len(seeds) > 1:
            check_seeds_out(path)
        for folder in folders:
            if not _is_finished(folder, overwrite):
                check_out(folder, overwrite)
    recipe = _recipe(settings)
    data = open_labelled(
        settings.pop("data"),
        recipe,
        holdout=settings.pop("holdout"),
        limit=settings.pop("limit"),
        strict=settings.pop("strict"),
        workers=settings["workers"],
    )
    taught = _teacher(settings, len(data.classes), together)

    def setup_of(seed: int) -> Distillation:
        return _setup(together, settings, data, recipe, taught, method, seed)

    if settings["dry_run"]:
        _say(together, *setup_of(seeds[0]).text().split("\n"))
        return
    todo = []
    for seed, folder in zip(seeds, folders, strict=True):
        run = None if overwrite else finished(setup_of(seed), folder, together.world)
        if run is None:
            todo.append((seed, folder))
            continue
        _say(together, f"{folder} is there already and taken as it is.")
        if len(seeds) == 1:
            _summary(together, run, folder)
    with interruptions(path, folders, overwrite):
        for seed, folder in todo:
            _train(together, settings, setup_of(seed), folder)
        if len(seeds) > 1 and together.is_first:
            _compare(path)


def _say(together: Processes, *lines: str) -> None:
    if together.is_first:
        for line in lines:
            output.say(line)


def _is_finished(folder: Path, overwrite: bool) -> bool:
    from natstats.distill.run_folders import RECORD

    return not overwrite and (folder / RECORD).is_file()


def _recipe(settings: dict[str, Any]) -> Recipe:
    """The preset with the fields that were asked for."""
    from natstats.distill.training.recipes import Recipe
    from natstats.errors import UsageError

    fields: dict[str, Any] = dict(settings.pop("fields"))
    for field, option in DECIDED.items():
        value = settings.pop(option)
        if value is None:
            continue
        if field in fields:
            shown = option.replace("_", "-")
            raise UsageError(f"recipe: expected {field} once; got it as --{shown} too")
        fields[field] = value
    return Recipe.from_preset(settings.pop("preset"), **fields)


def _teacher(settings: dict[str, Any], n_classes: int, together: Processes) -> Any:
    """The teacher's network; None without one."""
    from natstats.distill.training.setup import classifier
    from natstats.errors import UsageError

    name = settings.pop("teacher")
    checkpoint = settings.pop("teacher_checkpoint")
    weights, arguments = settings.pop("teacher_weights"), settings.pop("teacher_args")
    if name is None:
        for option, value in (("teacher_checkpoint", checkpoint), ("teacher_arg", arguments)):
            if value:
                raise UsageError(f"{option}: expected only beside a teacher; got {value}")
        return None
    return classifier(
        name,
        n_classes,
        checkpoint=checkpoint,
        weights="none" if checkpoint is not None else weights,
        model_args=arguments,
        device=together.device,
    )


def _setup(
    together: Processes,
    settings: Mapping[str, Any],
    data: LabelledData,
    recipe: Recipe,
    teacher: Any,
    method: str,
    seed: int,
) -> Distillation:
    """The training with one seed."""
    from natstats.distill.training.setup import Distillation, classifier

    student = classifier(
        settings["student"],
        len(data.classes),
        checkpoint=settings["student_checkpoint"],
        weights=settings["student_weights"],
        model_args=settings["student_args"],
        seed=seed,
        device=together.device,
    )
    return Distillation.of(
        student,
        data,
        method,
        teacher=teacher,
        method_args=settings["method_args"],
        recipe=recipe,
        seed=seed,
        teacher_run=settings["teacher_run"],
        taps=settings["taps"],
    )


def _train(
    together: Processes, settings: Mapping[str, Any], setup: Distillation, folder: Path
) -> None:
    """Train with one seed, to a folder."""
    from natstats.distill.training.distillation import distill

    _say(together, *setup.text().split("\n"))
    stages = [(stage.name, stage.epochs) for stage in setup.program.stages]
    with (
        logs(together, settings["tensorboard"], folder, stages) as log,
        output.progress_bar("steps", setup.recipe.batch_size) as progress,
    ):
        run = distill(
            setup,
            folder,
            workers=settings["workers"],
            together=together,
            overwrite=settings["overwrite"],
            command=output.command_line(),
            teacher_cache=settings["teacher_cache"],
            **{name: settings[name] for name in LOOKS},
            progress=progress,
            log=log,
        )
    _summary(together, run, folder)


def _summary(together: Processes, run: DistillationRun, folder: Path) -> None:
    from natstats.numbers import interval

    low, high = run.interval()
    split = run.data.get("split", "evaluation")
    found = f"{100 * run.accuracy:.2f} {interval(100 * low, 100 * high, 2)} %"
    text = f"Accuracy on the {split} images after the last epoch: {found}"
    if run.teacher is not None:
        text += f" (teacher {100 * run.teacher_accuracy:.2f} %)"
    _say(together, text)
    _say(together, f"Run: {folder}   Report: {folder / 'report.html'}")


def _compare(path: Path) -> None:
    """Print the comparison over the seeds, and write it beside the runs."""
    from natstats.distill.comparison.compare import compare_runs
    from natstats.distill.results import DistillationRun
    from natstats.distill.run_folders import TABLE, find_runs
    from natstats.runs import store

    found = compare_runs([DistillationRun.open(run) for run in find_runs([path])])
    with store.add_files(path, TABLE) as folder:
        found.write(folder)
    output.comparison(found)
    output.say(f"Runs: {path}   Report: {path / 'report.html'}")
