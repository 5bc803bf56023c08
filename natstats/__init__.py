"""natstats: power spectra of network activations, their exponents, and the test of the depth law.

>>> import torch, natstats
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
>>> run = natstats.measure(model, torch.rand(32, 3, 32, 32))
>>> list(run.layers.layer)
['input.grey', 'input.colour', '0']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natstats._version import __version__
from natstats.lazy import lazy_names

if TYPE_CHECKING:
    from natstats.collector import Collector
    from natstats.comparison import Comparison, compare
    from natstats.errors import NatstatsError, UsageError
    from natstats.expected import expected_power
    from natstats.fits import fit_spectrum
    from natstats.forms import compare_forms
    from natstats.law import Law, fit_law
    from natstats.measurement import measure, measure_images
    from natstats.models import Network, Preprocessing, load_network
    from natstats.options import FitOptions
    from natstats.run import Run
    from natstats.series import Series
    from natstats.series_measurement import measure_series
    from natstats.simulate import power_law_fields
    from natstats.spectra import SpectrumAccumulator, power_spectrum, ring_frequencies

__all__ = [
    "Collector",
    "Comparison",
    "FitOptions",
    "Law",
    "NatstatsError",
    "Network",
    "Preprocessing",
    "Run",
    "Series",
    "SpectrumAccumulator",
    "UsageError",
    "__version__",
    "compare",
    "compare_forms",
    "expected_power",
    "fit_law",
    "fit_spectrum",
    "load_network",
    "measure",
    "measure_images",
    "measure_series",
    "power_law_fields",
    "power_spectrum",
    "ring_frequencies",
]

_HOMES = {
    "Collector": "collector",
    "Comparison": "comparison",
    "FitOptions": "options",
    "Law": "law",
    "NatstatsError": "errors",
    "Network": "models",
    "Preprocessing": "models",
    "Run": "run",
    "Series": "series",
    "SpectrumAccumulator": "spectra",
    "UsageError": "errors",
    "compare": "comparison",
    "compare_forms": "forms",
    "expected_power": "expected",
    "fit_law": "law",
    "fit_spectrum": "fits",
    "load_network": "models",
    "measure": "measurement",
    "measure_images": "measurement",
    "measure_series": "series_measurement",
    "power_law_fields": "simulate",
    "power_spectrum": "spectra",
    "ring_frequencies": "spectra",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES, __all__)
