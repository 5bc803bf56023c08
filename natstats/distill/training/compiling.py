"""Compiling the networks of a training with torch, for the passes in which no tap sits in them.

Taps are forward hooks that come and go with every pass. A compiled network silently keeps the hooks
that it was compiled with, or none. So a network is compiled for the stages in which no term takes a
map of it, such as with ``kd``; where there is no such stage, compiling is refused. Evaluation, gap
and gradients run the network itself, and the compiled one shares its weights, buffers and modes, so
that nothing that is written depends on compilation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from natstats import checks
from natstats.distill.training.program import Program, TrainingStage
from natstats.errors import NatstatsError, UsageError

__all__ = ["COMPILES", "CompiledNetworks", "check_compile", "compiled_networks"]

Compile = Literal["none", "student", "teacher", "both"]
"""The names below for type checkers."""

COMPILES = ("none", "student", "teacher", "both")
"""Which networks can be compiled."""


@dataclass(frozen=True, eq=False)
class CompiledNetworks:
    """What runs in place of the networks in a pass without taps; None for the network itself.

    Attributes:
        student: takes images and gives what the student gives.
        teacher: the same for the teacher.
    """

    student: Callable[..., Any] | None = None
    teacher: Callable[..., Any] | None = None


def compiled_networks(
    chosen: str,
    student: nn.Module,
    teacher: nn.Module | None,
    program: Program,
    *,
    is_cached: bool = False,
    _backend: str = "inductor",
) -> CompiledNetworks:
    """Compile networks for a training; the work is done in their first pass.

    Each is compiled for every size of batch, with its own forward pass and in its own mode. What
    torch has compiled in this process before is discarded, so that many trainings in turn do not
    reach the limit beyond which torch runs without compiling.

    Args:
        chosen: one of :data:`COMPILES`.
        student: the student.
        teacher: the teacher; None for none.
        program: tells where taps sit.
        is_cached: whether the teacher's outputs come from a cache.

    Raises:
        UsageError: not one of these, or a network that runs in no pass without taps.
    """
    check_compile(chosen, program, is_cached)
    made: dict[str, Callable[..., Any]] = {}
    for role, model in (("student", student), ("teacher", teacher)):
        if chosen not in (role, "both"):
            continue
        assert model is not None
        if not made:
            torch.compiler.reset()
        made[role] = _guarded(role, torch.compile(model, dynamic=False, backend=_backend))
    return CompiledNetworks(**made)


def check_compile(chosen: str, program: Program, is_cached: bool = False) -> None:
    """Raise for what :func:`compiled_networks` refuses.

    Args:
        chosen: one of :data:`COMPILES`.
        program: tells where taps sit.
        is_cached: whether the teacher's outputs come from a cache.

    Raises:
        UsageError: not one of these, or a network that runs in no pass without taps.
    """
    checks.one_of("compile", chosen, COMPILES)
    for role in ("student", "teacher"):
        if chosen in (role, "both") and (reason := _hindrance(role, program, is_cached)):
            raise UsageError(f"compile: expected a {role} that {reason}; got {chosen!r}")


def _hindrance(role: str, program: Program, is_cached: bool) -> str:
    """What a network does not do but must do to be compiled; empty where it can be compiled."""
    if role == "teacher" and not program.needs_teacher:
        return f"runs in the training; method {program.method} has none"
    if role == "teacher" and is_cached:
        return "runs in the steps; beside teacher_cache its outputs are kept"
    if not any(_runs_bare(role, stage) for stage in program.stages):
        return (
            f"runs without taps; method {program.method} takes its maps, or gradients in its "
            "images, in every pass, for which it is run as it is"
        )
    return ""


def _runs_bare(role: str, stage: TrainingStage) -> bool:
    """Whether a network runs in a stage without a term that takes its maps or image gradients."""
    runs = stage.trains_student if role == "student" else any(b.needs_teacher for b in stage.terms)
    is_watched = any(b.uses_images or getattr(b, role) for b in stage.terms)
    return runs and not is_watched


def _guarded(role: str, compiled: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compiled)
    def run(*given: Any, **named: Any) -> Any:
        with _in_words(role):
            return compiled(*given, **named)

    return run


@contextmanager
def _in_words(role: str) -> Iterator[None]:
    """Turn an error of torch.compile into one that says what it needs.

    Raises:
        NatstatsError: in place of an error of the compiler.
    """
    try:
        yield
    except Exception as error:
        # Recognised by the names of their modules, as importing these takes seconds.
        homes = tuple(f"torch.{home}." for home in ("_dynamo", "_inductor"))
        if not any(type(one).__module__.startswith(homes) for one in _chain(error)):
            raise
        causes = [str(one).strip().split("\n")[0] for one in _chain(error)]
        reason = next((text for text in reversed(causes) if text), type(error).__name__)
        raise NatstatsError(
            f"compile: expected a {role} that torch.compile can compile, and a compiler of C++ "
            f"(or Triton, on CUDA) for it; {' '.join(reason.split())[:200]} (--compile none runs "
            "it as it is)"
        ) from error


def _chain(error: BaseException) -> list[BaseException]:
    """An error and the errors that it came from."""
    found: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in found:
        found.append(following)
        following = following.__cause__ or following.__context__
    return found
