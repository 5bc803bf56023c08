"""A training that is set up: networks, data, recipe and method, checked against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.activations.hooks import undisturbed, unwatched
from natstats.brief import Brief
from natstats.distill.method import scores_of
from natstats.distill.pairing import named_pairs
from natstats.distill.training.data import LabelledData
from natstats.distill.training.loading import eval_batches, prepared, resolved
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.stages import Program, plan_training
from natstats.errors import UsageError
from natstats.networks.load import Network, load_network
from natstats.networks.load_options import LoadOptions
from natstats.networks.matching import NO_CLASSIFIER
from natstats.numbers import counted
from natstats.text import lines

__all__ = [
    "Distillation", "as_network", "check_pair", "check_scores", "classifier",
    "refuse_random_classifier",
]  # fmt: skip

_PLANNED_ON = 16
"""Evaluation images that the taps are checked with; their labels are not used."""


def classifier(
    name: str,
    n_classes: int,
    *,
    checkpoint: str | Path | None = None,
    weights: str = "none",
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    **loading: Any,
) -> Network:
    """A network by name with as many classes as the data has.

    Args:
        name: see :func:`natstats.networks.load.load_network`.
        n_classes: K; a builder that takes ``num_classes`` is given it, unless `model_args` do, or
            published weights or a checkpoint bring their own number.
        checkpoint: file of weights.
        weights: ``none`` for random ones, or published weights.
        model_args: arguments of the builder.
        seed: seed of random weights.
        loading: what else :func:`natstats.networks.load.load_network` takes.

    Raises:
        UsageError: no such network.
        NatstatsError: the weights cannot be loaded, or do not fit.

    >>> classifier("cifar_resnet20", 7).model.fc.out_features
    7
    """
    arguments = dict(model_args or {})
    # Beside a checkpoint, "none" is the default of this function and asks for nothing.
    own = LoadOptions.weights if checkpoint is not None and weights == "none" else weights
    settings = {"weights": own, "checkpoint": checkpoint, "seed": seed, **loading}
    if weights == "none" and checkpoint is None and "num_classes" not in arguments:
        try:
            return load_network(
                name, model_args={**arguments, "num_classes": n_classes}, **settings
            )
        except UsageError as error:
            if "num_classes" not in str(error):
                raise
    return load_network(name, model_args=arguments, **settings)


@dataclass(frozen=True, eq=False, repr=False)
class Distillation(Brief):
    """A training that is set up: what it will do can be inspected before it runs.

    Attributes:
        student: the student, with the weights that it starts from.
        teacher: the teacher; None for none.
        data: images and classes.
        recipe: how to train, without open fields.
        program: the method's stages, terms and taps.
        seed: seed of the training.
        named_taps: names of layers that were given in place of those found.
        run_path: the measured run of the teacher, as it was given; None for none.
    """

    student: Network
    teacher: Network | None
    data: LabelledData
    recipe: Recipe
    program: Program
    seed: int
    named_taps: tuple[tuple[str, str], ...] = ()
    run_path: str | None = None

    @classmethod
    def of(
        cls,
        student: Network | nn.Module,
        data: LabelledData,
        method: str = "kd",
        *,
        teacher: Network | nn.Module | None = None,
        method_args: Mapping[str, Any] | None = None,
        recipe: Recipe | None = None,
        seed: int = 0,
        teacher_run: str | Path | None = None,
        taps: Sequence[tuple[str, str]] = (),
    ) -> Distillation:
        """Set up a training.

        Args:
            student: trained in place.
            data: see :func:`natstats.distill.training.data.open_labelled`.
            method: a name, or several with + between them.
            teacher: the trained network; its weights stay as they are.
            method_args: METHOD.NAME and value, or NAME with a single method.
            recipe: how to train; the default recipe if None.
            seed: seed of the training: order and random changes of the images, connectors, dropout.
            teacher_run: a measured run of the teacher, for the spectral terms.
            taps: names of layers in student and teacher to compare, in place of those found.

        Raises:
            UsageError: something does not fit together; the sentence names it.
        """
        checks.positive_int("seed", seed, 0)
        recipe = resolved(recipe or Recipe(), data.train)
        mine, theirs = as_network(student), None if teacher is None else as_network(teacher)
        named = named_pairs(taps)
        check_pair(mine, theirs)
        device = next((p.device for p in mine.model.parameters()), torch.device("cpu"))
        images = _some_images(data, recipe, device)
        _check_classes("student", mine, images, data)
        if theirs is not None:
            _check_classes("teacher", theirs, images, data)
            refuse_random_classifier(theirs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            program = plan_training(
                method,
                {} if method_args is None else method_args,
                mine.model,
                None if theirs is None else theirs.model,
                images,
                recipe.epochs,
                teacher_run=teacher_run,
                taps=named,
            )
        _refuse_unmixed(program, recipe)
        if program.teacher_run is not None:
            program = _with_teacher_run(program, program.teacher_run, theirs, recipe)
        path = None if teacher_run is None else str(teacher_run)
        return cls(mine, theirs, data, recipe, program, seed, named, path)

    @classmethod
    def from_record(
        cls,
        path: str | Path,
        *,
        seed: int | None = None,
        student: Network | nn.Module | str | None = None,
        teacher: Network | nn.Module | str | None = None,
        data: LabelledData | str | None = None,
        device: torch.device | str = "cpu",
        workers: int = 0,
        **changes: Any,
    ) -> Distillation:
        """Set up the training of a run again; on the same machine it ends with the same weights.

        Weights and images are looked for where they were, and must be the same.

        Args:
            path: a ``distill.json``, the folder of a run, or one with the runs of several seeds.
            seed: another seed than the run's; needed where there are several.
            student: a network, or the name of one, in place of the recorded one, at the weights it
                starts from.
            teacher: a network, or the name of one, in place of the recorded one.
            data: images, or their source, in place of the recorded ones.
            device: where networks that are loaded are put.
            workers: processes that read images.
            changes: anything else that is to differ, as
                :meth:`natstats.distill.training.settings.TrainingSettings.changed` takes it, such
                as ``epochs=10`` or ``teacher_checkpoint="t.pth"``.

        Raises:
            UsageError: there is no such run, weights or images have changed, or a network was
                given from Python and must be given again.
            NatstatsError: something cannot be read.
        """
        from natstats.distill.training.repetition import recorded_settings

        given = {"student": student, "teacher": teacher, "data": data}
        named = {name: value for name, value in given.items() if isinstance(value, str)}
        settings = recorded_settings(path).changed(**changes, **named)
        if seed is None:
            if len(settings.seeds) > 1:
                listed = ", ".join(map(str, settings.seeds))
                raise UsageError(f"seed: expected one of {listed}, as there are runs of each")
            seed = settings.seeds[0]
        images = settings.open_data(workers) if data is None or isinstance(data, str) else data
        if teacher is None or isinstance(teacher, str):
            teacher = settings.open_teacher(len(images.classes), device)
        own = None if isinstance(student, str) else student
        return settings.setup(seed, images, teacher, device, own)

    def text(self) -> str:
        """What will be trained, in lines for people."""
        n = sum(p.numel() for p in self.student.model.parameters())
        shown = [f"Student: {self.student.name}, {n / 1e6:.2f} million parameters"]
        if self.teacher is not None:
            n = sum(p.numel() for p in self.teacher.model.parameters())
            shown.append(
                f"Teacher: {self.teacher.name}, {n / 1e6:.2f} million parameters, "
                f"{self.teacher.weights}"
            )
        data = self.data
        shown.append(
            f"Data: {data.name}, {counted(len(data.classes), 'class', 'classes')}, "
            f"{len(data.train)} training and "
            f"{counted(len(data.evaluation), f'{data.split} image')} of {self.recipe.size} x "
            f"{self.recipe.size} pixels"
        )
        shown.append(f"Method: {self.program.method}, seed {self.seed}")
        return f"{lines(shown)}\n{self.program.text()}"

    def identity(self, world: int) -> dict[str, Any]:
        """Everything that was asked for, as plain values; the version of natstats is not in it."""
        return {
            "method": self.program.method,
            "arguments": {name: dict(values) for name, values in self.program.arguments.items()},
            "taps": self.program.taps_table(),
            "teacher_run": self.program.teacher_run,
            "stages": [[stage.name, stage.epochs] for stage in self.program.stages],
            "recipe": self.recipe.to_dict(),
            "data": self.data.digest,
            "images": self.data.listing,
            "split": self.data.split,
            "student": self.student.digest(),
            "teacher": None if self.teacher is None else self.teacher.digest(),
            "built_with": {
                "student": built_with(self.student),
                "teacher": None if self.teacher is None else built_with(self.teacher),
            },
            "seed": self.seed,
            "processes": world,
        }


def built_with(network: Network) -> dict[str, Any]:
    """Arguments of a network's builder, as plain values; empty for a module that was given."""
    given = {} if network.source is None else network.source.model_args
    found: dict[str, Any] = json.loads(json.dumps(dict(given), sort_keys=True, default=str))
    return found


def check_pair(student: Network, teacher: Network | None) -> None:
    """Raise unless the student can be trained and the teacher is another network.

    Raises:
        UsageError: one network is both, or the student is frozen.
    """
    if teacher is not None and teacher.model is student.model:
        raise UsageError("teacher: expected another network than the student; got the same")
    if not any(p.requires_grad for p in student.model.parameters()):
        raise UsageError(
            f"student: expected parameters that can be trained; {student.name} has none"
        )


def _refuse_unmixed(program: Program, recipe: Recipe) -> None:
    """Raise where images are mixed beside a loss that needs one class for each."""
    ways = [way for way in ("mixup", "cutmix") if getattr(recipe, way)]
    terms = [bound.term for stage in program.stages for bound in stage.terms]
    for term in terms if ways else ():
        if term.loss.needs_labels:
            raise UsageError(
                f"{ways[0]}: expected 0 beside the term {term.name}, which needs one class for "
                f"each image; got {getattr(recipe, ways[0]):g}"
            )


def refuse_random_classifier(teacher: Network) -> None:
    """Raise for a teacher whose classifier is random: it would do for spectra, not for teaching.

    Raises:
        UsageError: the classifier is random; the network's note says why.
    """
    for note in teacher.notes:
        if note.startswith(NO_CLASSIFIER):
            raise UsageError(f"teacher: expected trained weights in the whole network; {note}")


def _with_teacher_run(
    program: Program, run: Mapping[str, Any], teacher: Network | None, recipe: Recipe
) -> Program:
    """The program, checked to have targets from a run of the teacher, with notes on differences."""
    if teacher is not None:
        _refuse_other_weights(teacher, run)
    return replace(program, notes=(*program.notes, *_other_normalisation(recipe, run)))


def _refuse_other_weights(teacher: Network, run: Mapping[str, Any]) -> None:
    own = teacher.digest()
    if run["digest"] not in (None, own):
        raise UsageError(
            f"teacher_run: expected a run of the teacher, whose weights have the digest {own}; got "
            f"one of {run['model']} with {run['digest']}"
        )


def _other_normalisation(recipe: Recipe, run: Mapping[str, Any]) -> list[str]:
    """A note where the images of a teacher run were normalised differently from the student's."""
    theirs = run["normalisation"]
    if not theirs or not recipe.mean or not recipe.std:
        return []
    pairs = zip((*theirs["mean"], *theirs["std"]), (*recipe.mean, *recipe.std), strict=True)
    if all(abs(one - other) < 1e-3 for one, other in pairs):
        return []
    shown = [" ".join(f"{v:.3f}" for v in side) for side in (theirs["mean"], recipe.mean)]
    return [
        f"the teacher run's images were normalised with the mean {shown[0]}, the student's are "
        f"with {shown[1]}"
    ]


def as_network(given: Network | nn.Module) -> Network:
    """The network, or one made of a module, under the name of its class."""
    if isinstance(given, Network):
        return given
    return Network(given, type(given).__name__, "as given")


def _some_images(data: LabelledData, recipe: Recipe, device: torch.device) -> Tensor:
    """A few evaluation images as the networks take them."""
    batch = next(eval_batches(data.evaluation, replace(recipe, batch_size=_PLANNED_ON)))
    return prepared(batch.images, recipe, device)


def _check_classes(role: str, network: Network, images: Tensor, data: LabelledData) -> None:
    n_classes = check_scores(role, network, images)
    if n_classes != len(data.classes):
        raise UsageError(
            f"{role}: expected scores for the {counted(len(data.classes), 'class', 'classes')} of "
            f"{data.name}; "
            f"{network.name} has {counted(n_classes, 'class', 'classes')}"
        )


def check_scores(role: str, network: Network, images: Tensor) -> int:
    """The number of classes that a network has scores for.

    Args:
        role: ``student`` or ``teacher``, for the error.
        network: the network.
        images: (N, 3, H, W), two or more, as it takes them.

    Raises:
        UsageError: it does not take such images, or gives something else than scores (N, K).
    """
    with undisturbed(network.model), torch.no_grad(), unwatched():
        try:
            scores = scores_of(network.model(images[:2]))
        except (RuntimeError, ValueError, TypeError, AssertionError, AttributeError) as error:
            reason = " ".join(str(error).split())[:160]
            raise UsageError(
                f"{role}: expected a network that takes images of {images.shape[-1]} x "
                f"{images.shape[-1]} pixels; {network.name} says: {reason}"
            ) from None
    if scores.ndim != 2:
        raise UsageError(
            f"{role}: expected scores for classes, (N, K); {network.name} has shape "
            f"{tuple(scores.shape)}"
        )
    return int(scores.shape[1])
