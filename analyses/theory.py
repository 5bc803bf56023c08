"""Theory beside measurement: the studies of docs/theory.md.

python analyses/theory.py random PHOTOS
"""

from __future__ import annotations

import click
from theory_random import random


@click.group()
def theory() -> None:
    """Theory beside measurement, a command for each study."""


theory.add_command(random)

if __name__ == "__main__":
    theory()
