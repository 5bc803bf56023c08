"""``natstats distill``: train a student network, alone or from a teacher."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from . import output
from .distill_config import config_of, read_options
from .distill_options import HELP, RECIPE_OPTIONS, SETTINGS, Seeds, distill_options
from .interruptions import interruptions
from .training_lines import logs
from .views import path_text

if TYPE_CHECKING:
    from natstats.distill.results import DistillationRun
    from natstats.distill.training.distributed import Processes
    from natstats.distill.training.settings import TrainingSettings
    from natstats.distill.training.setup import Distillation

__all__ = ["command"]


@click.command(
    "distill", cls=Seeds, help=HELP, short_help="Train a student network, alone or from a teacher."
)
@distill_options
@click.pass_context
def command(ctx: click.Context, **values: Any) -> None:
    """Train a student network, alone or from a teacher."""
    from natstats.distill.training.distributed import processes
    from natstats.errors import UsageError

    settings, call = _settings(ctx, values)
    if call["write_config"] is not None:
        if call["dry_run"]:
            raise UsageError(
                "dry_run: expected not beside --write-config, which trains nothing and writes a "
                "file; got both"
            )
        _write_config(settings, call)
        return
    with processes(call.pop("device")) as together:
        _distill(together, settings, call)


def _settings(
    ctx: click.Context, values: Mapping[str, Any]
) -> tuple[TrainingSettings, dict[str, Any]]:
    """What is trained, and how this call goes about it.

    A record comes first, then a file, then what was typed.
    """
    from natstats.distill.methods import arguments_of, parse_method
    from natstats.distill.training.evaluation import LOOKS, checked_looks
    from natstats.distill.training.repetition import PASSED, recorded_settings
    from natstats.distill.training.settings import TrainingSettings
    from natstats.errors import UsageError

    typed = {name: value for name, value in values.items() if _is_typed(ctx, name)}
    path, config = values["recorded"], values["config"]
    settings = TrainingSettings() if path is None else recorded_settings(path)
    call = {name: value for name, value in values.items() if name not in SETTINGS}
    call |= {name: value for name, value in settings.options.items() if name in PASSED}
    if config is not None:
        in_file = read_options(config, ctx.command.params)
        # What the file has arguments for may be named on the command line alone.
        for role in ("student", "teacher", "data"):
            if role not in in_file and role in typed:
                in_file[role] = typed.pop(role)
        call |= {name: value for name, value in in_file.items() if name not in SETTINGS}
        try:
            settings = settings.changed(**_taken(in_file))
            arguments_of(parse_method(settings.chosen_method), settings.method_args)
        except UsageError as error:
            raise UsageError(f"config: {config}: {error}") from None
    call |= {name: value for name, value in typed.items() if name not in SETTINGS}
    checked_looks({name: call[name] for name in LOOKS})
    settings = settings.changed(**_taken(typed))
    if settings.student is None or settings.data is None:
        missing = "student" if settings.student is None else "data"
        raise click.UsageError(
            f"Missing option '--{missing}', which a file (--config) or a run (--from) may have too",
            ctx,
        )
    return settings, call


def _is_typed(ctx: click.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)


def _taken(values: Mapping[str, Any]) -> dict[str, Any]:
    """What says what is trained, fields of the recipe by their own names."""
    named = {RECIPE_OPTIONS.get(name, name): v for name, v in values.items() if name in SETTINGS}
    return {name: value for name, value in named.items() if value is not None}


def _write_config(settings: TrainingSettings, call: Mapping[str, Any]) -> None:
    from natstats.errors import NatstatsError, UsageError
    from natstats.files.config_files import to_toml
    from natstats.files.paths import expanded
    from natstats.files.whole_files import whole_file

    path = expanded(call["write_config"], "write_config")
    usual = {p.name: p.default for p in command.params}
    kept = {name: call[name] for name in call if call[name] not in (None, usual[name])}
    for name in ("recorded", "config", "write_config", "dry_run", "overwrite"):
        kept.pop(name, None)
    text = to_toml(config_of(settings, kept))
    if path.exists() and not (call["overwrite"] and path.is_file()):
        raise UsageError(
            f"write_config: expected a place where nothing is; {path} is there and is kept "
            "(--overwrite replaces a file)"
        )
    try:
        with whole_file(path) as file:
            file.write(f"# Settings of natstats distill, for --config.\n{text}".encode())
    except OSError as error:
        raise NatstatsError(
            f"write_config: expected a place for {path}; {error.strerror}"
        ) from None
    for note in settings.notes:
        output.tell(f"Note: {note}.")
    output.say(f"Settings: {path_text(path)}")


def _distill(together: Processes, settings: TrainingSettings, call: dict[str, Any]) -> None:
    from natstats.distill.training.compiling import check_compile
    from natstats.distill.training.distillation import looks_of
    from natstats.distill.training.evaluation import LOOKS
    from natstats.distill.training.out_folders import check_seeds_out, finished, reserved

    assert settings.student is not None
    seeds, overwrite = settings.seeds, call["overwrite"]
    name = f"{settings.student.name}-{settings.chosen_method}".replace(":", "-").replace("/", "-")
    with contextlib.ExitStack() as places:
        path = _place(together, call, name, places)
        folders = [path if len(seeds) == 1 else path / f"seed-{seed}" for seed in seeds]
        if not call["dry_run"]:
            # The other processes would see what the first one makes there.
            if len(seeds) > 1 and together.is_first:
                check_seeds_out(path)
            for folder in folders:
                if together.is_first and not _is_finished(folder, overwrite):
                    places.enter_context(reserved(folder, overwrite))
        _say(together, *(f"Note: {note}." for note in settings.notes))
        data = settings.open_data(call["workers"])
        taught = settings.open_teacher(len(data.classes), together.device)

        def setup_of(seed: int) -> Distillation:
            return settings.setup(seed, data, taught, together.device)

        if call["dry_run"]:
            setup = setup_of(seeds[0])
            looks_of(setup, **{name: call[name] for name in LOOKS})
            check_compile(call["compile"], setup.program, call["teacher_cache"] is not None)
            _say_plan(together, call, setup)
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
                _train(together, call, setup_of(seed), folder)
            if len(seeds) > 1 and together.is_first:
                _compare(path)


def _place(
    together: Processes, call: Mapping[str, Any], name: str, places: contextlib.ExitStack
) -> Path:
    """The folder that was asked for; else a free one, which is reserved by the first process."""
    from natstats.distill.training.out_folders import reserved_free
    from natstats.files.paths import expanded
    from natstats.runs import store

    if call["out"] is not None:
        return expanded(call["out"], "out")
    path = Path("runs") / name
    if call["dry_run"] or not together.is_first:
        free = store.free_path(path)
    else:
        free = places.enter_context(reserved_free(path))
    return Path(together.share(str(free)))


def _say(together: Processes, *lines: str) -> None:
    if together.is_first:
        for line in lines:
            output.tell(line)


def _say_plan(together: Processes, call: Mapping[str, Any], setup: Distillation) -> None:
    """Show what will be trained, and the room that a cache may take."""
    from natstats.distill.training.training_cache import refuse_lone_limit, room_text

    folder, limit = call["teacher_cache"], call["teacher_cache_limit"]
    refuse_lone_limit(folder, limit)
    _say(together, *setup.text().split("\n"))
    if folder is not None:
        unused = f"Note: the teacher cache is not used, as {setup.program.method} needs no teacher."
        _say(together, room_text(setup, folder, limit) or unused)


def _is_finished(folder: Path, overwrite: bool) -> bool:
    from natstats.distill.run_folders import RECORD

    return not overwrite and (folder / RECORD).is_file()


def _train(together: Processes, call: Mapping[str, Any], setup: Distillation, folder: Path) -> None:
    """Train with one seed, to a folder."""
    from natstats.distill.training.distillation import distill
    from natstats.distill.training.repetition import PASSED

    _say_plan(together, call, setup)
    stages = [(stage.name, stage.epochs) for stage in setup.program.stages]
    with (
        logs(together, call["tensorboard"], folder, stages) as log,
        output.progress_bar("steps", setup.recipe.batch_size) as progress,
    ):
        run = distill(
            setup,
            folder,
            workers=call["workers"],
            together=together,
            overwrite=call["overwrite"],
            command=output.command_line(),
            teacher_cache=call["teacher_cache"],
            teacher_cache_limit=call["teacher_cache_limit"],
            **{name: call[name] for name in PASSED},
            progress=progress,
            log=log,
        )
    _summary(together, run, folder)


def _summary(together: Processes, run: DistillationRun, folder: Path) -> None:
    _say(together, *run.sentences())
    if failed := run.one_class_sentence():
        _say(together, f"Note: {failed}.")
    if together.is_first:
        output.place("Run", folder)


def _compare(path: Path) -> None:
    """Print the comparison over the seeds, and write it beside the runs."""
    from natstats.distill.comparison.compare import compare_runs
    from natstats.distill.results import DistillationRun
    from natstats.distill.run_folders import TABLE, find_runs
    from natstats.runs import store

    found = compare_runs([DistillationRun.open(run) for run in find_runs([path])])
    with store.add_files(path, TABLE) as folder:
        found.write(folder, home=path)
    output.comparison(found)
    output.place("Runs", path)
