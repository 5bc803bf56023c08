"""Several processes that measure together."""

from __future__ import annotations

import os
import subprocess
import sys


def torchrun(n: int, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or ``-m`` and a module, in `n` processes of one thread each."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--standalone",
        *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
