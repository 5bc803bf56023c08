"""``natstats distill``: trains, goes on, shows what it will do, and refuses in a sentence."""

from __future__ import annotations

import html
import json
import platform
import re
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import natstats
from natstats.distill.methods import METHODS
from natstats.distill.run_folders import STATE

QUICK = ("--epochs", "1", "--size", "16", "--batch-size", "8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for place, name in enumerate(("dark", "light")):
            (root / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = np.clip(rng.normal(80 + 90 * place, 30, (16, 16, 3)), 0, 255)
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def teacher(group, folder, tmp_path_factory):
    """A trained one, as the command leaves it."""
    out = tmp_path_factory.mktemp("runs") / "teacher"
    arguments = [
        "distill",
        "--student",
        "cifar_resnet14",
        "--data",
        f"imagefolder:{folder}",
        *QUICK,
    ]
    result = CliRunner().invoke(group, [*arguments, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out / "student.safetensors"


@pytest.fixture
def call(call, folder, teacher):
    """Run the command in an empty folder with a student and a teacher; return the result."""

    def run(*arguments, code=0, taught=True, data=None, student="cifar_resnet8"):
        base = ["distill", "--student", student, "--data", data or f"imagefolder:{folder}", *QUICK]
        if taught:
            base += ["--teacher", "cifar_resnet14", "--teacher-checkpoint", str(teacher)]
        return call(*base, *arguments, code=code)

    return run


@pytest.mark.slow
def test_a_teacher_then_a_student(call, teacher, tmp_path):
    out = call("--method", "kd+spectral", "--method-arg", "spectral.weight=2", "--out", "r").stdout
    assert "2 x spectral.spectrum (mean over octaves, images and pairs)" in out
    assert "stage2.0.relu2 (32 x 8 x 8) <- stage2.1.relu2 (32 x 8 x 8)" in out
    assert "Accuracy on the test images after the last epoch: " in out
    info = json.loads((tmp_path / "r" / "distill.json").read_text())
    assert info["arguments"]["spectral"]["weight"] == 2.0
    assert info["command"].startswith("natstats")
    for name in ("student.safetensors", "history.csv", "report.html"):
        assert (tmp_path / "r" / name).is_file()
    # What the trainer wrote is what the page shows.
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert info["versions"]["torch"] == torch.__version__
    for shown in (
        f"type cpu, name {platform.machine()}, threads {torch.get_num_threads()}",
        f"natstats {natstats.__version__}, torch {torch.__version__}, torchvision ",
        info["created"],
    ):
        assert html.escape(shown) in page


def test_what_others_may_read_of_a_run_they_may_read_all_of(call, quick, tmp_path):
    call("--out", "r", taught=False)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "r").iterdir() if path.is_file()}
    assert len(modes) == 1


@pytest.mark.slow
def test_an_interruption_says_how_to_go_on(call, quick, tmp_path, monkeypatch):
    from natstats.distill.training.trainer import Trainer

    class Interrupted(Trainer):
        def _finish_epoch(self, *given):
            super()._finish_epoch(*given)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("natstats.distill.training.distillation.Trainer", Interrupted)
        text = " ".join(call("--epochs", "2", code=130, taught=False).stderr.split())
    out = "runs/cifar_resnet8-ce"
    assert f"same command, with --out {out} and without --overwrite, goes on" in text
    assert not (tmp_path / out / "distill.json").exists()
    call("--epochs", "2", "--out", out, taught=False)
    assert json.loads((tmp_path / out / "distill.json").read_text())["costs"]["sittings"] == 2


def test_a_cache_without_a_teacher_is_said_to_be_unused(call, quick):
    text = call("--method", "ce", "--teacher-cache", "c", "--dry-run", taught=False).stdout
    assert "Note: the teacher cache is not used, as ce needs no teacher." in text


@pytest.mark.slow
def test_several_seeds_are_compared_and_taken_up_again(call, quick, tmp_path):
    result = call("--method", "kd", "--seed", "0", "1", "--out", "r")
    assert {p.name for p in (tmp_path / "r").iterdir() if p.is_dir()} >= {"seed-0", "seed-1"}
    assert "seeds  accuracy" in result.stdout
    assert (tmp_path / "r" / "report.html").is_file()
    before = (tmp_path / "r" / "seed-0" / "distill.json").stat().st_mtime_ns
    again = call("--method", "kd", "--seed", "0", "1", "2", "--out", "r")
    assert "seed-0 is there already" in again.stdout
    assert (tmp_path / "r" / "seed-0" / "distill.json").stat().st_mtime_ns == before
    assert (tmp_path / "r" / "seed-2" / "distill.json").is_file()


@pytest.mark.slow
def test_seeds_of_another_training_are_not_taken(call, quick, tmp_path):
    call("--method", "kd", "--seed", "0", "1", "--out", "r")
    for other in (["--method", "at"], ["--method", "kd", "--lr", "0.5"]):
        message = " ".join(
            call(*other, "--seed", "0", "1", "2", "--out", "r", code=2).stderr.split()
        )
        assert "expected the training that is in r/seed-0, which had other settings: " in message
        assert not (tmp_path / "r" / "seed-2").exists()
    assert "recipe.learning_rate was 0.05, is 0.5 (--overwrite begins again)" in message


def test_the_student_alone_needs_no_teacher(call, quick, tmp_path):
    out = call("--out", "r", taught=False).stdout
    assert "Method: ce, seed 0" in out
    assert json.loads((tmp_path / "r" / "distill.json").read_text())["teacher"] is None


@pytest.mark.slow
def test_a_dry_run_writes_nothing(call, quick, tmp_path):
    out = call("--method", "ofd", "--dry-run").stdout
    assert "Taps of ofd" in out
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_default_place_is_free(call, quick, tmp_path):
    call("--method", "kd")
    call("--method", "kd")
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {
        "cifar_resnet8-kd", "cifar_resnet8-kd-2",
    }  # fmt: skip


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


@pytest.mark.slow
def test_a_finished_training_is_taken_as_it_is(call, quick, tmp_path):
    """With one seed as with several; one with other settings is refused, and named."""
    first = call("--method", "kd", "--out", "r").stdout
    before = files_of(tmp_path / "r")
    again = call("--method", "kd", "--out", "r").stdout
    assert again.startswith("r is there already and taken as it is.\nAccuracy on the test images")
    assert again.splitlines()[1:] == first.splitlines()[-2:]
    assert files_of(tmp_path / "r") == before
    for other, said in (
        (["--lr", "0.5"], "recipe.learning_rate was 0.05, is 0.5"),
        (["--seed", "3"], "seed was 0, is 3"),
    ):
        message = " ".join(call("--method", "kd", *other, "--out", "r", code=2).stderr.split())
        assert "expected the training that is in r, which had other settings: " in message
        assert said in message
        assert "(--overwrite begins again)" in message
    assert files_of(tmp_path / "r") == before
    call("--method", "kd", "--out", "r", "--overwrite")
    # Trained again, the weights are the same to the last bit, and so are the bytes of their file.
    assert files_of(tmp_path / "r")["student.safetensors"] == before["student.safetensors"]
    assert files_of(tmp_path / "r")["distill.json"] != before["distill.json"]


@pytest.mark.slow
def test_a_finished_training_that_is_damaged_is_no_training(call, quick, tmp_path):
    call("--out", "r", taught=False)
    (tmp_path / "r" / "distill.json").write_text("{}")
    text = call("--out", "r", taught=False, code=1).stderr
    assert "distill.json: expected kind and format; kind is missing" in text


def stopped(monkeypatch, where, name, when=lambda *_: True):
    """A patch that interrupts behind a function, once."""
    import importlib

    owner = importlib.import_module(where[0])
    for part in where[1:]:
        owner = getattr(owner, part)
    original = getattr(owner, name)

    def interrupted(*given, **named):
        found = original(*given, **named)
        if when(*given):
            monkeypatch.setattr(owner, name, original)
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(owner, name, interrupted)


TRAINER = ("natstats.distill.training.trainer", "Trainer")


@pytest.mark.slow
def test_an_interruption_behind_the_last_file_says_it_is_there(call, quick, tmp_path, monkeypatch):
    stopped(monkeypatch, ("natstats.distill.training.state", "TrainingState"), "remove")
    text = call("--out", "r", taught=False, code=130).stderr
    assert "interrupted; the training is finished, and r holds its run" in text
    assert "taken as it is" in call("--out", "r", taught=False).stdout


@pytest.mark.slow
def test_an_interruption_between_seeds_says_which_are_finished(call, quick, tmp_path, monkeypatch):
    stopped(monkeypatch, TRAINER, "__init__", lambda trainer, *_: trainer.seed == 4)
    text = call("--seed", "3", "4", "5", "--out", "r", taught=False, code=130).stderr
    assert (
        "interrupted; r keeps what is finished (seed-3), and the same command, with --out r "
        in text
    )
    assert not (tmp_path / "r" / "seed-4" / "distill.json").exists()
    again = call("--seed", "3", "4", "5", "--out", "r", taught=False).stdout
    assert again.count("taken as it is") == 1


@pytest.mark.slow
def test_an_interruption_of_the_table_says_all_are_finished(call, quick, tmp_path, monkeypatch):
    import natstats.distill.comparison.compare as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "compare_runs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        text = call("--seed", "0", "1", "--out", "r", taught=False, code=130).stderr
    assert "r keeps what is finished (seed-0, seed-1), and the same command" in text
    again = call("--seed", "0", "1", "--out", "r", taught=False).stdout
    assert again.count("taken as it is") == 2
    assert (tmp_path / "r" / "table.json").is_file()


def test_an_interruption_before_anything_is_replaced_leaves_it(call, quick, tmp_path, monkeypatch):
    call("--out", "r", taught=False)
    before = files_of(tmp_path / "r")
    stopped(monkeypatch, TRAINER, "__init__")
    text = call("--out", "r", "--overwrite", "--lr", "0.5", taught=False, code=130).stderr
    assert "interrupted; nothing new was kept, and r holds what it held before" in text
    assert files_of(tmp_path / "r") == before
    # A training that was cut is as safe: its state stays until there is another.
    (tmp_path / "r" / "distill.json").unlink()
    (tmp_path / "r" / STATE).write_bytes(b"kept")
    stopped(monkeypatch, TRAINER, "__init__")
    text = call("--out", "r", "--overwrite", taught=False, code=130).stderr
    assert "nothing new was kept, and r holds what it held before" in text
    assert (tmp_path / "r" / STATE).read_bytes() == b"kept"


@pytest.mark.slow
def test_an_interruption_of_an_overwrite_of_several_seeds(call, quick, tmp_path, monkeypatch):
    call("--seed", "0", "1", "2", "--out", "r", taught=False)
    old = (tmp_path / "r" / "seed-2" / "distill.json").read_bytes()
    stopped(monkeypatch, TRAINER, "_finish_epoch", lambda trainer, *_: trainer.seed == 1)
    text = call("--seed", "0", "1", "2", "--out", "r", "--overwrite", "--lr", "0.5", taught=False,
                code=130).stderr  # fmt: skip
    assert (
        "r keeps what is finished (seed-0) and r/seed-1 keeps where the training stands, and the "
        "same command, with --out r and without --overwrite, goes on from there when r/seed-2, "
        "which holds what it held before, is moved away"
    ) in text
    assert (tmp_path / "r" / "seed-2" / "distill.json").read_bytes() == old
    (tmp_path / "r" / "seed-2").rename(tmp_path / "old")
    again = call("--seed", "0", "1", "2", "--out", "r", "--lr", "0.5", taught=False).stdout
    assert again.count("taken as it is") == 1
    info = json.loads((tmp_path / "r" / "seed-1" / "distill.json").read_text())
    assert info["costs"]["sittings"] == 2


def test_an_interruption_before_anything_says_so(call, quick, tmp_path, monkeypatch):
    stopped(monkeypatch, TRAINER, "__init__")
    text = call("--out", "r", taught=False, code=130).stderr
    assert "nothing was written" in text
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "nonsense"], "method: expected one of ce, kd, fitnets, at, fsp, jacobian"),
        (["--method-arg", "kd.nonsense=1"], "kd.nonsense: expected one of weight, ce_weight"),
        (["--method-arg", "kd.weight=much"], "kd.weight: expected a value like 0.9"),
        (["--method-arg", "kd.weight"], "expected METHOD.NAME=VALUE"),
        (["--tap", "stage1"], "expected STUDENT=TEACHER"),
        (["--method", "at", "--tap", "stage9=stage1"], "tap: expected a layer, such as"),
        (["--preset", "nonsense"], "--preset: expected one of default, cifar100"),
        (["--recipe", "nonsense=1"], "nonsense"),
        (["--lr", "-1"], "--lr: expected a number that is above 0"),
        (["--recipe", "learning_rate=-1"], "--recipe learning_rate: expected a number"),
        (["--recipe", "clip=-1"], "--recipe clip: expected a number that is above 0"),
        (["--method-arg", "temperature=-1"], "--method-arg kd.temperature: expected a number"),
        (["--seed", "0", "1", "x"], "--seed: expected a whole number; got 'x'"),
        (["--student-checkpoint", "no.pth"], "--student-checkpoint: expected a file"),
        (["--student-weights", "default"], "--student-weights: expected a checkpoint file beside"),
        (["--holdout", "2"], "holdout"),
        (["--seed", "0", "0"], "seed: expected each seed once"),
        (["--teacher-weights", "V1"], "weights: expected not to be given beside a checkpoint"),
        (["--teacher-run", "nowhere"], "--teacher-run: expected only beside method spectral"),
        (["--recipe", "epochs=3"], "recipe: expected epochs once"),
        (["--student-arg", "num_classes=5"], "student: expected scores for the 2 classes"),
        (["--teacher-cache-limit", "3"], "-limit: expected a --teacher-cache beside it; got none"),
        (["--method", "at", "--compile", "student", "--dry-run"], "--compile: expected a student"),
        (["--recipe", "padding=16", "--dry-run"], "padding: expected a number that is below 16"),
        (["--write-config", "w.toml", "--dry-run"], "--dry-run: expected not beside --write-con"),
        (["--device", "nonsense"], "device: expected a device of this machine"),
    ],
)
def test_bad_input_is_one_sentence(call, arguments, message):
    assert message in " ".join(call(*arguments, code=2).stderr.split())


def test_classes_that_differ(call, quick):
    text = call("--teacher-arg", "num_classes=7", code=2).stderr
    assert "teacher: expected scores for the 2 classes of" in text
    assert "cifar_resnet14 has 7 classes" in text


def test_a_teacher_whose_classifier_is_missing_is_refused(call, quick, teacher, tmp_path):
    from safetensors.torch import load_file, save_file

    kept = {k: v for k, v in load_file(teacher).items() if not k.startswith("fc.")}
    save_file(kept, tmp_path / "body.safetensors")
    text = call("--teacher-checkpoint", "body.safetensors", "--teacher-arg", "num_classes=2",
                code=2).stderr  # fmt: skip
    assert "teacher: expected trained weights in the whole network" in " ".join(text.split())


@pytest.mark.slow
def test_networks_that_cannot_be_paired(call, quick):
    text = " ".join(call("--method", "fsp", student="wrn_10_2", code=2).stderr.split())
    assert "fsp: expected equal numbers of channels" in text


def test_data_without_classes(call, quick, tmp_path):
    (tmp_path / "d" / "train").mkdir(parents=True)
    text = " ".join(call(data="imagefolder:d", taught=False, code=2).stderr.split())
    assert "class" in text


def test_tensorboard_is_an_extra(call, quick, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    text = " ".join(call("--tensorboard", "--out", "r", code=2).stderr.split())
    assert "pip install 'natstats[tensorboard]'" in text
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_run_of_the_teacher_gives_the_targets(call, group, quick, tmp_path, teacher, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((8, 3, 16, 16), dtype=np.float32))
    monkeypatch.setattr("natstats.report.pages.run.write_report", lambda *_: None)
    measured = CliRunner().invoke(
        group,
        ["measure", "cifar_resnet14", "--checkpoint", str(teacher), "--images", "x.npy",
         "--layers", "act", "--out", "measured"],
    )  # fmt: skip
    assert measured.exit_code == 0, measured.output
    out = call("--method", "spectral", "--teacher-run", "measured", "--out", "r", taught=False)
    assert "spectral.spectrum" in out.stdout


def test_help_names_every_method(group):
    text = CliRunner().invoke(group, ["distill", "--help"]).stdout
    listed = set(
        re.findall(r"[a-z]+", text[text.index("Methods: ") : text.index("The spectral terms")])
    )
    assert set(METHODS) <= listed
