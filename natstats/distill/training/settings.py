"""The settings of a training, by name: from options, from a file, or from a record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from natstats import checks
from natstats.distill.methods import parse_method
from natstats.distill.pairing import named_pairs
from natstats.distill.training.data import LabelledData
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation
from natstats.distill.training.source_settings import DataSettings, NetworkSettings
from natstats.errors import UsageError
from natstats.networks.network import Network
from natstats.text import few, printable

__all__ = ["TrainingSettings"]


@dataclass(frozen=True, eq=False)
class TrainingSettings:
    """The settings of a training: all that it is asked for with.

    Attributes:
        student: the network to train; None where it was given as a module.
        teacher: the network to learn from; None for none.
        data: the images.
        method: a name, or several with + between them; None for ``kd``, or ``ce`` without teacher.
        method_args: METHOD.NAME and value.
        recipe: how to train.
        taps: names of layers in student and teacher to compare, in place of those found.
        teacher_run: a measured run of the teacher.
        seeds: seeds of the training.
        options: options of :func:`natstats.distill.training.distillation.distill`, by name.
        found_taps: pairs of taps of a recorded run.
        run_digest: digest of the spectra of a recorded run's teacher run.
        notes: what a record does not tell, in sentences.

    >>> settings = TrainingSettings().changed(student="cifar_resnet8", seeds=(0, 1), epochs=5)
    >>> settings.student.name, settings.recipe.epochs, settings.seeds
    ('cifar_resnet8', 5, (0, 1))
    """

    student: NetworkSettings | None = None
    teacher: NetworkSettings | None = None
    data: DataSettings | None = None
    method: str | None = None
    method_args: Mapping[str, Any] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=lambda: Recipe.from_preset("default"))
    taps: tuple[tuple[str, str], ...] = ()
    teacher_run: str | Path | None = None
    seeds: tuple[int, ...] = (0,)
    options: Mapping[str, Any] = field(default_factory=dict)
    found_taps: tuple[tuple[str, str, str], ...] | None = None
    run_digest: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def chosen_method(self) -> str:
        """The method, or the default."""
        return self.method or ("ce" if self.teacher is None else "kd")

    def changed(self, **given: Any) -> TrainingSettings:
        """The same with other values, by the names of the options of ``natstats distill``.

        A new student, teacher or method drops the arguments of the one before; new data keeps limit
        and holdout; a preset replaces the whole recipe. Notes say what a method or a preset takes
        away. Arguments of builders and methods, and fields of the recipe, replace only those of the
        same name.

        Args:
            given: student, student_weights, student_checkpoint, student_args and the same of the
                teacher; data, holdout, limit, strict; method, method_args; taps; teacher_run;
                seeds; preset, fields (a mapping), and any field of the recipe.

        Raises:
            UsageError: an unknown name, or an invalid value.
        """
        rest = dict(given)
        notes = (*self.notes, *self._replaced(rest))
        has_teacher = rest.get("teacher") is not None
        changes: dict[str, Any] = {r: self._network(r, rest) for r in ("student", "teacher")}
        layers_may_differ = bool(rest.keys() & {"method", "method_args", "taps"})
        changes |= self._method(rest, has_teacher)
        changes["recipe"] = recipe = self._recipe(rest)
        changes["data"] = self._data(rest, recipe)
        if "taps" in rest:
            changes["taps"] = named_pairs(rest.pop("taps"))
        if (
            layers_may_differ
            or recipe.size != self.recipe.size
            or changes["student"] is not self.student
            or changes["teacher"] is not self.teacher
        ):
            changes["found_taps"] = None
        if "seeds" in rest:
            seeds = changes["seeds"] = tuple(rest.pop("seeds"))
            if len(set(seeds)) < len(seeds):
                raise UsageError(f"seed: expected each seed once; got {' '.join(map(str, seeds))}")
            for seed in seeds:
                checks.positive_int("seed", seed, 0)
        if rest:
            raise UsageError(f"settings: expected names of options; got {', '.join(sorted(rest))}")
        return replace(self, notes=notes, **changes)

    def _replaced(self, given: Mapping[str, Any]) -> list[str]:
        """What a new method or preset takes away of what was given before, in clauses."""
        notes = []
        method, preset = given.get("method"), given.get("preset")
        if method not in (None, self.method) and (self.method_args or self.taps):
            names = [*self.method_args, *(["the named layers"] if self.taps else [])]
            notes.append(f"method {method} does without what was given before it: {few(names)}")
        if preset is not None and self.recipe != TrainingSettings().recipe:
            notes.append(f"the preset {preset} replaces the whole recipe that was given before it")
        return notes

    def _network(self, role: str, rest: dict[str, Any]) -> NetworkSettings | None:
        name, before = rest.pop(role, None), getattr(self, role)
        weights = rest.pop(f"{role}_weights", None)
        checkpoint = rest.pop(f"{role}_checkpoint", None)
        arguments = rest.pop(f"{role}_args", {})
        if name is not None:
            # A new teacher has the best published weights, a new student random ones.
            before = NetworkSettings(name, "none" if role == "student" else "default")
        if before is None:
            for option, value in (
                ("weights", weights), ("checkpoint", checkpoint), ("arg", arguments),
            ):  # fmt: skip
                if value:
                    raise UsageError(f"{role}_{option}: expected only beside a {role}; got {value}")
            return None
        return before.changed(weights, checkpoint, arguments)  # type: ignore[no-any-return]

    def _method(self, rest: dict[str, Any], has_teacher: bool) -> dict[str, Any]:
        method, run = rest.pop("method", None), rest.pop("teacher_run", None)
        arguments = rest.pop("method_args", {})
        found: dict[str, Any] = {"method": self.method, "method_args": dict(self.method_args)}
        if method not in (None, self.method):
            found = {"method": method, "method_args": {}, "taps": ()}
            if "spectral" not in (one.name for one in parse_method(method)):
                found |= {"teacher_run": None, "run_digest": None}
        if run is not None:
            found |= {"teacher_run": run, "run_digest": None}
        if not isinstance(arguments, Mapping):
            raise UsageError(
                f"method_args: expected a mapping of names to values; got {arguments!r:.60}"
            )
        now = found["method"] or ("ce" if self.teacher is None and not has_teacher else "kd")
        for name, value in arguments.items():
            if not isinstance(name, str):
                raise UsageError(f"method_args: expected names as keys; got {name!r:.60}")
            # By its full name, so that it replaces what was given before.
            is_bare = "." not in name and "+" not in now
            full = f"{now.strip()}.{name}" if is_bare else name
            if is_bare and full in arguments:
                raise UsageError(
                    f"method_args: expected {name} once; got it as {name} and as {full}"
                )
            found["method_args"][full] = value
        return found

    def _recipe(self, rest: dict[str, Any]) -> Recipe:
        names = [one.name for one in fields(Recipe)]
        changes = dict(rest.pop("fields", {}))
        for name in names:
            if name in rest:
                if name in changes:
                    raise UsageError(f"recipe: expected {name} once; got it twice")
                changes[name] = rest.pop(name)
        for one in fields(Recipe):
            # On the command line and in a file, "none" is None, or that text where a field has it.
            if changes.get(one.name, 0) in (None, "none"):
                changes[one.name] = None if "None" in str(one.type) else "none"
        preset = rest.pop("preset", None)
        if preset is not None:
            return Recipe.from_preset(preset, **changes)
        return self.recipe.changed(**changes) if changes else self.recipe

    def _data(self, rest: dict[str, Any], recipe: Recipe) -> DataSettings | None:
        changes = {n: rest.pop(n) for n in ("holdout", "limit", "strict") if n in rest}
        source, before = rest.pop("data", None), self.data
        if source is not None:
            before = DataSettings(source) if before is None else replace(before, source=source)
            before = replace(before, is_other=True)
        if before is None:
            if changes:
                raise UsageError(f"{next(iter(changes))}: expected only beside data; got none")
            return None
        if changes:
            return replace(before, digest=None, n_train=None, **changes)
        if _framing(recipe) != _framing(self.recipe):
            return replace(before, digest=None)
        return before

    # -- what is made of them -----------------------------------------------------------------

    def open_data(self, workers: int = 0) -> LabelledData:
        """The images.

        Raises:
            UsageError: none were asked for, or they are not found.
            NatstatsError: an image cannot be read.
        """
        if self.data is None:
            raise UsageError("data: expected labelled images, such as imagefolder:DIR; got none")
        return self.data.open(self.recipe, workers)

    def open_teacher(self, n_classes: int, device: torch.device | str = "cpu") -> Network | None:
        """The teacher; None without one.

        Raises:
            UsageError: no such network, or other weights than a recorded run had.
            NatstatsError: the weights cannot be loaded.
        """
        if self.teacher is None:
            return None
        return self.teacher.load("teacher", n_classes, self.seeds[0], device)

    def setup(
        self,
        seed: int,
        data: LabelledData,
        teacher: Any,
        device: torch.device | str = "cpu",
        student: Any = None,
    ) -> Distillation:
        """The training with one seed.

        Args:
            seed: seed of the training.
            data: see :meth:`open_data`.
            teacher: see :meth:`open_teacher`.
            device: where the student is put.
            student: a network in place of the one in the settings.

        Raises:
            UsageError: something does not fit together, or is not what a recorded run had.
            NatstatsError: weights cannot be loaded.
        """
        if student is None:
            if self.student is None:
                raise UsageError("student: expected a network to train; got none")
            student = self.student.load("student", len(data.classes), seed, device)

        def made(taps: Any) -> Distillation:
            return Distillation.of(
                student, data, self.chosen_method, teacher=teacher, method_args=self.method_args,
                recipe=self.recipe, seed=seed, teacher_run=self.teacher_run, taps=taps,
            )  # fmt: skip

        if self.run_digest is not None and self.teacher_run is None:
            raise UsageError(
                "teacher_run: expected the measured run that targets came from, as the record does "
                "not tell its place; got none (--teacher-run)"
            )
        found = made(self.taps)
        self._refuse_other_run(found)
        if self.found_taps in (None, _taps_of(found)):
            return found
        # The recorded taps were named by hand without a note of it, or found by an older natstats.
        assert self.found_taps is not None
        named = made(list(dict.fromkeys(pair[1:] for pair in self.found_taps)))
        if _taps_of(named) != self.found_taps:
            raise UsageError(
                "tap: expected the layers that the run which is repeated compared; got others "
                "(--tap says which belong together, --method takes those that are found)"
            )
        return named

    def _refuse_other_run(self, found: Distillation) -> None:
        spectra = (found.program.teacher_run or {}).get("spectra")
        if self.run_digest not in (None, spectra):
            raise UsageError(
                "teacher_run: expected the measured run of the training that is repeated, whose "
                f"spectra have the digest {self.run_digest}; those of "
                f"{printable(str(self.teacher_run))} have {spectra} (--teacher-run takes another)"
            )


def _taps_of(setup: Distillation) -> tuple[tuple[str, str, str], ...]:
    table = setup.program.taps_table()
    return tuple((row["method"], row["student"], row["teacher"]) for row in table)


def _framing(recipe: Recipe) -> tuple[Any, ...]:
    """What the digest of the images depends on."""
    return recipe.size, recipe.resize, recipe.augmentation == "resized-crop"
