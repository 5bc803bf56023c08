"""``natstats distill`` by a record (--from) and by a file (--config): what is typed wins."""

from __future__ import annotations

import json
import os
import shutil
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from natstats.errors import UsageError
from natstats.files.config_files import read_config, to_toml

QUICK = """
epochs = 1
size = 16
batch-size = 8
"""


@pytest.fixture(scope="module")
def root(group, tmp_path_factory):
    """Images, and a finished run of two seeds; the folder that they are in."""
    root = tmp_path_factory.mktemp("root")
    rng = np.random.default_rng(0)
    for split, n in (("train", 8), ("val", 4)):
        for place, name in enumerate(("dark", "light")):
            (root / "data" / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = np.clip(rng.normal(80 + 90 * place, 30, (16, 16, 3)), 0, 255)
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / "data" / split / name / f"{number}.png")
    return root


@pytest.fixture
def call(call, quick, root, tmp_path):
    """Run ``natstats distill`` in an empty folder with the images in it."""
    (tmp_path / "data").symlink_to(root / "data")

    def run(*arguments, code=0):
        return call("distill", *arguments, code=code)

    return run


@pytest.fixture
def base(tmp_path):
    """A file of settings for the student alone; its text is what is added to."""
    return f'student = "cifar_resnet8"\ndata = "imagefolder:data"\n{QUICK}'


def said(result):
    return " ".join(result.stderr.split())


def record(path):
    return json.loads((path / "distill.json").read_text())


def weights(path):
    return (path / "student.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_of_several_seeds_is_repeated(call, tmp_path, base):
    (tmp_path / "c.toml").write_text(f"{base}seed = [1, 2]\n[recipe]\nclip = 1\n")
    call("--config", "c.toml", "--limit", "12", "--out", "r")
    call("--from", "r", "--out", "s")
    for seed in (1, 2):
        assert weights(tmp_path / "r" / f"seed-{seed}") == weights(tmp_path / "s" / f"seed-{seed}")
    info = record(tmp_path / "s" / "seed-1")
    assert info["recipe"]["clip"] == 1
    assert info["asked"]["limit"] == 12
    # One of them, with what is typed.
    call("--from", "r/seed-2/distill.json", "--out", "t", "--lr", "0.5", "--limit", "10")
    assert record(tmp_path / "t")["recipe"]["learning_rate"] == 0.5
    assert record(tmp_path / "t")["data"]["n_train"] == 10
    assert record(tmp_path / "t")["seed"] == 2
    # The settings of a run as a file are the same run again.
    call("--from", "r", "--write-config", "w.toml")
    call("--config", "w.toml", "--seed", "2", "--out", "u")
    assert weights(tmp_path / "u") == weights(tmp_path / "r" / "seed-2")


@pytest.mark.slow
def test_a_teacher_that_was_moved_is_given_anew(call, tmp_path, base):
    (tmp_path / "c.toml").write_text(base)
    call("--config", "c.toml", "--out", "t", "--student", "cifar_resnet14")
    given = ["--teacher", "cifar_resnet14", "--method", "at", "--method-arg", "weight=10"]
    call(
        "--config", "c.toml", "--out", "r", *given,
        "--teacher-checkpoint", "t/student.safetensors",
    )  # fmt: skip
    shutil.move(tmp_path / "t" / "student.safetensors", tmp_path / "x.safetensors")
    text = said(call("--from", "r", "--out", "s", code=2))
    assert "teacher: expected the weights of the run that is repeated, with the digest" in text
    assert "(--teacher-checkpoint says which file has them" in text
    call("--from", "r", "--out", "s", "--teacher-checkpoint", "x.safetensors")
    assert weights(tmp_path / "r") == weights(tmp_path / "s")
    out = call("--from", "r", "--teacher-checkpoint", "x.safetensors", "--dry-run",
               "--method-arg", "at.weight=5").stdout  # fmt: skip
    assert "5 x at " in out


def test_typed_options_win_over_the_file(call, tmp_path, base):
    (tmp_path / "c.toml").write_text(
        f'{base}lr = 0.5\n[recipe]\nclip = 2\nwarmup_epochs = 0\n[method]\nname = "ce"\n'
        "[method.ce]\nweight = 0.5\n"
    )
    call("--config", "c.toml", "--lr", "0.25", "--recipe", "clip=none", "--write-config", "w.toml")
    found = read_config(tmp_path / "w.toml")
    assert found["recipe"]["learning_rate"] == 0.25
    assert found["recipe"]["clip"] == "none"
    assert found["recipe"]["augmentation"] == "crop-flip"
    assert found["method"] == {"name": "ce", "ce": {"weight": 0.5}}
    assert found["seed"] == [0]
    call("--config", "w.toml", "--preset", "cifar100", "--epochs", "3", "--write-config", "v.toml")
    assert read_config(tmp_path / "v.toml")["recipe"]["milestones"] == [1.875, 2.25, 2.625]


def test_a_written_file_says_the_same_again(call, tmp_path, base):
    (tmp_path / "c.toml").write_text(base)
    arguments = ["--workers", "0", "--evaluate-every", "3", "--recipe", "augmentation=none",
                 "--student-arg", "num_classes=2", "--tap", "a=b", "--no-strict", "--teacher", "x",
                 "--method", "kd+at", "--method-arg", "at.weight=3", "--recipe", "mean=none",
                 "--recipe", "std=none"]  # fmt: skip
    call("--config", "c.toml", *arguments, "--write-config", "1.toml")
    call("--config", "1.toml", "--write-config", "2.toml")
    assert (tmp_path / "1.toml").read_text() == (tmp_path / "2.toml").read_text()
    found = read_config(tmp_path / "1.toml")
    assert found["evaluate-every"] == 3
    assert found["tap"] == [["a", "b"]]
    assert found["student-arg"] == {"num_classes": 2}
    assert found["strict"] is False
    assert found["recipe"]["mean"] == "none"
    text = said(call("--config", "1.toml", "--write-config", "2.toml", code=2))
    assert "2.toml is there and is kept (--overwrite replaces a file)" in text
    call("--config", "1.toml", "--write-config", "2.toml", "--overwrite")


def test_yaml_says_the_same(call, tmp_path, base):
    pytest.importorskip("yaml")
    (tmp_path / "c.toml").write_text(base + "[method]\nname = 'kd'\nkd.weight = 0.5\n")
    (tmp_path / "c.yaml").write_text(
        "student: cifar_resnet8\ndata: imagefolder:data\nepochs: 1\nsize: 16\nbatch-size: 8\n"
        "method:\n  name: kd\n  kd: {weight: 0.5}\n"
    )
    for name in ("c.toml", "c.yaml"):
        call("--config", name, "--write-config", f"{name}.toml")
    assert (tmp_path / "c.toml.toml").read_text() == (tmp_path / "c.yaml.toml").read_text()


def test_yaml_is_an_extra(call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "c.yml").write_text("student: x")
    assert "pip install 'natstats[yaml]'" in said(call("--config", "c.yml", code=2))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("epoch = 1", "names; got 'epoch' (did you mean epochs"),
        ("overwrite = true", "config: c.toml: key: expected one of"),
        ('from = "r"', "config: c.toml: key: expected one of"),
        ('epochs = "3"', "config: c.toml: epochs: expected a whole number; got '3'"),
        ("epochs = true", "config: c.toml: epochs: expected a whole number; got True"),
        ("epochs = 1.5", "config: c.toml: epochs: expected a whole number; got 1.5"),
        ("epochs = 0", "config: c.toml: epochs: expected"),
        ("lr = -1", "config: c.toml: learning_rate: expected a number that is above 0"),
        ("lr = nan", "config: c.toml: learning_rate: expected"),
        (f"lr = 1{'0' * 400}", "config: c.toml: lr: expected a number that a float can hold; got"),
        ("[method]\nweight = 1.0\n[method.ce]\nweight = 2.0", "got it as weight and as ce.weight"),
        ("evaluate-every = 0", "--evaluate-every: expected a whole number of at least 1; got 0"),
        ('lr = "much"', "config: c.toml: lr: expected a number; got 'much'"),
        ('amp = "fp8"', "config: c.toml: amp: expected one of none, bf16, fp16"),
        ("strict = 1", "config: c.toml: strict: expected true or false; got 1"),
        ("seed = []", "config: c.toml: seed: expected one or more; got none"),
        ("seed = [1, 1]", "config: c.toml: seed: expected each seed once"),
        ("seed = [-1]", "config: c.toml: seed: expected"),
        ("seed = [[1]]", "config: c.toml: seed: expected a whole number; got [1]"),
        ("holdout = 2", "config: c.toml: holdout: expected"),
        ("limit = 0", "config: c.toml: limit: expected"),
        ("device = 3", "config: c.toml: device: expected text; got 3"),
        ("student-checkpoint = 3", "config: c.toml: student-checkpoint: expected text; got 3"),
        ('tap = ["a"]', "config: c.toml: tap: expected pairs"),
        ('method = "nonsense"', "config: c.toml: method: expected one of ce, kd"),
        ("method = 3", "config: c.toml: method: expected text; got 3"),
        ("[method]\nname = 3", "config: c.toml: method.name: expected text; got 3"),
        ("[method]\nnonsense = 3", "config: c.toml: method argument ce.nonsense: expected one of"),
        ("[method.at]\nweight = 3", "config: c.toml: method argument at.weight: expected"),
        ('[method.ce]\nweight = "x"', "config: c.toml: method argument ce.weight: expected a val"),
        ("[method.ce]\nweight = 1999-01-01", "config: c.toml: ce.weight: expected a number, text"),
        ("recipe = 3", "config: c.toml: recipe: expected a table of names and values; got 3"),
        ("[recipe]\nnonsense = 3", "config: c.toml: recipe field: expected one of"),
        ("[recipe]\nepochs = 3", "config: c.toml: recipe: expected epochs once"),
        ("[recipe]\nclip = [1]", "config: c.toml: clip: expected a number"),
        ("[student-arg.a]\nb = 1", "config: c.toml: student-arg.a: expected a number, text, true"),
        ('teacher-checkpoint = "t"', "config: c.toml: teacher_checkpoint: expected only beside a"),
        ('teacher-weights = "V1"', "config: c.toml: teacher_weights: expected only beside a"),
        ("epochs = 2", "config: expected TOML; c.toml: Cannot overwrite a value"),
        ('batch_size = 2', "config: c.toml: batch-size: expected once; got it twice"),
        ("x = [", "config: expected TOML; c.toml: "),
        ('workers = "\\u0000"', "config: expected TOML; c.toml: a text without zero characters"),
        (f"x = {'[' * 5000}", "config: expected TOML; c.toml"),
        (f"x = {'9' * 5000}", "config: expected TOML; c.toml"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_key(call, tmp_path, base, line, message):
    doubled = line == "epochs = 2"
    text = base if doubled or not line.startswith(("epochs", "device")) else base.replace(
        "epochs = 1\n", ""
    )  # fmt: skip
    (tmp_path / "c.toml").write_text(f"{text}{line}\n")
    assert message in said(call("--config", "c.toml", "--dry-run", code=2))


def test_hostile_files(call, tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "binary").write_bytes(b"\xff\x00\x01" * 10)
    (tmp_path / "huge").write_bytes(b"#" * (2 << 20))
    (tmp_path / "deep.toml").write_text("x = " + "{a = " * 30 + "1" + "}" * 30)
    for name, said_of in (
        ("folder", "a folder, not a file"), ("pipe", "a named pipe, not a file"),
        ("missing", "No such file"), ("huge", "at most 1 MiB of TOML; huge is larger"),
        ("binary", "config: expected TOML; binary: "), ("deep.toml", "at most 8 levels"),
    ):  # fmt: skip
        result = call("--config", name, code=None)
        assert result.exit_code in (1, 2)
        assert said_of in said(result), name


def test_yaml_of_a_stranger(call, tmp_path):
    pytest.importorskip("yaml")
    for text, message in (
        ("!!python/object/apply:os.system ['true']", "config: expected YAML; c.yaml: "),
        ("a: &a [*a]", "at most 8 levels"),
        ("- 1", "config: expected names with values; c.yaml holds none"),
        ("1: 2", "names were expected; got 1"),
        ("student: 2001-01-01", "config: c.yaml: student: expected text; got datetime"),
    ):
        (tmp_path / "c.yaml").write_text(text)
        assert message in said(call("--config", "c.yaml", code=2))


def test_what_is_missing_is_said(call, tmp_path):
    (tmp_path / "c.toml").write_text('data = "imagefolder:data"\n')
    assert "Missing option '--student'" in said(call("--config", "c.toml", code=2))
    assert "Missing option '--student'" in said(call(code=2))
    assert "Missing option '--data'" in said(call("--student", "cifar_resnet8", code=2))


def test_a_place_without_a_run(call, tmp_path):
    (tmp_path / "empty").mkdir()
    text = said(call("--from", "empty", code=2))
    assert text.startswith("Error: --from: expected a training or a folder of them; empty holds no")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "distill.json").write_text("[]")
    text = said(call("--from", "bad", code=2))
    assert "--from: expected the record of a training in bad; distill.json: expected an" in text
    assert "from: expected the record of a training" in said(call("--from", "none", code=1))


def test_toml_that_is_written_is_read():
    values = {
        "a": 'quoted "x" \\ \n \x7f \x01 ü 😀', "b": 1e-5, "c": [1, [2.5, "x"]], "d": True,
        "odd key.": 3, "t": {"u": {"v": 1}, "w": {"x y": False}, "list": [{"k": 1}]}, "empty": {},
    }  # fmt: skip
    import tomllib

    assert tomllib.loads(to_toml(values)) == values


def test_help_shows_every_option_of_a_file(group):
    text = CliRunner().invoke(group, ["distill", "--help"]).stdout
    for option in ("--from", "--config", "--write-config"):
        assert option in text


def test_numbers_of_yaml(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text("a: 1e-3\nb: '1e-3'\nc: 1.0e-3\nd: 1e-3x\ne: 2E5\n")
    assert read_config(tmp_path / "c.yaml") == {
        "a": 0.001, "b": "1e-3", "c": 0.001, "d": "1e-3x", "e": 2e5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("-7", -7), ("+12", 12), ("1.", 1.0), (".5", 0.5), ("-1.5e3", -1500.0),
        ("-.inf", -np.inf), ("010", "010"), ("1_0", "1_0"), ("12:30", "12:30"), ("0x1F", "0x1F"),
        ("1:2.5", "1:2.5"), ("0b11", "0b11"), ("true", True),
    ],
)  # fmt: skip
def test_a_number_of_yaml_is_what_it_looks_like(tmp_path, text, value):
    """PyYAML alone takes 010 for eight and 12:30 for 750."""
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text(f"a: {text}\n")
    found = read_config(tmp_path / "c.yaml")["a"]
    assert found == value
    assert type(found) is type(value)


def test_an_error_of_yaml_is_one_line(call, tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text("a: 1\nb\n")
    text = call("--config", "c.yaml", code=2).stderr
    assert "\\n" not in text
    assert "could not find expected ':'" in " ".join(text.split())


@pytest.mark.parametrize("text", ["lr: 1\nlr: 2", "a:\n  lr: 1\n  lr: 2", "a: {lr: 1, 'lr': 2}"])
def test_names_come_once_in_yaml(tmp_path, text):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"c\.yaml: lr was expected once; line \d has it again"):
        read_config(tmp_path / "c.yaml")


def test_what_is_merged_in_yaml_may_be_given_again(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text("x: &x {a: 1}\ny:\n  <<: *x\n  a: 3\nz: *x\n")
    assert read_config(tmp_path / "c.yaml")["y"] == {"a": 3}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--evaluate-every", "0", "--evaluate-every: expected a whole number of at least 1; got 0"),
        ("--gap-on", "0", "--gap-on: expected a whole number of at least 1; got 0"),
        ("--evaluate-on", "1", "--evaluate-on: expected at least the 2 classes; got 1"),
    ],
)
def test_a_dry_run_checks_what_is_looked_at(call, tmp_path, base, option, value, message):
    (tmp_path / "c.toml").write_text(QUICK)
    given = ("--config", "c.toml", "--student", "cifar_resnet8", "--data", "imagefolder:data")
    assert message in said(call(*given, option, value, "--dry-run", code=2))
