"""``natstats models``: which networks go by a name."""

from __future__ import annotations

import sys
import textwrap
from itertools import groupby

import click

from natstats.numbers import counted

from . import output
from .views import width_of

HELP = """List the networks that can be given as MODEL, by family, with their published weights.

PATTERN is part of a name or of a family, such as resnet, or a pattern of whole names in quotes,
such as 'vit_*'. Without PATTERN all networks are listed.

\b
natstats models resnet           networks with resnet in their name
natstats models 'convnext*' --timm
"""

OTHERS = (
    "any cifar_resnetD and cifar_resnetDx4 with D = 6 n + 2, and any wrn_D_K with D = 6 n + 4, go "
    "by name, too; timm's are listed with --timm; networks of your own are named "
    "package.module:factory"
)


@click.command(
    "models", help=HELP, short_help="List the networks known by name, with their weights."
)
@click.argument("pattern", required=False)
@click.option("--timm", is_flag=True, help="Also list timm's (pip install 'natstats[timm]').")
def command(pattern: str | None, timm: bool) -> None:
    """List networks by name."""
    from natstats.networks.listing import catalogue

    entries = catalogue(pattern, timm)
    columns = width_of(sys.stdout) or sys.maxsize
    for library, of_library in groupby(entries, key=lambda entry: entry.library):
        output.say(library)
        for family, of_family in groupby(of_library, key=lambda entry: entry.family):
            output.say(f"  {family}")
            listed = list(of_family)
            width = max(len(entry.name) for entry in listed)
            for entry in listed:
                weights = ", ".join(entry.weights) or "no published weights"
                line = f"    {entry.name:{width}}  {weights}"
                if len(line) <= columns:
                    output.say(line)
                    continue
                output.say(f"    {entry.name}")
                for part in textwrap.wrap(weights, columns - 6, break_long_words=False):
                    output.say(f"      {part}")
    fit = "" if pattern is None else " that fits" if len(entries) == 1 else " that fit"
    output.tell(f"{counted(len(entries), 'network')}{fit}", err=True)
    output.tell(OTHERS, err=True)
