"""Networks that run compiled in the steps, where no tap sits, and nothing else that is changed."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file

from natstats.distill.training import distillation
from natstats.distill.training.compiling import compiled_networks
from natstats.distill.training.distillation import WEIGHTS, distill
from natstats.distill.training.setup import Distillation
from natstats.errors import NatstatsError, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture
def compiled_passes():
    """Passes of compiled networks by role, with a backend that needs no compiler."""
    passes = {"student": 0, "teacher": 0}

    def counting(*given, **named):
        made = compiled_networks(*given, **named, _backend="eager")

        def counted(role):
            run = getattr(made, role)
            if run is None:
                return None

            def once(images):
                passes[role] += 1
                return run(images)

            return once

        return type(made)(counted("student"), counted("teacher"))

    with patch.object(distillation, "compiled_networks", counting):
        yield passes


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / WEIGHTS)


def run(setup, path, chosen="none", **more):
    return distill(setup, path, report=False, gap=False, compile=chosen, **more)


@pytest.mark.parametrize("chosen", ["student", "teacher", "both"])
def test_a_compiled_training_is_the_plain_one(
    chosen, compiled_passes, setup_of, data, teacher, tmp_path
):
    plain = run(setup_of(data, teacher), tmp_path / "plain")
    setup = setup_of(data, teacher)
    modes = [module.training for module in setup.student.model.modules()]
    found = run(setup, tmp_path / "run", chosen)
    # 30 images in batches of 8 make 4 steps; the gradients' pass is the network's own.
    n = 4 * setup.recipe.epochs
    assert compiled_passes == {
        role: n if chosen in (role, "both") else 0 for role in ("student", "teacher")
    }
    expected, own = weights_of(tmp_path / "plain"), weights_of(tmp_path / "run")
    assert expected.keys() == own.keys() == setup.student.model.state_dict().keys()
    for name, value in expected.items():
        torch.testing.assert_close(own[name], value, rtol=1e-4, atol=1e-5)
    assert found.info["identity"] == plain.info["identity"]
    assert found.info["asked"]["options"]["compile"] == chosen
    assert [module.training for module in setup.student.model.modules()] == modes
    assert len(found.gradients) == len(plain.gradients) > 0


def test_a_cut_training_goes_on_bit_for_bit(compiled_passes, setup_of, data, teacher, tmp_path):
    run(setup_of(data, teacher), tmp_path / "whole", "both")

    def cut(done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(setup_of(data, teacher), tmp_path / "cut", "both", keep_seconds=0.0, progress=cut)
    run(setup_of(data, teacher), tmp_path / "cut", "both")
    whole, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], other[name]) for name in whole)


def test_only_stages_without_taps_run_compiled(compiled_passes, setup_of, data, teacher, tmp_path):
    """The first stage of fsp takes maps; the labels after it do not."""
    setup = setup_of(data, teacher, "fsp")
    stages = setup.program.stages
    bare = [s for s in stages if not any(bound.student for bound in s.terms)]
    assert 0 < len(bare) < len(stages)
    run(setup, tmp_path / "run", "student")
    assert compiled_passes["student"] == 4 * sum(stage.epochs for stage in bare)


def test_a_cache_runs_beside_a_compiled_student(compiled_passes, setup_of, data, teacher, tmp_path):
    run(setup_of(data, teacher), tmp_path / "run", "student", teacher_cache=tmp_path / "cache")
    assert compiled_passes["student"]
    with pytest.raises(UsageError, match="compile: expected a teacher that runs in the steps"):
        run(setup_of(data, teacher), tmp_path / "b", "both", teacher_cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("method", "chosen", "sentence"),
    [
        ("at", "student", "expected a student that runs without taps; method at takes its maps"),
        ("kd+spectral", "teacher", "expected a teacher that runs without taps"),
        ("jacobian", "both", "expected a student that runs without taps"),
        ("ce", "teacher", "expected a teacher that runs in the training; method ce has none"),
        ("kd", "all", "expected one of none, student, teacher, both"),
    ],
)
def test_what_cannot_be_compiled_is_refused(
    method, chosen, sentence, setup_of, data, teacher, tmp_path
):
    setup = setup_of(data, None if method == "ce" else teacher, method)
    with pytest.raises(UsageError, match=f"compile: {sentence}"):
        run(setup, tmp_path / "run", chosen)
    assert not (tmp_path / "run").exists()


def test_a_compiler_that_is_missing_is_named(setup_of, data, teacher, tmp_path):
    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found")

    made = functools.partial(compiled_networks, _backend=broken)
    with (
        patch.object(distillation, "compiled_networks", made),
        pytest.raises(NatstatsError, match=r"compile: .*compiler of C\+\+.*No working C\+\+.*none"),
    ):
        run(setup_of(data, teacher), tmp_path / "run", "student")


def test_an_error_of_the_network_stays_its_own(setup_of, data, teacher):
    setup = setup_of(data, teacher)
    made = compiled_networks("student", setup.student.model, None, setup.program, _backend="eager")
    with pytest.raises(ZeroDivisionError):

        def divided(*given):
            return 1 / 0

        with patch.object(type(setup.student.model), "forward", divided):
            made.student(torch.zeros(2, 3, 16, 16))


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler of C++")
def test_torch_compiles_a_student(data, teacher, recipe, tmp_path):
    from natstats.distill.training.setup import as_network

    torch.manual_seed(0)
    student = as_network(
        torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(),
                            torch.nn.Linear(4 * 14 * 14, 3))
    )  # fmt: skip
    setup = Distillation.of(student, data, "kd", teacher=teacher, recipe=recipe.changed(epochs=1))
    assert run(setup, tmp_path / "run", "student").history.loss.notna().all()
