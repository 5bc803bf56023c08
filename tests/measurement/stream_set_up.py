"""How the streams of photographs are measured, and which of their shards were opened."""

from __future__ import annotations

from pathlib import Path

N_IMAGES, PER_SHARD = 22, 6
SETTINGS = {"size": 32, "crop": 32, "batch_size": 5, "n_groups": 16}


def opened(log: Path) -> list[str]:
    """Shards in the order in which they were opened; the log begins anew."""
    found = log.read_text().split()
    log.unlink()
    return found
