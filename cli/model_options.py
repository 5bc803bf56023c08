"""Options that say which network, with which weights, and how their values are read."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import click

from natstats.networks.load_options import INPUT_FORMS, LoadOptions

from . import options

__all__ = ["KeyValue", "model_options", "once"]

_WORDS = {"true": True, "false": False, "none": None}


class KeyValue(click.ParamType):
    """An argument of a builder, written KEY=VALUE."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return key and value; the value is a Python literal where it is one, else text."""
        if not isinstance(value, str):
            return value
        key, equals, text = value.partition("=")
        if not equals or not key.isidentifier():
            self.fail(f"expected KEY=VALUE, such as num_classes=10; got {value!r}", param, ctx)
        if text.lower() in _WORDS:
            return key, _WORDS[text.lower()]
        try:
            return key, ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return key, text


def once(
    ctx: click.Context, param: click.Parameter, pairs: tuple[tuple[str, Any], ...]
) -> dict[str, Any]:
    """The pairs as a dict; a key that comes twice is refused."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise click.BadParameter(f"expected each key once; got {key!r} twice", ctx, param)
        found[key] = value
    return found


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a network to a command."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option(
        "--model-arg",
        "model_args",
        type=KeyValue(),
        multiple=True,
        callback=once,
        help="Argument of MODEL's builder or factory, such as num_classes=10; may be repeated.",
    ),
    click.option(
        "--checkpoint",
        type=options.PATH,
        multiple=True,
        help="Weights: a .pth, .pt or .safetensors file. A quoted pattern, a folder, or several "
        "files make a series: a run for each.",
    ),
    click.option(
        "--checkpoint-key",
        help="Entry of the file that holds the weights, such as ema, or the start of their keys.  "
        "[default: found automatically]",
    ),
    click.option(
        "--weights",
        default=LoadOptions.weights,
        show_default=True,
        help="Published weights by name, such as IMAGENET1K_V1, or none for random weights.",
    ),
    click.option(
        "--strict/--no-strict",
        default=None,
        help="--strict: fail on an unreadable image instead of skipping it. --no-strict: load only "
        "what fits of a checkpoint.",
    ),
    click.option(
        "--takes",
        type=click.Choice(INPUT_FORMS),
        help="What MODEL takes: a batch of images, a list of them, clips, or pairs.  "
        "[default: known for torchvision's networks, else images]",
    ),
)
