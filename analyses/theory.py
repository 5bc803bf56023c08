"""Theory beside measurement: the studies of docs/theory.md.

python analyses/theory.py random PHOTOS
"""

from __future__ import annotations

import click
from theory_random import depthwise, random


@click.group()
def theory() -> None:
    """Theory beside measurement, a command for each study."""


for study in (random, depthwise):
    theory.add_command(study)

if __name__ == "__main__":
    theory()
