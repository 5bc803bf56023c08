"""The losses of the distillation methods, a file each; modules for any training loop.

With each module comes the function that it computes; the connectors that some need are here too.
For a method, :func:`natstats.distill.plan` chooses taps, connectors and weights and builds the
losses.

>>> import torch
>>> from natstats.distill import Outputs
>>> from natstats.distill.losses import AttentionTransfer
>>> ours, theirs = (Outputs(torch.zeros(2, 10), (torch.rand(2, c, 8, 8),)) for c in (4, 6))
>>> bool(AttentionTransfer()(ours, theirs, torch.zeros(2)) > 0)
True
"""

from natstats.distill.losses.ab import ActivationBoundaries, boundary_loss
from natstats.distill.losses.at import AttentionTransfer, attention_loss, attention_map
from natstats.distill.losses.channels import ChannelSpectra
from natstats.distill.losses.connectors import (
    Paraphraser,
    hint_regressor,
    projection,
    resizing_regressor,
    translator,
)
from natstats.distill.losses.controls import (
    AmplitudeDistance,
    Coherence,
    PhaseDistance,
    SpatialDistance,
)
from natstats.distill.losses.dist import RelationMatching
from natstats.distill.losses.dkd import DecoupledTargets
from natstats.distill.losses.ffl import FocalFrequency
from natstats.distill.losses.fitnets import HintLoss, hint_loss
from natstats.distill.losses.freekd import DetailDistance
from natstats.distill.losses.fsp import FlowMatching, flow_loss, flow_matrix
from natstats.distill.losses.ft import (
    FactorTransfer,
    Reconstruction,
    factor_loss,
    reconstruction_loss,
)
from natstats.distill.losses.jacobian import JacobianMatching, input_gradient, jacobian_loss
from natstats.distill.losses.kd import SoftTargets, soft_target_loss
from natstats.distill.losses.likeness import Likeness
from natstats.distill.losses.ofd import FeatureOverhaul, negative_mean, partial_distance
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
    "ChannelSpectra",
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
    "Paraphraser",
    "PhaseDistance",
    "Reconstruction",
    "RelationMatching",
    "RelativeDistance",
    "SoftTargets",
    "SpatialDistance",
    "SpectrumDistance",
    "attention_loss",
    "attention_map",
    "boundary_loss",
    "factor_loss",
    "flow_loss",
    "flow_matrix",
    "hint_loss",
    "hint_regressor",
    "input_gradient",
    "jacobian_loss",
    "negative_mean",
    "partial_distance",
    "projection",
    "reconstruction_loss",
    "resizing_regressor",
    "soft_target_loss",
    "translator",
]
