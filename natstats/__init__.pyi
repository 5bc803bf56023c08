from ._version import __version__ as __version__
from .errors import NatstatsError as NatstatsError
from .errors import UsageError as UsageError
from .fits.exponents import fit_layers as fit_layers
from .fits.exponents import fit_spectrum as fit_spectrum
from .fits.form_comparison import compare_forms as compare_forms
from .fits.options import FitOptions as FitOptions
from .law.law import Law as Law
from .law.law import fit_law as fit_law
from .measurement.one_run import measure as measure
from .measurement.one_run import measure_images as measure_images
from .measurement.options import MeasureOptions as MeasureOptions
from .measurement.parts import merge_parts as merge_parts
from .measurement.series import measure_series as measure_series
from .networks.load import Network as Network
from .networks.load import load_network as load_network
from .networks.preprocessing import Preprocessing as Preprocessing
from .runs.comparison import Comparison as Comparison
from .runs.comparison import compare as compare
from .runs.many_networks import MetaAnalysis as MetaAnalysis
from .runs.many_networks import meta_analysis as meta_analysis
from .runs.run import Run as Run
from .runs.series import Series as Series
from .spectra.accumulator import (
    SpectrumAccumulator as SpectrumAccumulator,
)
from .spectra.accumulator import (
    power_spectrum as power_spectrum,
)
from .spectra.accumulator import (
    ring_frequencies as ring_frequencies,
)
from .spectra.collector import Collector as Collector
from .spectra.expected import expected_power as expected_power
from .spectra.simulate import power_law_fields as power_law_fields
