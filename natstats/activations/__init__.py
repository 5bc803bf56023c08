"""One forward pass of a network, as the maps of every layer call: hooks, layouts, depth, fields."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
