"""Every column of every table that natstats writes has its meaning in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import natstats
from natstats import UsageError, meta_analysis
from natstats.distill.columns import TABLES as DISTILL_TABLES
from natstats.distill.comparison.compare import compare_runs
from natstats.files.csv_files import read_csv
from natstats.networks.checkpoint_files import CheckpointFile
from natstats.runs.columns import TABLES
from natstats.runs.series import Series

ROOT = Path(__file__).parents[2]
FILES = {
    file.name: file for tables in (*TABLES.values(), *DISTILL_TABLES.values()) for file in tables
}


def written(folder: Path) -> dict[str, list[str]]:
    """Heads of the tables in a folder."""
    return {path.name: list(read_csv(path).columns) for path in folder.glob("*.csv")}


def assert_described(found: dict[str, list[str]]) -> None:
    """Every head is described, and but for those with patterns in the order of the file."""
    for name, columns in found.items():
        file = FILES[name]
        for column in columns:
            assert file.meaning(column), f"{name}: {column}"
        plain = [column for column in columns if column in file.columns]
        listed = [column for column in file.columns if "*" not in column]
        assert plain == listed, name


@pytest.fixture(scope="module")
def pair(made_networks):
    return [made_networks.run(seed, n_seeds=2, model=f"resnet{20 + 36 * seed}") for seed in (0, 1)]


@pytest.mark.slow
def test_the_tables_of_a_run(pair, tmp_path):
    found = written(pair[0].save(tmp_path / "run", report=False))
    assert len(found) == 7
    assert_described(found)


def test_the_table_of_an_account(made_account):
    account = made_account(scatter=0.1)
    account.step("conv1", "convolution", 2.3)
    assert_described({"account.csv": list(account.account().frame.columns)})


@pytest.mark.slow
def test_the_tables_of_several_runs(pair):
    found = natstats.compare(*pair)
    law = meta_analysis(dict(zip("ab", pair, strict=True)))
    checkpoints = [CheckpointFile(f"epoch_{k}", k, Path(f"epoch_{k}.pth")) for k in (0, 1)]
    for run in pair:
        run.info["series"] = {"digest": "1234"}
    series = Series.of(pair, checkpoints)
    frames = {
        "comparison.csv": found.layers, "networks.csv": law.networks,
        "subgroups.csv": law.subgroups, "series.csv": series.frame,
        "exponents.csv": series.exponents, "change.csv": series.change.layers,
    }  # fmt: skip
    assert_described({name: list(frame.columns) for name, frame in frames.items()})


@pytest.mark.slow
def test_the_tables_of_distillation(made_runs, tmp_path):
    made = made_runs(n_images=60)
    runs = [made.run(method, seed) for method in ("ce", "kd", "kd+spectral") for seed in (0, 1)]
    runs[-1].write(tmp_path)
    compare_runs(runs).write(tmp_path, home=tmp_path, report=False)
    found = written(tmp_path)
    assert len(found) == 8
    assert_described(found)


@pytest.mark.slow
def test_no_table_is_forgotten():
    """Names of CSV files in the code; those of files that are only read or given are listed."""
    others = {"files.csv", "labels.csv", "list.csv"}
    named = set()
    for path in (ROOT / "natstats").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= (
                    {node.value} if node.value.endswith(".csv") and " " not in node.value else set()
                )
    assert {name for name in named if name.islower() and name[0].isalpha()} <= {*FILES, *others}


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="column: expected one of .*; got 'nonsense'"):
        FILES["layers.csv"].meaning("nonsense")
    assert "random weights" in FILES["control.csv"].meaning("seed_7")
    assert FILES["history.csv"].meaning("kd").startswith("mean value of the term")
    assert FILES["table.csv"].meaning("gain_kd_p_holm").startswith("the same by Holm's rule")
