"""Measuring: images go through a network, and the results into a run or a series of runs."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
