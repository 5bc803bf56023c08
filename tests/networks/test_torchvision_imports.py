"""torchvision without torch's compiler, which no measurement loads, and which comes when needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURED = """
import sys, torch, natstats
network = natstats.load_network("squeezenet1_1", weights="none")
network.preprocessing.framing
from natstats.networks.builders import named_builder
named_builder("squeezenet1_1").classifier(network.model)
natstats.measure(network.model, torch.rand(4, 3, 64, 64), n_groups=4)
assert "torchvision" in sys.modules
print(*(name for name in ("torch._dynamo", "sympy") if name in sys.modules))
"""

NEEDED = """
import sys, torch
from natstats.networks.torchvision_imports import torchvision_models
torchvision_models()
assert "torch._dynamo" not in sys.modules
from torchvision.ops import roi_align
from torchvision.ops.roi_align import is_compile_supported
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
assert roi_align(torch.ones(1, 1, 8, 8), boxes, 2).tolist() == [[[[1.0, 1.0], [1.0, 1.0]]]]
assert isinstance(is_compile_supported("cpu"), bool)
import torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported("cpu") == is_compile_supported("cpu")
doubled = torch.compile(lambda x: 2 * x, backend="eager")
print(doubled(torch.ones(1)).item(), type(torch._dynamo).__name__)
"""

ANYTHING = """
import sys
from natstats.networks.torchvision_imports import without_compiler
with without_compiler():
    from torch._dynamo.utils import is_compile_supported as later
    asked = later("cpu")
    from torch._dynamo.utils import is_compile_supported, counters
    import torch._dynamo.config
with without_compiler():  # once it is loaded, nothing is done
    import torchvision
print(is_compile_supported("cpu") == asked, type(sys.modules["torch._dynamo"]).__name__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "said"),
    [(MEASURED, ""), (NEEDED, "2.0 module"), (ANYTHING, "True module")],
    ids=["measured", "needed", "anything"],
)
def test_a_compiler_is_loaded_where_it_is_needed_and_only_there(code: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == said
