"""What strangers name: on the terminal, in tables, on pages and in figures shown, never obeyed."""

from __future__ import annotations

import ast
import csv
from html.parser import HTMLParser
from pathlib import Path
from xml.dom import minidom

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.distill.comparison.compare import compare_runs
from natstats.distill.report.pages import write_run_report, write_table_report
from natstats.errors import NatstatsError, UsageError
from natstats.runs.tables import text_table

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.draws  # what names do in figures is looked at, too
FORGED = "a\x1b[2J\nError: all is lost\u202e"
HOSTILE = [
    "<script>alert(1)</script>$\\frac{", "=cmd|' /C calc'!A0", FORGED, "x]]>--><b>&amp;",
    "|`_*[a](javascript:b)", "\"'><img src=x onerror=y>",
]  # fmt: skip


@pytest.fixture
def called(call):
    def run(*arguments):
        result = call(*arguments, code=None)
        for text in (result.stdout, result.stderr):
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert "Traceback" not in text
            assert not [line for line in text.splitlines() if line.startswith("Error: all")]
        return result

    return run


@pytest.mark.parametrize(
    "arguments",
    [
        ("images", FORGED),
        ("images", f"{FORGED}.npy"),
        ("fit", FORGED),
        ("compare", FORGED, FORGED),
        ("table", FORGED),
        ("plot", FORGED),
        ("measure", FORGED, "--images", "x"),
        ("measure", "resnet18", "--checkpoint", FORGED, "--images", "x"),
        ("distill", "--student", FORGED, "--data", "imagefolder:x"),
        ("distill", "--student", "cifar_resnet8", "--data", FORGED),
        ("images", "x", f"--{FORGED}"),
        ("images", "x", "--band", FORGED),
        (FORGED,),
    ],
    ids=lambda arguments: "-".join(a for a in arguments if a.isprintable()),
)
def test_an_error_is_one_line_whatever_it_names(called, arguments):
    result = called(*arguments)
    assert result.exit_code in (1, 2), result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert lines[0] == result.stderr.splitlines()[-1]


def test_a_list_below_an_error_stays_a_list():
    error = NatstatsError("checkpoint: expected 2 keys", "  missing:", f"    {FORGED}")
    assert str(error).startswith("checkpoint: expected 2 keys\n  missing:\n    a\x1b")
    assert str(UsageError("one sentence")) == "one sentence"
    with pytest.raises(ValueError, match="one"):
        raise UsageError("one")


def test_the_keys_of_a_checkpoint_are_shown_a_line_each(called):
    state = natstats.load_network("cifar_resnet8", weights="none").model.state_dict()
    del state["conv1.weight"]
    torch.save({**state, f"{FORGED}.weight": torch.zeros(2, 2, 3, 3)}, "c.pth")
    np.save("x.npy", np.random.default_rng(0).random((4, 3, 32, 32), dtype=np.float32))
    result = called("measure", "cifar_resnet8", "--checkpoint", "c.pth", "--images", "x.npy")
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert "  unknown:" in lines
    assert any(line.startswith("    a\\x1b[2J\\nError: all is lost\\u202e.wei") for line in lines)


def test_the_folder_of_a_training_is_shown_in_one_line(called, tmp_path):
    for split in ("train", "val"):
        for name in ("=1+1", FORGED):
            folder = tmp_path / FORGED / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.full((16, 16, 3), len(name), np.uint8)).save(folder / "0.png")
    result = called("distill", "--student", "cifar_resnet8", "--data", f"imagefolder:{FORGED}",
                    "--epochs", "1", "--size", "16", "--batch-size", "2", "--dry-run")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "Data: a\\x1b[2J\\nError: all is lost\\u202e, 2 classes" in result.stdout


@pytest.mark.slow
def test_all_that_is_printed_goes_through_one_door():
    """And all tables that are written; click's own messages pass through the group."""
    for path in [*(ROOT / "cli").glob("*.py"), *(ROOT / "natstats").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith((".echo", "secho")) or called in ("print", "sys.stderr.write"):
                assert path.name == "output.py", path
            assert not called.endswith(".to_csv") or path.name == "csv_files.py", path
            assert not called.endswith("pd.read_csv") or path.name == "csv_files.py", path


class Page(HTMLParser):
    """The elements of a page and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]
        if tag == "img":
            assert dict(attributes)["src"].startswith("data:image/svg+xml;base64,")

    def handle_data(self, data):
        self.text.append(data)


def check_page(path, n_scripts):
    text = path.read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert "\u202e" not in text
    page = Page(text)
    assert page.tags.count("script") == n_scripts
    assert not {"b", "iframe"} & {*page.tags}
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "all is lost\\u202e" in "".join(page.text)
    for figure in path.parent.glob("figures/*.svg"):
        svg = figure.read_text(encoding="utf-8")
        minidom.parseString(svg.encode())
        assert "<script" not in svg
    return "".join(page.text)


@pytest.mark.slow
def test_layers_of_any_name(tmp_path):
    torch.manual_seed(0)
    model, channels = nn.Sequential(), 3
    for name in HOSTILE:
        model.add_module(name, nn.Conv2d(channels, 4, 3, padding=1))
        channels = 4
    fields = natstats.power_law_fields(24 * 3, 24, 24, alpha=2.0, seed=0)
    run = natstats.measure(model, fields.reshape(24, 3, 24, 24))
    run.save(tmp_path / "run")
    text = check_page(tmp_path / "run" / "report.html", 5)  # tables, data, library, our own
    assert "<script>alert(1)</script>$\\frac{" in text
    for path in (tmp_path / "run").glob("*.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        assert len({len(row) for row in rows}) == 1
        names = [row[0] for row in rows]
        assert not [name for name in names if name.lstrip().startswith(("=", "+", "-", "@"))]
        assert "\x1b" not in path.read_text(encoding="utf-8")
    table = text_table(run.layers)
    assert len(table.splitlines()) == 1 + len(run.layers) + 2  # the steepest, the flattest
    assert "\x1b" not in table
    assert list(natstats.Run.open(tmp_path / "run").layers.layer) == list(run.layers.layer)


@pytest.mark.slow
def test_distillation_runs_with_any_names(made_runs, tmp_path):
    made = made_runs(n_images=30)
    shared = {"notes": HOSTILE, "command": FORGED, "data": {"name": FORGED, "split": HOSTILE[0]},
              "student": {"name": FORGED}}  # fmt: skip
    runs = [
        made.run(name, seed=seed, arguments={name: {name: name}}, **shared)
        for name in ("ce", FORGED, HOSTILE[4]) for seed in (0, 1)
    ]  # fmt: skip
    (tmp_path / "one").mkdir()
    write_run_report(tmp_path / "one", runs[2])
    check_page(tmp_path / "one" / "report.html", 2)
    found = compare_runs(runs)
    (tmp_path / "all").mkdir()
    write_table_report(tmp_path / "all", found, tmp_path / "all")
    check_page(tmp_path / "all" / "report.html", 5)
    for text in (found.table(), found.markdown()):
        assert "\x1b" not in text
        assert not [line for line in text.splitlines() if line.startswith("Error")]
    rows = [line for line in found.markdown().splitlines() if line.startswith("|")]
    # A row of a table ends where its cells do: no name may add one.
    inner = {len([1 for a, b in zip(" " + row, row, strict=False) if b == "|" and a != "\\"])
             for row in rows}  # fmt: skip
    assert len(inner) <= 2
    assert "](javascript" not in found.markdown().replace("\\](", "")
