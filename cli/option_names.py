"""How errors name options: as they are typed, not as the library calls its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click

__all__ = ["as_typed", "of_parameter"]

_REFUSED = re.compile(r"^(?P<got>'.*'|\".*\") is not (one of|a valid) ", re.DOTALL)
"""How click begins to tell of a value that is no choice, or no number."""

_NAME = re.compile(r"(?<![\w./=-])[a-z]+(?:_[a-z]+)+(?![\w./=(:-])")
"""A name of several words, as the library writes those of its arguments."""

_KINDS = {"integer": "a whole number", "float": "a number"}


def as_typed(command: click.Command, words: Sequence[str], sentence: str) -> str:
    """An error with the names of options in place of those of the library's arguments.

    It begins with the name of the argument that is wrong: ``n_groups: ...`` becomes
    ``--groups: ...``. Where the argument was given as NAME=VALUE, such as a field of a recipe, the
    option comes with that name: ``--recipe clip: ...``. What is neither stays as it is. So do names
    of one word inside the sentence, which may be meant as words, and what is quoted or was got.

    Args:
        command: the command that raised it.
        words: that were typed behind the command.
        sentence: the error.

    >>> named = click.Command("a", params=[click.Option(["--groups", "n_groups"])])
    >>> as_typed(named, ["--groups", "0"], "n_groups: expected at least 1; got 0")
    '--groups: expected at least 1; got 0'
    >>> as_typed(named, [], "band: expected more rings than n_groups; got n_groups")
    'band: expected more rings than --groups; got n_groups'
    """
    name, colon, rest = sentence.partition(":")
    if not colon:
        return sentence
    options = [one for one in command.params if isinstance(one, click.Option)]
    own = next((one for one in options if name in _names(command, one)), None)
    typed = own is not None and any(word.partition("=")[0] in own.opts for word in words)
    rest = _within(command, options, rest)
    if not typed:
        last = name.rpartition(" ")[2]  # layout of NAME, method argument NAME
        for option, key in _pairs(options, words):
            if last == key or last.endswith(f".{key}"):
                return f"{_longest(option)} {last}:{rest}"
    return f"{name if own is None else _longest(own)}:{rest}"


def _within(command: click.Command, options: Sequence[click.Option], rest: str) -> str:
    """What follows the name of the wrong argument, with other arguments told as they are typed."""
    by_name = {name: _longest(one) for one in options for name in _names(command, one)}
    expected, got, value = rest.partition(" got ")
    quoted = re.split(r"('[^']*'|\"[^\"]*\")", expected)
    quoted[::2] = [_NAME.sub(lambda m: by_name.get(m[0], m[0]), text) for text in quoted[::2]]
    return "".join(quoted) + got + value


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
