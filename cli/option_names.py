"""How errors name options: as they are typed, not as the library calls its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click

__all__ = ["as_typed", "of_parameter"]

_REFUSED = re.compile(r"^(?P<got>'.*'|\".*\") is not (one of|a valid) ", re.DOTALL)
"""How click begins to tell of a value that is no choice, or no number."""

_KINDS = {"integer": "a whole number", "float": "a number"}


def as_typed(command: click.Command, words: Sequence[str], sentence: str) -> str:
    """A sentence that begins with the name of an argument, with that of its option in its place.

    ``n_groups: ...`` becomes ``--groups: ...``. Where the argument was given as NAME=VALUE, such as
    a field of a recipe, the option comes with that name: ``--recipe clip: ...``. What is neither
    stays as it is.

    Args:
        command: the command that raised it.
        words: that were typed behind the command.
        sentence: the error.

    >>> named = click.Command("a", params=[click.Option(["--groups", "n_groups"])])
    >>> as_typed(named, ["--groups", "0"], "n_groups: expected at least 1; got 0")
    '--groups: expected at least 1; got 0'
    """
    name, colon, rest = sentence.partition(":")
    if not colon:
        return sentence
    options = [one for one in command.params if isinstance(one, click.Option)]
    own = next((one for one in options if name in _names(command, one)), None)
    typed = own is not None and any(word.partition("=")[0] in own.opts for word in words)
    if not typed:
        last = name.rpartition(" ")[2]  # layout of NAME, method argument NAME
        for option, key in _pairs(options, words):
            if last == key or last.endswith(f".{key}"):
                return f"{_longest(option)} {last}:{rest}"
    return sentence if own is None else f"{_longest(own)}:{rest}"


def of_parameter(error: click.BadParameter) -> str:
    """A value that click refused, told as natstats tells of its own.

    >>> option = click.Option(["--batch-size"], type=int)
    >>> of_parameter(click.BadParameter("'x' is not a valid integer.", param=option))
    "--batch-size: expected a whole number; got 'x'"
    """
    param = error.param
    if not isinstance(param, click.Option) or isinstance(error, click.MissingParameter):
        return error.format_message()
    refused = _REFUSED.match(error.message)
    if refused and isinstance(param.type, click.Choice):
        from natstats import checks
        from natstats.errors import UsageError

        try:
            checks.one_of(_longest(param), refused["got"][1:-1], list(map(str, param.type.choices)))
        except UsageError as told:
            return str(told)
    if refused and param.type.name in _KINDS:
        return f"{_longest(param)}: expected {_KINDS[param.type.name]}; got {refused['got']}"
    return f"{_longest(param)}: {error.message}"


def _names(command: click.Command, option: click.Option) -> set[str]:
    """What the library may call the argument of an option.

    Of several values it names one: layout of --layout, but image of --images. A command may say
    more in its attribute ``called``, by the names of parameters.
    """
    own = _longest(option).removeprefix("--").replace("-", "_")
    called = getattr(command, "called", {}).get(option.name, ())
    return {str(option.name), own, f"{own} field", *called}


def _longest(option: click.Option) -> str:
    return max(option.opts, key=len)


def _pairs(
    options: Sequence[click.Option], words: Sequence[str]
) -> Iterator[tuple[click.Option, str]]:
    """The options that were typed with NAME=VALUE, and the names."""
    for place, word in enumerate(words):
        written, equals, value = word.partition("=")
        option = next((one for one in options if written in one.opts), None)
        if option is None or option.is_flag:
            continue
        if not equals:
            value = words[place + 1] if place + 1 < len(words) else ""
        key, is_pair, _ = value.partition("=")
        if is_pair:
            yield option, key
