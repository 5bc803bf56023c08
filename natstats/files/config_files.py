"""Files of settings: reading TOML, or YAML where PyYAML is installed, and writing TOML."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular
from natstats.text import printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["read_config", "to_toml"]

_LARGEST = 1 << 20
"""Most bytes of a file that is read, and most values in it; a usual file has some thousand."""

_DEEPEST = 8
_NUMBERS = {
    "int": re.compile(r"[-+]?(0|[1-9][0-9]*)$"),
    "float": re.compile(
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$|[-+]?\.inf$|\.nan$"
    ),
}
"""How numbers are written in YAML. In YAML 1.1, which PyYAML reads, 1e-3 is a text, 010 is eight,
12:30 is 750, and 1_0 is ten: what is not written in one of these ways stays a text, which no number
can be read from by mistake."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings in a file.

    Args:
        path: path of the file; YAML where its name ends in ``.yaml`` or ``.yml``, else TOML.

    Raises:
        UsageError: it holds no settings, is too large or nested too deeply, or is YAML where PyYAML
            is not installed.
        NatstatsError: it cannot be opened, or is no file.
    """
    shown = printable(path)
    is_yaml = Path(path).suffix.lower() in (".yaml", ".yml")
    language = "YAML" if is_yaml else "TOML"
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise NatstatsError(
            f"config: expected a file of settings; {shown}: {error.strerror}"
        ) from None
    except ValueError as error:  # a path with a null character
        raise UsageError(f"config: expected a file of settings; {shown}: {error}") from None
    if len(content) > _LARGEST:
        raise UsageError(
            f"config: expected at most {_LARGEST >> 20} MiB of {language}; {shown} is larger"
        )
    try:
        text = content.decode("utf-8-sig")
        found = _yaml(text) if is_yaml else tomllib.loads(text)
        _check(found, _DEEPEST, {})
    except RecursionError:
        raise UsageError(f"config: expected {language}; {shown} is nested too deeply") from None
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"config: expected {language}; {shown}: {printable(reason)}") from None
    if not isinstance(found, dict):
        raise UsageError(f"config: expected names with values; {shown} holds none")
    return found


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UsageError(
            "config: expected the package PyYAML for a file of YAML, which is not installed "
            "(pip install 'natstats[yaml]'); TOML needs none"
        ) from None
    try:
        return yaml.load(text, _loader(yaml)) if text.strip() else {}
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _loader(yaml: Any) -> Any:
    """PyYAML's safe loader, with :data:`_NUMBERS`, that refuses a name twice in a mapping."""

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            seen: set[str] = set()
            for key, _ in node.value:
                # Mappings that "<<" merges are added later: their names may be given again.
                if isinstance(key.value, str) and key.tag != "tag:yaml.org,2002:merge":
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise ValueError(f"{key.value} was expected once; line {line} has it again")
                    seen.add(key.value)
            return node

    tags = {f"tag:yaml.org,2002:{kind}": pattern for kind, pattern in _NUMBERS.items()}
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in tags]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for tag, pattern in tags.items():
        Loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
    return Loader


def _check(value: Any, left: int, known: dict[tuple[int, int], int]) -> int:
    """Count the values; raise where they are too many or nested too deeply, or a name is no text.

    Args:
        value: what was read.
        left: levels of nesting that it may have.
        known: counts of what was checked, by identity and level: YAML can refer to one list many
            times.
    """
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a text without zero characters was expected")
    if not isinstance(value, Mapping | list):
        return 1
    if (id(value), left) in known:
        return known[id(value), left]
    if not left:
        raise ValueError(f"at most {_DEEPEST} levels were expected")
    for key in value if isinstance(value, Mapping) else ():
        if not isinstance(key, str):
            raise ValueError(f"names were expected; got {key!r}")
    inside = value.values() if isinstance(value, Mapping) else value
    n_values = 1 + sum(_check(inner, left - 1, known) for inner in inside)
    if n_values > _LARGEST:
        raise ValueError(f"at most {_LARGEST} values were expected")
    known[id(value), left] = n_values
    return n_values


def to_toml(values: Mapping[str, Any]) -> str:
    """Settings as TOML; a mapping becomes a table, and what is None is left out.

    >>> print(to_toml({"student": "a", "seed": [0, 1], "recipe": {"lr": 0.1, "clip": None}}))
    student = "a"
    seed = [0, 1]
    <BLANKLINE>
    [recipe]
    lr = 0.1
    <BLANKLINE>
    """
    return "\n".join(_table(values, ())).lstrip("\n") + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    given = {name: value for name, value in values.items() if value is not None}
    plain = {name: value for name, value in given.items() if not isinstance(value, Mapping)}
    rows = [f"{_key(name)} = {_value(value)}" for name, value in plain.items()]
    if path and (rows or not given):
        rows = ["", f"[{'.'.join(map(_key, path))}]", *rows]
    for name, value in given.items():
        if isinstance(value, Mapping):
            rows += _table(value, (*path, name))
    return rows


def _key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    # JSON writes texts as TOML does, but for this one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        inside = [f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None]
        return f"{{{', '.join(inside)}}}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(_value(one) for one in value)}]"
    if isinstance(value, int | float):
        return repr(value)  # 1e-05, inf and nan are TOML, too
    return _text(str(value))
