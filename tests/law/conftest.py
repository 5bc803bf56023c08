"""Runs of made layers: power laws of known exponents on maps of known sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from natstats.fits.options import FitOptions
from natstats.runs.run import Run
from natstats.spectra.expected import expected_power, independent_modes
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of


def run_of(
    exponents: Sequence[float],
    sides: Sequence[int],
    kinds: Sequence[str] | str = "conv",
    depths: Sequence[int] | None = None,
    fields: Sequence[float] | None = None,
    *,
    output: bool = False,
    n_images: int = 20,
    empty: int = 0,
    bend: float = 0.0,
    seed: int = 0,
    **options,
) -> Run:
    """A run without layer 0.

    Args:
        exponents: of the layers.
        sides: of their maps.
        kinds: of the layers, or of all of them.
        depths: by default 1, 2, ...
        fields: receptive fields; by default not known.
        output: whether the last layer is the network's own output.
        n_images: one for each group.
        empty: groups without images.
        bend: added to the exponent beyond half the Nyquist frequency.
        seed: of everything.
        options: of the fit.
    """
    rng = np.random.default_rng(seed)
    n = len(exponents)
    kinds = [kinds] * n if isinstance(kinds, str) else kinds
    depths = range(1, n + 1) if depths is None else depths
    fields = [np.nan] * n if fields is None else fields
    contrast = np.exp(0.3 * rng.standard_normal((n_images, 1)))
    spectra = []
    for place, (alpha, side) in enumerate(zip(exponents, sides, strict=True)):
        modes = 8 * independent_modes(side, side)
        frequency = (np.arange(len(modes)) + 1) / side
        truth = expected_power(alpha, side, side) * np.maximum(frequency / 0.25, 1.0) ** -bend
        power = contrast * truth * rng.gamma(modes / 2, 2 / modes, size=(n_images, len(modes)))
        layer = Layer(
            f"block.{place}", 0, kinds[place], depths[place], 8, side, side, 1.0, place + 1,
            fields[place], is_output=output and place == n - 1,
        )  # fmt: skip
        spectrum = spectrum_of(power, side, side, n_groups=n_images + empty)
        spectra.append(LayerSpectrum(layer, spectrum))
    return Run(spectra, options=FitOptions(**options))


@pytest.fixture(scope="session")
def made_run():
    """What makes a run, see :func:`run_of`."""
    return run_of
