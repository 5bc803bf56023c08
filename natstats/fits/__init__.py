"""From a spectrum to its exponent with an interval, and how much of it a power law explains."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
