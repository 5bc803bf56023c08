"""From exponents and depths to the law of depth, its tests, and differences between networks."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
