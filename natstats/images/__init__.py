"""From a named source (a folder, an array, a data set) to numbered, framed batches of images.

>>> import torch
>>> from natstats.images import open_images
>>> len(open_images(torch.rand(4, 3, 32, 32)))
4
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
