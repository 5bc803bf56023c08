"""Knowledge distillation: training a student from a teacher, power spectra among the targets.

>>> from natstats import distill
>>> [method.name for method in distill.parse_method("kd+spectral")]
['kd', 'spectral']
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
