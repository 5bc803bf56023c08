"""Equal tensors make equal files, in whatever order and process they are written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from natstats.distill.training.weights import weights_file
from natstats.networks.load import load_network

FACTS = {"natstats": "student", "network": "net \u00e9", "mean": "0.1,0.2", "std": "1,1", "a": ""}


def made():
    torch.manual_seed(0)
    shapes = {"b.weight": (3, 2), "a": (), "z": (5,), "é\n": (2, 2), "b.bias": (3,)}
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    return {**tensors, "n": torch.tensor(3), "half": torch.ones(3).half(), "none": torch.ones(0)}


def test_the_order_of_tensors_and_facts_does_not_matter(tmp_path):
    tensors = made()
    content = weights_file(tensors, FACTS)
    for _ in range(5):
        turned = dict(reversed(tensors.items())), dict(reversed(FACTS.items()))
        assert weights_file(*turned) == content
    # The library itself reads what it would have written.
    loaded, direct = load(content), load(save(tensors, FACTS))
    assert loaded.keys() == direct.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    (tmp_path / "w.safetensors").write_bytes(content)
    with safe_open(tmp_path / "w.safetensors", "pt") as file:
        assert file.metadata() == FACTS
    assert len(content) == len(save(tensors, FACTS))


@pytest.mark.slow
def test_the_same_in_two_processes():
    code = (
        "import hashlib; from test_weights import made, FACTS;"
        "from natstats.distill.training.weights import weights_file;"
        "print(hashlib.sha256(weights_file(made(), FACTS)).hexdigest())"
    )
    ours = hashlib.sha256(weights_file(made(), FACTS)).hexdigest()
    for seed in ("7",):  # pytest's own process has another
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parent,
        )  # fmt: skip
        assert done.stdout.strip() == ours


@pytest.mark.parametrize("facts", [{}, FACTS])
def test_a_network_with_or_without_facts(facts):
    state = load_network("cifar_resnet8", weights="none").model.state_dict()
    loaded = load(weights_file(state, facts))
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
