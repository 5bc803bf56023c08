"""``python -m natstats_cli``, which ``torchrun`` starts."""

from __future__ import annotations

import os

from .main import main

if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:
        # What torch warns of is the same in each process, and it tells of a lost one at length.
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    main()
