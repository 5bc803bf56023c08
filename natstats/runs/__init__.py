"""What is kept on disk: a run, a series of checkpoints, a comparison, a control."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
