"""Gradients of the terms: how strongly each pulls at the student beside the cross-entropy."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from natstats.distill.training.objective import Objective, Taught

__all__ = ["gradient_rows"]


_SCALE = 2.0**12
"""Factor on losses whose gradients pass through float16, where small ones would become zero."""


def _flat(value: Tensor, parameters: list[Tensor], scale: float) -> Tensor:
    """Gradient in all parameters as one vector; zeros where there is none."""
    if not value.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters), device=value.device)
    found = torch.autograd.grad(value * scale, parameters, retain_graph=True, allow_unused=True)
    pieces = [
        torch.zeros(p.numel(), device=p.device) if g is None else g.detach().reshape(-1).float()
        for g, p in zip(found, parameters, strict=True)
    ]
    return torch.cat(pieces) / scale


def _norm(gradient: Tensor) -> float:
    size = float(gradient.norm())
    return size if math.isfinite(size) else math.nan


def gradient_rows(
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    weights: Mapping[str, float],
    taught: Taught | None = None,
) -> list[dict[str, Any]]:
    """Norm of the gradient of each weighted term in the student's parameters, on one batch.

    The pass leaves the student's buffers, such as running statistics, and the state of the losses
    as they were.

    Args:
        objective: student and terms.
        images: (N, 3, H, W).
        labels: (N,).
        weights: weight of each term by its name.
        taught: the teacher's outputs for the images, where they are kept; None runs the teacher.

    Returns:
        A record for each term: its name, weight, the norm of the weighted gradient, that of the
        cross-entropy (with weight 1), and the cosine between the two; NaN where one is zero, or
        where a gradient does not fit into float16.
    """
    scale = _SCALE if objective.autocast is torch.float16 else 1.0
    buffers = [(buffer, buffer.clone()) for buffer in objective.student.buffers()]
    losses = copy.deepcopy(objective.losses.state_dict())
    parameters: list[Tensor] = [p for p in objective.student.parameters() if p.requires_grad]
    try:
        with torch.enable_grad(), objective.uncompiled():
            values = objective(images, labels, None, taught)
            if values.objective_ce is None:
                return []
            ce = _flat(values.objective_ce, parameters, scale)
            rows = []
            for name, weight in weights.items():
                own = _flat(values.terms[name], parameters, scale) * weight
                norms = _norm(own), _norm(ce)
                size = norms[0] * norms[1]
                rows.append(
                    {
                        "term": name,
                        "weight": weight,
                        "norm": norms[0],
                        "ce_norm": norms[1],
                        "cosine": float(own @ ce) / size if size else float("nan"),
                    }
                )
            return rows
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        # Loaded through the modules, so that a loss that counts its passes resets its count.
        objective.losses.load_state_dict(losses)
