"""``natstats explain``: where the exponents of a network come from."""

from __future__ import annotations

from typing import Any

import click

from .measure import counterfactual_option, measure_network, network_options
from .sections import Sectioned

HELP = """Measure MODEL on images, and account for the exponent of every layer.

Measures what `natstats measure` measures, and the maps before and after every operation. This
shows what each operation does to the exponent: convolutions (their kernels, the correlations of
channels, borders, strides), activation functions (what Gaussian theory says, and the rest), norms,
pooling and additions. Their shares add up to the change from the images to the last layer, and the
slopes of the shares add up to the slope of the law.

With --control random-weights, the untrained network is measured in the same way, and the difference
is shown. MODEL, images and options are those of `natstats measure --help`, except --until, which is
refused: an account takes all images.
"""


@click.command(
    "explain",
    help=HELP,
    cls=Sectioned,
    short_help="Like measure, and say where the exponents come from.",
)
@network_options
@counterfactual_option
def command(**settings: Any) -> None:
    """Account for the exponents of a network."""
    measure_network(explain=True, **settings)
