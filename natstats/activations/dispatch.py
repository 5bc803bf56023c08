"""What sees every operation of a pass as it is dispatched."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["DispatchMode"]


class DispatchMode(TorchDispatchMode):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """A mode of dispatch that does not load torch's compiler."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Torch would load its compiler to keep it out; nothing is compiled in here."""
        return False
