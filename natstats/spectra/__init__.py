"""From maps to ring power: transforms, accumulators, the collector, and expected spectra."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
