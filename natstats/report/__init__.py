"""Results as figures (:mod:`natstats.report.figures`) and pages (:mod:`natstats.report.pages`).

Both take the frozen records of :mod:`natstats.report.records`. Nothing is computed here, and
matplotlib is loaded by the first drawing.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
