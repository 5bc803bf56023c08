"""Options of ``natstats distill`` in a file: how each is written there, read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from natstats.distill.training.settings import TrainingSettings
    from natstats.distill.training.source_settings import NetworkSettings

__all__ = ["config_of", "read_options"]

_LEFT_OUT = {"recorded", "config", "write_config", "dry_run", "overwrite", "help"}
"""Parameters of one call, which no file can have."""

_TABLES = {"method_args", "student_args", "teacher_args", "fields"}


def read_options(path: Path, parameters: Iterable[click.Parameter]) -> dict[str, Any]:
    """The options in a file, by the names of their parameters.

    They are called as on the command line, without ``--``. What is given there as KEY=VALUE is a
    table: ``[recipe]``, ``[student-arg]``, ``[teacher-arg]``. ``[method]`` has the arguments of the
    methods in tables of their own, and ``name``, unless ``method`` is the name alone.

    Raises:
        UsageError: an unknown key or a value of another type; file and key are named.
        NatstatsError: the file cannot be read.
    """
    from natstats import checks
    from natstats.errors import UsageError
    from natstats.files.config_files import read_config
    from natstats.text import printable

    known = {
        name.lstrip("-"): parameter
        for parameter in parameters
        if isinstance(parameter, click.Option)
        and parameter.expose_value
        and parameter.name not in _LEFT_OUT
        for name in parameter.opts
    }
    found: dict[str, Any] = {}
    for key, value in read_config(path).items():
        name = key.replace("_", "-")
        try:
            checks.one_of("key", name, list(known))
            if name == "method" and isinstance(value, Mapping):
                values = _method(value)
            else:
                values = {str(known[name].name): _value(name, value, known[name])}
            for one, given in values.items():
                if one in found:
                    raise UsageError(f"{name}: expected once; got it twice")
                found[one] = given
        except UsageError as error:
            raise UsageError(f"config: {printable(path)}: {error}") from None
    return found


def _method(table: Mapping[str, Any]) -> dict[str, Any]:
    """Name and arguments out of the table of the method."""
    from natstats.errors import UsageError

    found: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    for key, value in table.items():
        if key == "name":
            if not isinstance(value, str):
                raise UsageError(f"method.name: expected text; got {value!r}")
            found["method"] = value
        elif isinstance(value, Mapping):
            for name, one in value.items():
                if f"{key}.{name}" in arguments:
                    raise UsageError(f"method.{key}.{name}: expected once; got it twice")
                arguments[f"{key}.{name}"] = _plain(f"{key}.{name}", one)
        elif key in arguments:
            raise UsageError(f"method.{key}: expected once; got it twice")
        else:
            arguments[key] = _plain(f"method.{key}", value)
    return {**found, "method_args": arguments} if arguments else found


def _value(key: str, value: Any, parameter: click.Option) -> Any:
    """A value as click would give it, of the type that the option has; a text is no number."""
    from natstats.errors import UsageError

    if parameter.name in _TABLES:
        if not isinstance(value, Mapping):
            raise UsageError(f"{key}: expected a table of names and values; got {value!r:.60}")
        found = {name: _plain(f"{key}.{name}", one) for name, one in value.items()}
        if parameter.name == "fields":
            return found
        return {name: None if one == "none" else one for name, one in found.items()}
    if parameter.name == "taps":
        return _taps(key, value)
    if parameter.multiple:
        listed = value if isinstance(value, list) else [value]
        if not listed:
            raise UsageError(f"{key}: expected one or more; got none")
        return tuple(_single(key, one, parameter) for one in listed)
    return _single(key, value, parameter)


def _single(key: str, value: Any, parameter: click.Option) -> Any:
    from natstats import checks
    from natstats.errors import UsageError

    kinds: dict[str, tuple[type | tuple[type, ...], str]] = {
        "integer": (int, "a whole number"),
        "float": ((int, float), "a number"),
        "boolean": (bool, "true or false"),
    }
    kind, words = kinds.get(parameter.type.name, (str, "text"))
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{key}: expected {words}; got {value!r:.60}")
    if isinstance(parameter.type, click.Choice):
        checks.one_of(key, value, list(parameter.type.choices))
    if isinstance(parameter.type, click.Path):
        return Path(value)
    return checks.within_float(key, value) if parameter.type.name == "float" else value


def _taps(key: str, value: Any) -> tuple[tuple[str, str], ...]:
    from natstats.errors import UsageError

    found = []
    for pair in value if isinstance(value, list) else [value]:
        names = pair.split("=", 1) if isinstance(pair, str) else pair
        if (
            not isinstance(names, list)
            or len(names) != 2
            or not all(isinstance(name, str) and name for name in names)
        ):
            raise UsageError(
                f"{key}: expected pairs, [STUDENT, TEACHER] or STUDENT=TEACHER; got {pair!r:.60}"
            )
        found.append((names[0], names[1]))
    return tuple(found)


def _plain(key: str, value: Any) -> Any:
    """A value of a table."""
    from natstats.errors import UsageError

    if isinstance(value, list):
        return [_plain(key, one) for one in value]
    if not isinstance(value, str | bool | int | float):
        raise UsageError(f"{key}: expected a number, text, true or false; got {value!r:.60}")
    return value


def config_of(settings: TrainingSettings, call: Mapping[str, Any]) -> dict[str, Any]:
    """All settings as they are written into a file.

    Args:
        settings: what is trained.
        call: other options that were given, by the names of their parameters.

    Raises:
        UsageError: a network was given from Python, and has no name.
    """
    from natstats.distill.methods import arguments_of, parse_method

    found: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for role in ("student", "teacher"):
        network = getattr(settings, role)
        if network is not None:
            _refuse_unwritable(role, network)
            found[role] = network.name
            found[f"{role}-checkpoint"] = network.checkpoint
            found[f"{role}-weights"] = None if network.checkpoint else network.weights
            if network.model_args:
                tables[f"{role}-arg"] = {k: _word(v) for k, v in network.model_args.items()}
    if settings.data is not None:
        data = settings.data
        if data.seed:
            raise _unwritable(f"data has a seed of its own, {data.seed}")
        found |= {"data": data.source, "holdout": data.holdout, "limit": data.limit}
        found["strict"] = data.strict
    found["teacher-run"] = settings.teacher_run
    found["tap"] = [list(pair) for pair in settings.taps] or None
    found["seed"] = list(settings.seeds)
    found |= {name.replace("_", "-"): value for name, value in call.items()}
    method = settings.chosen_method
    arguments = arguments_of(parse_method(method), settings.method_args)
    tables["method"] = {"name": method, **arguments}
    recipe = settings.recipe.to_dict()
    tables["recipe"] = {name: _word(value) for name, value in recipe.items()}
    return {**found, **tables}


def _unwritable(what: str) -> Exception:
    from natstats.errors import UsageError

    return UsageError(f"write_config: expected settings that options can give; {what}")


def _refuse_unwritable(role: str, network: NetworkSettings) -> None:
    if network.unknown:
        raise _unwritable(network.unknown)
    if network.seed is not None and network.is_random:
        raise _unwritable(f"the {role}'s random weights have a seed of their own, {network.seed}")
    if network.loading:
        raise _unwritable(f"the {role} was loaded with {', '.join(network.loading)}")


def _word(value: Any) -> Any:
    """TOML has no word for nothing; the command line has this one."""
    return "none" if value is None else value
