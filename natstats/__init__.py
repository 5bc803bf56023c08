"""natstats: power spectra of network activations, their exponents, and the test of the depth law.

>>> import torch, natstats
>>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()).eval()
>>> run = natstats.measure(model, torch.rand(32, 3, 32, 32))
>>> list(run.layers.layer)
['input.grey', 'input.colour', '0']
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
