from .exponents import (
    Fits as Fits,
)
from .exponents import (
    LayerFit as LayerFit,
)
from .exponents import (
    fit_layers as fit_layers,
)
from .exponents import (
    fit_spectrum as fit_spectrum,
)
from .forms import Forms as Forms
from .forms import compare_forms as compare_forms
from .options import FitOptions as FitOptions
