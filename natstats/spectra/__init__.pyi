from .accumulator import (
    SpectrumAccumulator as SpectrumAccumulator,
)
from .accumulator import (
    power_spectrum as power_spectrum,
)
from .accumulator import (
    ring_frequencies as ring_frequencies,
)
from .collector import Collector as Collector
from .edges import EDGES as EDGES
from .expected import expected_power as expected_power
from .records import (
    Layer as Layer,
)
from .records import (
    LayerSpectrum as LayerSpectrum,
)
from .records import (
    SkippedLayer as SkippedLayer,
)
from .records import (
    Spectrum as Spectrum,
)
from .simulate import power_law_fields as power_law_fields
