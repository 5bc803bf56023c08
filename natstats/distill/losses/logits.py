"""What the losses on class scores share: checks of logits and labels, and standardisation."""

from __future__ import annotations

import torch
from torch import Tensor

from natstats.distill.method import at_least_float32
from natstats.errors import UsageError

__all__ = ["STANDARDISED", "paired_logits", "refuse_other_labels", "standardised"]

STANDARDISED = "logits standardised image by image, for which the authors' program has"
"""Begins the note of a method with standardised logits."""

_EPS = 1e-7
"""Added to the deviation of logits, as the authors' program does."""


def paired_logits(method: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of student and teacher in one type, at least float32; the teacher's detached.

    Args:
        method: named in errors.
        student: (N, K).
        teacher: (N, K).

    Raises:
        UsageError: the shapes differ, or are not (N, K).

    >>> import torch
    >>> paired_logits("dist", torch.zeros(2, 3).half(), torch.zeros(2, 3))[0].dtype
    torch.float32
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise UsageError(
            f"{method}: expected logits (N, K) of the same images and classes; got "
            f"{tuple(student.shape)} of the student and {tuple(teacher.shape)} of the teacher"
        )
    ours, theirs = at_least_float32(student), at_least_float32(teacher.detach())
    dtype = torch.promote_types(ours.dtype, theirs.dtype)
    return ours.to(dtype), theirs.to(dtype)


def refuse_other_labels(method: str, labels: Tensor, logits: Tensor) -> None:
    """Raise unless there is a label for every image, and each is one of the classes.

    Args:
        method: named in errors.
        labels: (N,), whole numbers below K.
        logits: (N, K).

    Raises:
        UsageError: another shape than (N,), labels that are not whole numbers, such as mixed ones,
            or one that is none of the classes (checked on a CPU only: on other devices the check
            would make every step wait).

    >>> import torch
    >>> refuse_other_labels("dkd", torch.rand(2, 3), torch.zeros(2, 3))
    Traceback (most recent call last):
    natstats.errors.UsageError: dkd: expected labels (N,), a whole number for each of 2 images; \
got (2, 3), torch.float32
    """
    if not isinstance(labels, Tensor):
        raise UsageError(
            f"{method}: expected labels (N,), a tensor of whole numbers; got "
            f"{type(labels).__name__}"
        )
    is_whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != logits.shape[:1] or not is_whole:
        raise UsageError(
            f"{method}: expected labels (N,), a whole number for each of {len(logits)} images; "
            f"got {tuple(labels.shape)}, {labels.dtype}"
        )
    if labels.device.type == "cpu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= logits.shape[1]:
            raise UsageError(
                f"{method}: expected labels from 0 to {logits.shape[1] - 1}, as there are scores "
                f"for {logits.shape[1]} classes; got {low if low < 0 else high}"
            )


def standardised(logits: Tensor) -> Tensor:
    """Logits less their mean, divided by their deviation, image by image.

    (z - mean) / (s + 1e-7), with s the deviation over the classes, K - 1 in its denominator. Then
    student and teacher are compared by the order and the relative distances of their classes, and
    the student need not be as sure as the teacher is.

    Args:
        logits: (N, K), K at least 2.

    Raises:
        UsageError: there are fewer than two classes.

    Reference:
        S. Sun, W. Ren, J. Li, R. Wang and X. Cao, "Logit Standardization in Knowledge
        Distillation", CVPR 2024, arXiv 2403.01427, and its public code.

    >>> import torch
    >>> standardised(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[-1.0000,  0.0000,  1.0000]])
    """
    if logits.shape[1] < 2:
        raise UsageError(f"standardise: expected two classes or more; got {logits.shape[1]}")
    centred = logits - logits.mean(dim=1, keepdim=True)
    variance = centred.square().sum(1, keepdim=True) / (logits.shape[1] - 1)
    # Where all logits are equal, the deviation is 0 and has no derivative.
    return centred / (variance.clamp(min=1e-30).sqrt() + _EPS)
