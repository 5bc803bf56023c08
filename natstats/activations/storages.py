"""Keys of storages, by which a traced pass recognises its data.

The key is of the storage, not of the tensor: views and in-place writes share it. It is an address,
and once a storage is freed the allocator may give its address to a new one, which would then be
mistaken for the old. So a pass holds a weak reference to every storage that it sees: this keeps the
address taken after the values are freed, but not their memory.
"""

from __future__ import annotations

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["HeldStorages", "storage_key"]


def storage_key(tensor: Tensor) -> int:
    """The address of the storage of `tensor`; no other has it as long as the storage is held."""
    return int(tensor.untyped_storage()._cdata)


class HeldStorages:
    """Keeps the keys of storages unique, even after the storages themselves are freed."""

    def __init__(self) -> None:
        self._held: dict[int, StorageWeakRef] = {}

    def hold(self, tensor: Tensor) -> None:
        """Let no later storage have the key of this tensor's while `self` lives."""
        key = storage_key(tensor)
        if key not in self._held:
            held = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call, unused-ignore]
            self._held[key] = held
