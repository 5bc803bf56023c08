"""What a tensor's values stand in: the key by which a traced pass knows its data again.

A storage, not a tensor: views and in-place writes share it. The key is an address, and the
allocator gives the address of a storage that is gone to the next one, of which nothing is to be
known. So a pass holds all storages that it sees, without their memory: a weak reference keeps the
address taken after the values are freed.
"""

from __future__ import annotations

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["HeldStorages", "storage_key"]


def storage_key(tensor: Tensor) -> int:
    """The address of the storage of `tensor`, no other's as long as the storage is held."""
    return int(tensor.untyped_storage()._cdata)


class HeldStorages:
    """Keeps the keys of storages their own, whether or not anything else still needs them."""

    def __init__(self) -> None:
        self._held: dict[int, StorageWeakRef] = {}

    def hold(self, tensor: Tensor) -> None:
        """Let no later storage have the key of this one while `self` lives."""
        key = storage_key(tensor)
        if key not in self._held:
            held = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call, unused-ignore]
            self._held[key] = held
