"""``natstats explain``: where the exponents of a network come from."""

from __future__ import annotations

from typing import Any

import click

from .measure import counterfactual_option, measure_network, network_options
from .sections import Sectioned

HELP = """Measure MODEL on images, and account for the exponent of every layer.

As `natstats measure`, and beside the layers the maps are measured before and after every operation
on the way: what convolutions do (their kernels, the correlations of channels, borders, strides),
activation functions (what Gaussian theory says, and the rest), norms, pooling and additions. The
shares add up to the change from the images to the last layer, and the law's slope is the sum of
theirs.

With --control random-weights the same of the untrained network, and the difference. MODEL, images
and options are those of `natstats measure --help`.
"""


@click.command(
    "explain",
    help=HELP,
    cls=Sectioned,
    short_help="As measure, and account for where the exponents come from.",
)
@network_options
@counterfactual_option
def command(**settings: Any) -> None:
    """Account for the exponents of a network."""
    measure_network(explain=True, **settings)
