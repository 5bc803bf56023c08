"""The base class of what sees every operation of a pass as it is dispatched."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DispatchMode"]


class DispatchMode(TorchDispatchMode):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """A mode of dispatch that does not load torch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: otherwise torch loads its compiler only to exclude this mode from it."""
        return False
