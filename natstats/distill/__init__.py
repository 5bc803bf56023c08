"""Training a student network from a teacher, with the spectra that are measured elsewhere.

>>> from natstats import distill
>>> [method.name for method in distill.parse_method("kd+spectral")]
['kd', 'spectral']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from natstats.distill.comparison.compare import MethodComparison, compare_runs
    from natstats.distill.method import DistillationLoss, Method, Outputs
    from natstats.distill.methods import METHODS, get_method, parse_method
    from natstats.distill.results import DistillationRun
    from natstats.distill.taps import Taps, pair_taps
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
    "pair_taps": "taps",
    "parse_method": "methods",
}


def __getattr__(name: str) -> Any:
    # Imported on first use, as in natstats itself.
    if name not in _HOMES:
        raise AttributeError(f"module 'natstats.distill' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"natstats.distill.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
