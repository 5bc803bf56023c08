"""Several processes that work together, as ``torchrun`` starts them: how they join and end.

>>> from natstats.processes import joined
>>> with joined() as alone:
...     alone.world
1
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
