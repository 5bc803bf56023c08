"""A run is repeated from its record: bit for bit, or with a sentence that says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from natstats.distill.record import Asked, AskedNetwork
from natstats.distill.run_folders import STATE
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import WEIGHTS, distill
from natstats.distill.training.repetition import recorded_settings
from natstats.distill.training.setup import Distillation, classifier
from natstats.errors import NatstatsError, UsageError

OLD = Path(__file__).parent / "run_0_4_0"


@pytest.fixture(scope="module")
def quick_recipe(recipe):
    return recipe.changed(epochs=1, warmup_epochs=0)


@pytest.fixture(scope="module")
def made(folder, teacher, quick_recipe, tmp_path_factory):
    """A run of kd from a teacher in a file, on a part of the images; its folder."""
    root = tmp_path_factory.mktemp("made")
    save_file(teacher.model.state_dict(), root / "teacher.safetensors")
    data = open_labelled(
        f"imagefolder:{folder}", quick_recipe, holdout=0.2, limit=18, seed=4
    )  # fmt: skip
    setup = Distillation.of(
        classifier("cifar_resnet8", 3, seed=3), data, "kd",
        teacher=classifier("cifar_resnet14", 3, checkpoint=root / "teacher.safetensors"),
        method_args={"temperature": 2}, recipe=quick_recipe, seed=3,
    )  # fmt: skip
    distill(setup, root / "run", report=False, evaluate_every=5)
    return root / "run"


def weights(path):
    return load_file(path / WEIGHTS)


def same(one, other):
    return all(torch.equal(value, other[key]) for key, value in one.items())


def record(path):
    return json.loads((path / "distill.json").read_text())


def edited(made, tmp_path, **changes):
    """A copy of the record with other fields; the file."""
    info = record(made)
    for place, value in changes.items():
        *way, last = place.split("__")
        inner = info
        for key in way:
            inner = inner[key]
        if value is None:
            del inner[last]
        else:
            inner[last] = value
    file = tmp_path / "distill.json"
    file.write_text(json.dumps(info))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "distill.json"])
def test_a_run_and_its_repetition_are_equal_bit_for_bit(made, tmp_path, name):
    settings = recorded_settings(made / name)
    assert settings.options["evaluate_every"] == 5
    run = distill(Distillation.from_record(made / name), tmp_path / "r", report=False)
    assert same(weights(made), weights(tmp_path / "r"))
    assert not settings.notes
    now = record(tmp_path / "r")
    for field in ("identity", "asked", "recipe", "arguments"):
        expected = record(made)[field]
        if field == "asked":
            expected["options"], now[field]["options"] = {}, {}
        assert now[field] == expected
    assert run.accuracy == record(made)["accuracy"]


def test_all_that_is_asked_for_is_in_the_record(made):
    asked = record(made)["asked"]
    assert asked.keys() == get_type_hints(Asked).keys()
    assert asked["student"].keys() == get_type_hints(AskedNetwork).keys()
    assert asked["limit"] == 18
    assert asked["strict"] is True
    assert asked["student"]["name"] == "cifar_resnet8"
    assert asked["student"]["seed"] == 3
    assert asked["teacher"]["checkpoint"].endswith("teacher.safetensors")
    settings = recorded_settings(made)
    assert (settings.data.holdout, settings.data.limit, settings.data.seed) == (0.2, 18, 4)
    assert settings.method_args["kd.temperature"] == 2.0
    assert settings.student.seed is None  # it goes with that of the training


def test_what_is_given_wins(made):
    setup = Distillation.from_record(
        made, seed=7, epochs=2, method_args={"weight": 0.5}, size=20, limit=12
    )
    assert setup.seed == 7
    assert setup.recipe.epochs == 2
    assert setup.program.arguments["kd"]["weight"] == 0.5
    assert setup.program.arguments["kd"]["temperature"] == 2.0
    assert (len(setup.data.train), setup.data.size) == (12, 20)
    assert setup.student.weights == "none (random, seed 7)"
    other = Distillation.from_record(made, method="at", student="cifar_resnet14")
    assert other.program.arguments["at"]["weight"] == 1000.0
    assert other.student.name == "cifar_resnet14"


@pytest.mark.slow
def test_other_weights_are_refused_by_their_digest_and_can_be_given(made, tmp_path):
    moved = edited(made, tmp_path, asked__teacher__checkpoint="nowhere.pth")
    with pytest.raises(NatstatsError, match=r"teacher: .* digest \w{16}; .*nowhere.*--teacher-"):
        Distillation.from_record(moved)
    was = Path(record(made)["asked"]["teacher"]["checkpoint"])
    shutil.copy(was, tmp_path / "moved.safetensors")
    setup = Distillation.from_record(moved, teacher_checkpoint=tmp_path / "moved.safetensors")
    assert setup.teacher.digest() == record(made)["teacher"]["digest"]
    assert not [note for note in setup.teacher.notes if "other weights" in note]
    state = load_file(was)
    state["fc.bias"] += 1
    save_file(state, tmp_path / "changed.safetensors")
    file = edited(
        made, tmp_path, asked__teacher__checkpoint=str(tmp_path / "changed.safetensors")
    )  # fmt: skip
    with pytest.raises(UsageError, match=r"teacher: expected the weights .* those in .*changed"):
        Distillation.from_record(file)
    other = Distillation.from_record(
        file, teacher_checkpoint=tmp_path / "changed.safetensors"
    )  # fmt: skip
    assert "the run that is repeated had other weights" in other.teacher.notes[-1]


def test_random_weights_that_have_changed_are_refused(made, tmp_path):
    file = edited(made, tmp_path, identity__student="0" * 16)
    with pytest.raises(UsageError, match="student: expected the weights .* digest 00000000"):
        Distillation.from_record(file)
    assert Distillation.from_record(file, student="cifar_resnet8").student.name == "cifar_resnet8"
    # Another seed is another network, of which nothing is known.
    assert Distillation.from_record(file, seed=9).seed == 9


def test_images_that_have_changed_are_refused(made, tmp_path, folder):
    file = edited(made, tmp_path, data__digest="0" * 16)
    with pytest.raises(UsageError, match="data: expected the images of the run .* digest 00000000"):
        Distillation.from_record(file)
    setup = Distillation.from_record(file, data=None, holdout=0.3)
    assert setup.data.holdout == 0.3
    moved = edited(made, tmp_path, data__source="imagefolder:nowhere")
    with pytest.raises(UsageError, match="data: expected nowhere"):
        Distillation.from_record(moved)


def test_a_network_from_python_must_be_given_again(data, teacher, quick_recipe, tmp_path):
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    start = {k: v.clone() for k, v in own.state_dict().items()}
    distill(
        Distillation.of(own, data, "ce", recipe=quick_recipe, seed=1), tmp_path / "r", report=False
    )
    with pytest.raises(UsageError, match="student: .* given as a module from Python"):
        Distillation.from_record(tmp_path / "r")
    trained = {k: v.clone() for k, v in own.state_dict().items()}
    own.load_state_dict(start)
    again = Distillation.from_record(tmp_path / "r", student=own)
    distill(again, tmp_path / "s", report=False)
    assert same(trained, weights(tmp_path / "s"))


@pytest.mark.slow
def test_named_layers_and_a_student_with_a_seed_of_its_own(data, teacher, setup_of, tmp_path,
                                                           quick_recipe):  # fmt: skip
    setup = Distillation.of(
        classifier("cifar_resnet8", 3, seed=11), data, "at", teacher=teacher, recipe=quick_recipe,
        seed=2, taps=[("stage2.0.bn2", "stage2.1.bn2")],
    )  # fmt: skip
    distill(setup, tmp_path / "r", report=False)
    again = Distillation.from_record(tmp_path / "r", teacher=teacher)
    assert again.named_taps == (("stage2.0.bn2", "stage2.1.bn2"),)
    assert again.student.weights == "none (random, seed 11)"
    assert again.identity(1) == setup_identity(setup, tmp_path)
    # A record that does not say that they were named has the layers all the same.
    info = record(tmp_path / "r")
    info["asked"]["taps"] = []
    (tmp_path / "distill.json").write_text(json.dumps(info))
    third = Distillation.from_record(tmp_path / "distill.json", teacher=teacher)
    assert third.program.taps_table() == again.program.taps_table()


def setup_identity(setup, tmp_path):
    kept = record(tmp_path / "r")["identity"]
    assert kept["seed"] == setup.seed
    return kept


@pytest.mark.slow
def test_a_folder_of_seeds(data, quick_recipe, tmp_path):
    for seed in (0, 2):
        student = classifier("cifar_resnet8", 3, seed=seed)
        setup = Distillation.of(student, data, "ce", recipe=quick_recipe, seed=seed)
        distill(setup, tmp_path / "r" / f"seed-{seed}", report=False)
    settings = recorded_settings(tmp_path / "r")
    assert settings.seeds == (0, 2)
    assert len(settings.student.digests) == 2
    with pytest.raises(UsageError, match="seed: expected one of 0, 2, as there are runs of each"):
        Distillation.from_record(tmp_path / "r")
    assert Distillation.from_record(tmp_path / "r", seed=2).seed == 2
    info = record(tmp_path / "r" / "seed-2")
    info["identity"]["recipe"]["momentum"] = 0.5
    (tmp_path / "r" / "seed-2" / "distill.json").write_text(json.dumps(info))
    with pytest.raises(UsageError, match=r"nothing but their seed; .* differ in identity\.recipe"):
        recorded_settings(tmp_path / "r")


class TestOlderRecords:
    def test_what_they_tell_is_taken_and_what_not_is_said(self):
        settings = recorded_settings(OLD)
        assert settings.student.name == "cifar_resnet8"
        assert settings.student.seed is None
        assert settings.student.digests
        assert str(settings.teacher.checkpoint) == "t/student.safetensors"
        assert settings.recipe.epochs == 2
        assert settings.method_args["spectral.level"] == "kept"
        assert "written by natstats 0.4.0, which did not note how" in settings.notes[0]

    def test_weights_that_its_words_do_not_tell(self, tmp_path):
        file = edited(OLD, tmp_path, student__weights="as given")
        with pytest.raises(UsageError, match="student: expected weights that can be found again"):
            recorded_settings(file).student.load("student", 2, 0)

    def test_how_many_images_there_were_is_a_limit(self, made, tmp_path):
        file = edited(made, tmp_path, asked=None)
        asked = record(made)["asked"]
        again = Distillation.from_record(file, teacher_checkpoint=asked["teacher"]["checkpoint"])
        assert (len(again.data.train), asked["limit"]) == (18, 18)
        assert not [note for note in again.data.notes if "other images" in note]


@pytest.mark.slow
def test_a_teacher_run_whose_place_is_not_told_must_be_given(made, tmp_path):
    facts = {"model": "x", "digest": None, "normalisation": None, "spectra": "0" * 16}
    file = edited(made, tmp_path, teacher_run=facts, method="spectral", arguments={}, taps=[])
    with pytest.raises(UsageError, match="teacher_run: expected the measured run that"):
        Distillation.from_record(file)
    # Another method has no such targets.
    assert Distillation.from_record(file, method="kd").run_path is None


def test_a_training_that_is_not_finished_is_none_yet(tmp_path):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / STATE).write_bytes(b"kept")
    with pytest.raises(UsageError, match="the training in .*r is not finished"):
        recorded_settings(tmp_path / "r")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "something"}, "expected the kind 'distillation'"),
        ({"format": 99}, "written by a newer natstats"),
        ({"seed": "0"}, "distill.json, seed: expected a whole number"),
        ({"data__source": None}, "a record that names its data"),
        ({"method": "nonsense"}, "method: expected one of ce, kd"),
        ({"recipe__epochs": 0}, "epochs: expected"),
        ({"recipe__nonsense": 1}, "recipe field: expected one of"),
        ({"asked__student": 3}, "distill.json, asked.student: expected an object or nothing"),
    ],
)
def test_a_record_that_is_none(made, tmp_path, changes, message):
    with pytest.raises(NatstatsError, match=message):
        recorded_settings(edited(made, tmp_path, **changes))


def test_a_place_without_a_record(tmp_path):
    with pytest.raises(NatstatsError, match="from: expected the record of a training; .*none"):
        recorded_settings(tmp_path / "none")
    with pytest.raises(UsageError, match="from: expected a training .* holds no distill.json"):
        recorded_settings(tmp_path)
    (tmp_path / "x.json").write_bytes(b"\x00\xff")
    with pytest.raises(UsageError, match="from: expected the record of a training"):
        recorded_settings(tmp_path / "x.json")


class TestOlderTrainings:
    def test_what_they_did_without_saying_so_is_done(self, tmp_path):
        file = edited(OLD, tmp_path, method="at", arguments={"at": {"form": "paper"}}, taps=[])
        settings = recorded_settings(file)
        assert settings.method_args["at.paper_scale"] == "fixed"
        assert not [note for note in settings.notes if "paper_scale" in note]
        assert [note for note in settings.notes if "tell at.weight" in note]

    def test_what_is_done_otherwise_since_is_said(self, tmp_path):
        notes = " ".join(recorded_settings(OLD).notes)
        assert "a warm-up keeps its epochs since natstats 0.9.0" in notes
        assert "the last batch" not in notes  # 16 images in batches of 8
        assert "the last batch" in " ".join(
            recorded_settings(edited(OLD, tmp_path, data__n_train=17)).notes
        )
        assert "in bf16" in " ".join(
            recorded_settings(edited(OLD, tmp_path, recipe__amp="bf16")).notes
        )

    @pytest.mark.parametrize(("source", "flip"), [("mnist:m", True), ("imagefolder:m", None)])
    def test_digits_were_flipped(self, tmp_path, source, flip):
        file = edited(OLD, tmp_path, data__source=source)
        assert recorded_settings(file).recipe.flip is flip

    def test_of_a_run_of_today_nothing_is_said(self, made):
        assert not recorded_settings(made).notes


@pytest.mark.slow
def test_relative_paths_are_found_from_another_folder(
    folder, made, quick_recipe, tmp_path, monkeypatch
):
    shutil.copytree(folder, tmp_path / "images")
    shutil.copy(made.parent / "teacher.safetensors", tmp_path / "t.safetensors")
    monkeypatch.chdir(tmp_path)
    data = open_labelled("imagefolder:images", quick_recipe)
    setup = Distillation.of(
        classifier("cifar_resnet8", 3), data, "kd", recipe=quick_recipe,
        teacher=classifier("cifar_resnet14", 3, checkpoint="t.safetensors"),
    )  # fmt: skip
    distill(setup, "run", report=False)
    assert record(tmp_path / "run")["asked"]["folder"] == str(tmp_path)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    again = Distillation.from_record("../run")
    assert again.data.digest == data.digest
    assert str(again.teacher.source.checkpoint) == str(tmp_path / "t.safetensors")
    # What is found from the current folder comes first, and must be the same.
    (tmp_path / "sub" / "t.safetensors").write_bytes(b"")
    with pytest.raises(NatstatsError, match="teacher"):
        Distillation.from_record("../run")


def test_without_relative_paths_no_folder_is_told(made):
    assert record(made)["asked"]["folder"] is None


@pytest.mark.parametrize("options", [{"gap": "no"}, {"evaluate_every": 0}, {"gap_on": "2"}])
def test_options_of_a_record_are_checked(made, tmp_path, options):
    with pytest.raises(UsageError, match=f"asked.options: {next(iter(options))}: expected"):
        recorded_settings(edited(made, tmp_path, asked__options=options))


def test_only_options_of_a_training_are_taken_over(made, tmp_path):
    """A record may come from anybody: it says neither where to write nor what to replace."""
    options = {"overwrite": True, "out": "elsewhere", "write_config": "x", "teacher_cache": "c"}
    settings = recorded_settings(edited(made, tmp_path, asked__options={**options, "gap": False}))
    assert settings.options == {"gap": False}


def test_what_is_wrong_in_a_record_is_told_with_its_file(made, tmp_path):
    file = edited(made, tmp_path, recipe__learning_rate=-1)
    with pytest.raises(UsageError, match=f"^from: .*; {file}: learning_rate: expected a number"):
        recorded_settings(file)


def test_seeds_that_are_not_finished_are_named(made, tmp_path):
    shutil.copytree(made, tmp_path / "r" / "seed-0")
    (tmp_path / "r" / "seed-1").mkdir()
    (tmp_path / "r" / "seed-1" / STATE).write_bytes(b"kept")
    (note,) = recorded_settings(tmp_path / "r").notes
    assert note.startswith("not repeated, as not finished: ")
    assert note.endswith("seed-1")


def test_outputs_from_a_cache_are_noted(made, tmp_path):
    notes = ["the teacher's outputs were read from a cache: the time of a step is another"]
    (note,) = recorded_settings(edited(made, tmp_path, notes=notes)).notes
    assert "weights may differ in the last digits" in note


def test_what_a_method_or_a_preset_takes_away_is_noted(made):
    settings = recorded_settings(made)
    assert settings.changed(method="kd").method_args == settings.method_args
    assert settings.changed(epochs=3).notes == settings.notes
    changed = settings.changed(method="ce", preset="cifar100")
    assert changed.method_args == {}
    first, second = changed.notes[len(settings.notes) :]
    assert first.startswith("method ce does without what was given before it: kd.")
    assert second == "the preset cifar100 replaces the whole recipe that was given before it"


def test_a_random_student_follows_the_classes_of_other_data(made):
    settings = recorded_settings(made)
    assert record(made)["asked"]["student"]["model_args"] == {"num_classes": 3}
    again = settings.student.load("student", 3, settings.seeds[0])
    assert again.digest() == record(made)["identity"]["student"]
    other = settings.changed(data="imagefolder:elsewhere")
    assert other.student.load("student", 5, 0).model.fc.out_features == 5
