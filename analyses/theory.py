"""Theory beside measurement: the studies of docs/theory.md.

    OMP_NUM_THREADS=2 python analyses/theory.py random PHOTOS
    python analyses/theory.py trained RUNS
    python analyses/theory.py outliers WEIGHTS CIFAR PHOTOS
    python analyses/theory.py coverage
    python analyses/theory.py counterfactual WEIGHTS CIFAR PHOTOS

RUNS are those that analyses/accounts.py has measured. Each writes its results below
analyses/results, and prints them.
"""

from __future__ import annotations

import click
from theory_counterfactual import counterfactual
from theory_coverage import coverage
from theory_outliers import outliers
from theory_random import depthwise, random
from theory_trained import trained


@click.group()
def theory() -> None:
    """Theory beside measurement, a command for each study."""


for study in (random, depthwise, trained, outliers, coverage, counterfactual):
    theory.add_command(study)

if __name__ == "__main__":
    theory()
