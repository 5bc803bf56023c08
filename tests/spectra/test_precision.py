"""Spectra are in plain float32, however torch was set before."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from natstats.spectra.accumulator import SpectrumAccumulator, power_spectrum
from natstats.spectra.precision import full_precision

HAS_NEW_WAY = hasattr(torch.backends.cudnn, "conv")

SETTINGS = {
    "old, high": "torch.set_float32_matmul_precision('high')",
    "old, medium": "torch.set_float32_matmul_precision('medium')",
    "old, of CUDA": "torch.backends.cuda.matmul.allow_tf32 = True",
    "autocast": "torch.autocast('cpu', torch.bfloat16).__enter__()",
}
NEW = {
    "new, all": "torch.backends.fp32_precision = 'tf32'",
    "new, CUDA": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "new, CPU": "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
    "new, convolutions": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
}

SCRIPT = """
import torch
from natstats.spectra.precision import full_precision
from natstats.spectra.accumulator import SpectrumAccumulator, power_spectrum
maps = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(0)).cumsum(-1)
expected = power_spectrum(maps.double(), dtype=torch.float64).float()


def state():
    asked = [torch.get_float32_matmul_precision, lambda: torch.is_autocast_enabled("cpu")]
    for backend in (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, 'matmul', None),
                    getattr(torch.backends.cudnn, "conv", None)):
        asked.append(lambda backend=backend: getattr(backend, "fp32_precision", None))
    found = []
    for ask in asked:
        try:
            found.append(ask())
        except RuntimeError:
            found.append("refused")
    return found

SETTING
before = state()
torch.testing.assert_close(power_spectrum(maps), expected, rtol=1e-4, atol=0)
assert state() == before, (before, state())
for device in ("cpu", "cuda"):
    with full_precision(torch.device(device), convolutions=True):
        within = state()
        assert within[0] == "highest", within
        assert not (device == "cpu" and within[1]), within
        assert not {"tf32", "bf16"} & set(within[2:4]), within
        assert device == "cpu" or within[4] != "tf32", within
    assert state() == before, (before, state())
"""


def run(setting):
    code = SCRIPT.replace("SETTING", setting)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1500:]


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_precision_is_plain_and_left_as_it_was(setting):
    """In processes of their own: not all that can be set can be taken back."""
    run(setting)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_NEW_WAY, reason="torch before 2.9 has one setting for all")
@pytest.mark.parametrize("setting", NEW.values(), ids=NEW)
def test_also_where_it_is_set_for_each_backend(setting):
    run(setting)


def test_a_failure_inside_leaves_it_as_it_was():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ValueError, match="inside"), full_precision(torch.device("cpu")):
            raise ValueError("inside")
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_autocast_does_not_round_a_spectrum():
    maps = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        inside = power_spectrum(maps)
    torch.testing.assert_close(inside, power_spectrum(maps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_sums(dtype):
    """Power beyond what float16 holds included; the sums are added at the end of a pass."""
    maps = 1000 * torch.randn(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    inside, outside = SpectrumAccumulator(12, 12), SpectrumAccumulator(12, 12)
    with torch.autocast("cpu", dtype):
        inside.update(maps)
    outside.update(maps)
    assert outside.sums[:, -3].sum() > 0
    torch.testing.assert_close(inside.sums, outside.sums)
