"""From a name or a checkpoint to a network with its weights and its preprocessing.

The networks that torchvision lacks are in :mod:`natstats.networks.zoo`.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
