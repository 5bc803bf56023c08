"""The losses of the distillation methods, a file each; modules for any training loop.

>>> import torch
>>> from natstats.distill import Outputs
>>> from natstats.distill.losses import AttentionTransfer
>>> ours, theirs = (Outputs(torch.zeros(2, 10), (torch.rand(2, c, 8, 8),)) for c in (4, 6))
>>> bool(AttentionTransfer()(ours, theirs, torch.zeros(2)) > 0)
True
"""

from natstats.distill.losses.ab import ActivationBoundaries
from natstats.distill.losses.at import AttentionTransfer
from natstats.distill.losses.controls import (
    AmplitudeDistance,
    Coherence,
    PhaseDistance,
    SpatialDistance,
)
from natstats.distill.losses.dist import RelationMatching
from natstats.distill.losses.dkd import DecoupledTargets
from natstats.distill.losses.ffl import FocalFrequency
from natstats.distill.losses.fitnets import HintLoss
from natstats.distill.losses.freekd import DetailDistance
from natstats.distill.losses.fsp import FlowMatching
from natstats.distill.losses.ft import FactorTransfer, Reconstruction
from natstats.distill.losses.jacobian import JacobianMatching
from natstats.distill.losses.kd import SoftTargets
from natstats.distill.losses.likeness import Likeness
from natstats.distill.losses.ofd import FeatureOverhaul
from natstats.distill.losses.reviewkd import KnowledgeReview
from natstats.distill.losses.spectral import (
    ExponentDistance,
    RelativeDistance,
    SpectrumDistance,
)
from natstats.distill.losses.spectralkd import CoefficientDistance

__all__ = [
    "ActivationBoundaries",
    "AmplitudeDistance",
    "AttentionTransfer",
    "CoefficientDistance",
    "Coherence",
    "DecoupledTargets",
    "DetailDistance",
    "ExponentDistance",
    "FactorTransfer",
    "FeatureOverhaul",
    "FlowMatching",
    "FocalFrequency",
    "HintLoss",
    "JacobianMatching",
    "KnowledgeReview",
    "Likeness",
    "PhaseDistance",
    "Reconstruction",
    "RelationMatching",
    "RelativeDistance",
    "SoftTargets",
    "SpatialDistance",
    "SpectrumDistance",
]
