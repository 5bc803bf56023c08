"""The settings of a recorded training, read from its record so that it can be repeated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from natstats import checks
from natstats.distill.methods import arguments_of, parse_method
from natstats.distill.older_arguments import completed
from natstats.distill.pairing import named_pairs
from natstats.distill.record import RunInfo
from natstats.distill.run_files import read_record
from natstats.distill.run_folders import find_runs, find_unfinished
from natstats.distill.training.cache_room import FROM_CACHE
from natstats.distill.training.compiling import COMPILES
from natstats.distill.training.evaluation import LOOKS, checked_looks
from natstats.distill.training.labelled_sources import UNFLIPPED
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.settings import TrainingSettings
from natstats.distill.training.source_settings import DataSettings, NetworkSettings
from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import expanded, found_from
from natstats.text import few, printable

__all__ = ["PASSED", "recorded_settings"]

PASSED = ("compile", *LOOKS)
"""Options that say how networks run and what is looked at on the way. A repetition takes over no
others: not where the run went, nor what it replaced."""

_LOADING = ("checkpoint_key", "takes", "size", "strict")


def recorded_settings(path: str | Path) -> TrainingSettings:
    """The settings of the training of a run, or of the runs of several seeds.

    Args:
        path: a ``distill.json``, the folder of a run, or one with the runs of several seeds.

    Raises:
        UsageError: there is no run, it is damaged, or there are runs that differ in more than
            their seed.
        NatstatsError: it cannot be read, or was written by a newer natstats.
    """
    given = expanded(path, "from")
    files = find_runs([given], "from") if given.is_dir() else [given]
    records = [_read(file) for file in files]
    settings = [_settings(record, file) for record, file in zip(records, files, strict=True)]
    first = settings[0]
    if given.is_dir() and (unfinished := find_unfinished([given])):
        listed = few([str(folder) for folder in unfinished])
        note = f"not repeated, as not finished: {listed}"
        first = replace(first, notes=(*first.notes, note))
    for record, folder in zip(records[1:], files[1:], strict=True):
        other = _difference(_but_seed(records[0]), _but_seed(record))
        if other:
            raise UsageError(
                f"from: expected runs that differ in nothing but their seed; {printable(files[0])} "
                f"and {printable(folder)} differ in {other}"
            )
    seeds = [one.seeds[0] for one in settings]
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"from: expected one run of each seed; got {' '.join(map(str, seeds))}")
    if len(settings) == 1:
        return first
    networks = {}
    for role in ("student", "teacher"):
        every = [getattr(one, role) for one in settings]
        if every[0] is not None:
            digests = {seed: d for one in every for seed, d in one.digests.items()}
            own = _own_seed(role, [one.seed for one in every], seeds)
            networks[role] = replace(every[0], digests=digests, seed=own)
    return replace(first, seeds=tuple(seeds), **networks)


def _own_seed(role: str, given: list[int | None], seeds: list[int]) -> int | None:
    """The seed of random weights in runs of several seeds; None where it is that of the run."""
    if all(one is None for one in given):
        return None
    own = {seed if one is None else one for one, seed in zip(given, seeds, strict=True)}
    if len(own) > 1:
        raise UsageError(
            f"from: expected runs whose {role} has one seed of its own, or that of its run; got "
            f"{' '.join(map(str, sorted(own)))}"
        )
    return own.pop()


def _read(path: Path) -> RunInfo:
    try:
        return read_record(path)
    except OSError as error:
        raise NatstatsError(
            f"from: expected the record of a training; {printable(path)}: {error.strerror}"
        ) from None
    except UsageError as error:
        place = path if path.is_dir() else path.parent
        raise UsageError(
            f"from: expected the record of a training in {printable(place)}; {error}"
        ) from None


def _settings(info: RunInfo, file: Path) -> TrainingSettings:
    try:
        return _settings_of(info)
    except UsageError as error:
        raise UsageError(
            f"from: expected the record of a training; {printable(file)}: {error}"
        ) from None


def _settings_of(info: RunInfo) -> TrainingSettings:
    asked: Mapping[str, Any] = info.get("asked") or {}
    identity = info.get("identity") or {}
    notes = []
    if not asked:
        version = info.get("versions", {}).get("natstats", "an older version")
        notes.append(
            f"the run was written by natstats {version}, which did not note how weights and images "
            "were asked for: they are taken by their names and checked by their digests"
        )
    arguments = {
        f"{method}.{name}": value
        for method, values in completed(info.get("arguments", {})).items()
        for name, value in values.items()
    }
    notes += _unknown_arguments(info["method"], arguments)
    recipe = dict(info.get("recipe", {}))
    folder = asked.get("folder")
    if not recipe:
        notes.append("the run does not tell its recipe: the default is taken")
    seed = int(info["seed"])
    data = info["data"]
    if "source" not in data:
        raise UsageError("expected a record that names its data; data.source is missing")
    if _is_before(info, 0, 9):
        notes += _done_otherwise(info, recipe)
        if recipe and "flip" not in recipe and recipe.get("augmentation") != "none":
            recipe["flip"] = True if _source_name(data["source"]) in UNFLIPPED else None
    world = identity.get("processes", 1)
    if world != 1:
        notes.append(f"the run was trained by {world} processes that shared each batch")
    if any(note.startswith(FROM_CACHE) for note in info.get("notes", [])):
        notes.append(
            "the run read its teacher's outputs from a cache (--teacher-cache): without that "
            "cache, or with another, weights may differ in the last digits"
        )
    options = {n: v for n, v in asked.get("options", {}).items() if n in PASSED}
    try:
        checked_looks(options)
        checks.one_of("compile", options.get("compile", "none"), COMPILES)
    except UsageError as error:
        raise UsageError(f"asked.options: {error}") from None
    taps = info.get("taps")
    run: Mapping[str, Any] = info.get("teacher_run") or {}
    return TrainingSettings(
        student=_network("student", info, seed, identity.get("student")),
        teacher=_network("teacher", info, seed, _recorded_digest(info)),
        data=DataSettings(
            _source_from(folder, data["source"]),
            float(data.get("holdout", 0.0)),
            asked.get("limit"),
            bool(asked.get("strict", not data.get("n_unreadable"))),
            int(data.get("seed", 0)),
            data.get("digest"),
            n_train=None if asked else data.get("n_train"),
        ),
        method=info["method"],
        method_args=arguments,
        recipe=Recipe.from_dict(recipe) if recipe else Recipe.from_preset("default"),
        taps=named_pairs(asked.get("taps", [])),
        teacher_run=_path_from(folder, asked.get("teacher_run")),
        seeds=(seed,),
        options=options,
        found_taps=None
        if taps is None
        else tuple((tap["method"], tap["student"], tap["teacher"]) for tap in taps),
        run_digest=run.get("spectra"),
        notes=tuple(notes),
    )


def _is_before(info: RunInfo, *release: int) -> bool:
    """Whether a run was written by a natstats before `release`, or does not say."""
    found = re.match(r"(\d+)\.(\d+)", info.get("versions", {}).get("natstats", ""))
    return found is None or (int(found[1]), int(found[2])) < release


def _done_otherwise(info: RunInfo, recipe: Mapping[str, Any]) -> list[str]:
    """Sentences on what natstats did differently before 0.9.0, where it matters for the run."""
    notes = []
    n_train, batch_size = info["data"].get("n_train"), recipe.get("batch_size")
    if n_train is None or not isinstance(batch_size, int) or n_train % max(batch_size, 1):
        notes.append(
            "the last batch of an epoch, which is smaller, is trained on since natstats 0.9.0; the "
            "run left it out"
        )
    if recipe.get("warmup_epochs"):
        notes.append(
            "a warm-up keeps its epochs since natstats 0.9.0, up to half of a stage; in stages of "
            "another length than the main one the run had it for the same share"
        )
    if recipe.get("amp", "none") != "none":
        notes.append(
            f"evaluation is in float32 since natstats 0.9.0; that of the run was in {recipe['amp']}"
        )
    return notes


def _source_name(source: str) -> str:
    return source.partition(":")[0]


def _source_from(folder: str | None, source: str) -> str:
    """A source of images, with its folder at the place where it is found now."""
    name, colon, path = source.partition(":")
    return f"{name}:{found_from(folder, path)}" if colon and path else source


def _path_from(folder: str | None, path: str | None) -> str | None:
    return None if path is None else found_from(folder, path)


def _recorded_digest(info: RunInfo) -> str | None:
    teacher = info.get("teacher")
    return None if teacher is None else teacher.get("digest")


def _unknown_arguments(method: str, arguments: Mapping[str, Any]) -> list[str]:
    """A sentence for every argument that the methods have today and the record has not."""
    full = arguments_of(parse_method(method), arguments)
    return [
        f"the run does not tell {name}.{argument}: the default {value!r} is taken"
        for name, values in full.items()
        for argument, value in values.items()
        if f"{name}.{argument}" not in arguments
    ]


def _network(
    role: str, info: Mapping[str, Any], seed: int, digest: str | None
) -> NetworkSettings | None:
    facts = info.get(role)
    if not facts:
        return None
    digests = {} if digest is None else {seed: digest}
    asked = info.get("asked")
    if asked is None:
        return _older(facts, digests, seed)
    source = asked.get(role)
    if source is None:
        why = (
            f"the run's {role} was given as a module from Python, which nothing can make again "
            f"(--{role} NAME, or {role}= of Distillation.from_record)"
        )
        return NetworkSettings(facts["name"], digests=digests, unknown=why)
    own = source["seed"]
    weights, checkpoint = source.get("weights", "none"), source.get("checkpoint")
    arguments = dict(source.get("model_args", {}))
    n_classes = len(info["data"].get("classes") or ())
    if weights == "none" and checkpoint is None and arguments.get("num_classes") == n_classes:
        # Such a network gets as many classes as its data, and so it may be other data.
        del arguments["num_classes"]
    return NetworkSettings(
        source["name"],
        weights,
        _path_from(asked.get("folder"), checkpoint),
        arguments,
        {key: source[key] for key in _LOADING if source.get(key) not in (None, True)},
        # Random weights drawn with the seed of the training follow that seed.
        None if own == seed else own,
        digests,
    )


_RANDOM = re.compile(r"none \(random, seed (\d+)\)")
_ENTRY = re.compile(r"\w+_Weights\.(\w+)")


def _older(facts: Mapping[str, Any], digests: Mapping[int, str], seed: int) -> NetworkSettings:
    """A network from the words that describe it in a record of an older natstats."""
    name, words = facts["name"], str(facts.get("weights", ""))
    arguments = facts.get("arguments", {})
    made = NetworkSettings(name, model_args=arguments, digests=digests)
    if random := _RANDOM.fullmatch(words):
        own = int(random[1])
        return replace(made, seed=None if own == seed else own)
    if words.startswith("checkpoint "):
        return replace(made, checkpoint=words.removeprefix("checkpoint "))
    if entry := _ENTRY.fullmatch(words):
        return replace(made, weights=entry[1])
    if words == f"as built by {name}":
        return replace(made, weights="default")
    return replace(made, unknown=f"the record says no more than {printable(words)!r}")


def _but_seed(info: RunInfo) -> dict[str, Any]:
    """What was asked for, without what follows from the seed."""
    identity = {k: v for k, v in info.get("identity", {}).items() if k not in ("seed", "student")}
    asked = cast(dict[str, Any], dict(info.get("asked", {})))
    # The folder it was started in does not matter: images and weights have digests.
    asked.pop("folder", None)
    if asked.get("student"):
        asked["student"] = {**asked["student"], "seed": None}
    facts = {**info["student"], "weights": None}
    return {"identity": identity, "asked": asked, "student": facts}


def _difference(one: Any, other: Any, name: str = "") -> str:
    """The first place where two trees of plain values differ; empty where they are the same."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in {**one, **other}:
            found = _difference(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
            if found:
                return found
        return ""
    return "" if one == other else name
