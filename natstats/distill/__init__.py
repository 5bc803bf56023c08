"""Training a student network from a teacher, with the spectra that are measured elsewhere.

>>> from natstats import distill
>>> [method.name for method in distill.parse_method("kd+spectral")]
['kd', 'spectral']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from natstats.lazy import lazy_names

if TYPE_CHECKING:
    from natstats.distill.comparison.compare import MethodComparison, compare_runs
    from natstats.distill.method import DistillationLoss, Method, Outputs
    from natstats.distill.methods import METHODS, get_method, parse_method
    from natstats.distill.pairing import pair_taps
    from natstats.distill.results import DistillationRun
    from natstats.distill.taps import Taps
    from natstats.distill.training.data import LabelledData, open_labelled
    from natstats.distill.training.distillation import distill
    from natstats.distill.training.recipes import Recipe
    from natstats.distill.training.setup import Distillation, classifier

__all__ = [
    "METHODS",
    "Distillation",
    "DistillationLoss",
    "DistillationRun",
    "LabelledData",
    "Method",
    "MethodComparison",
    "Outputs",
    "Recipe",
    "Taps",
    "classifier",
    "compare_runs",
    "distill",
    "get_method",
    "open_labelled",
    "pair_taps",
    "parse_method",
]

_HOMES = {
    "METHODS": "methods",
    "Distillation": "training.setup",
    "DistillationLoss": "method",
    "DistillationRun": "results",
    "LabelledData": "training.data",
    "Method": "method",
    "MethodComparison": "comparison.compare",
    "Outputs": "method",
    "Recipe": "training.recipes",
    "Taps": "taps",
    "classifier": "training.setup",
    "compare_runs": "comparison.compare",
    "distill": "training.distillation",
    "get_method": "methods",
    "open_labelled": "training.data",
    "pair_taps": "pairing",
    "parse_method": "methods",
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES, __all__)
