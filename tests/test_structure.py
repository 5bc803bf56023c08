"""The shape of the project: data flows one way, nothing is forgotten in packaging or in words."""

from __future__ import annotations

import ast
import configparser
import importlib
import pkgutil
from pathlib import Path

import pytest
from setuptools import find_packages

import natstats

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "natstats"

# A module may import from the rows above its own, and from its own row.
STAGES = [
    {"_version", "errors", "lazy", "placed", "text"},
    {"checks", "files", "measures", "numbers"},
    {"csv_files", "json_files", "schema", "workers"},
    {"own_files"},
    {"folders"},
    {"edges", "radial"},
    {"records", "options"},
    {"contents", "formats"},
    {"checkpoint_files", "folder_walk", "framing", "input_forms", "networks", "pixels", "wrappers"},
    {"image_sets"},
    {"image_arrays", "image_files"},
    {"clips", "datasets", "shards"},
    {"images"},
    {"preprocessing", "builders", "checkpoints", "state_dicts"},
    {"factories", "matching", "published", "state_keys"},
    {"catalogue", "fitting"},
    {"models"},
    {"random_weights"},
    {"selection"},
    {"layouts"},
    {"layout_rules", "window_rules"},
    {"layout_candidates", "answers"},
    {"activations", "batch_arguments", "depth", "map_sets", "passes", "receptive", "windows"},
    {"probe"},
    {"transforms"},
    {"spectra"},
    {"collector", "input_spectra"},
    {"expected", "expected_large"},
    {"simulate"},
    {"estimators"},
    {"intervals"},
    {"fits"},
    {"form_models"},
    {"forms", "sensitivity", "spread"},
    {"regression"},
    {"law"},
    {"run_schema"},
    {"store"},
    {"tables"},
    {"differences"},
    {"seed_variance"},
    {"comparison", "control"},
    {"plots"},
    {"run"},
    {"series", "series_record"},
    {"preparation", "provenance"},
    {"measurement"},
    {"series_measurement"},
    {"demo", "demo_data", "distill"},
]
STAGE = {name: number for number, names in enumerate(STAGES) for name in names}

# The same order inside natstats.distill.
DISTILL = [
    {"method", "record", "run_folders", "trunk"},
    {"run_files"},
    {"taps"},
    {"pairing"},
    {"losses"},
    {"methods"},
    {"results"},
    {"comparison", "training"},
]

# What a stage may not know at all.
FORBIDDEN = {
    "activations": {"natstats.transforms", "natstats.spectra", "numpy"},
    "layouts": {"natstats.transforms", "natstats.spectra", "numpy"},
    "layout_rules": {"natstats.transforms", "natstats.spectra", "numpy"},
    "spectra": {"natstats.activations", "natstats.models"},
    "transforms": {"natstats.activations", "natstats.models"},
    "expected": {"torch"},
    "expected_large": {"torch"},
    "fits": {"torch"},
    "form_models": {"torch"},
    "forms": {"torch"},
    "sensitivity": {"torch"},
    "spread": {"torch"},
    "law": {"torch"},
    "records": {"torch"},
    "store": {"torch"},
    "tables": {"torch"},
    "differences": {"torch"},
    "seed_variance": {"torch"},
    "comparison": {"torch"},
    "control": {"torch"},
    "plots": {"torch", "statsmodels"},
    "series": {"torch"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            yield name, path


def imports(path):
    """Names of what a file imports at its top level; inside functions and for types it may."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "natstats":
                yield from (f"natstats.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("name", "path"), list(modules()), ids=lambda v: getattr(v, "stem", v))
def test_a_stage_imports_only_stages_before_it(name, path):
    assert name in STAGE, f"{name} has no place in the order of stages"
    for imported in imports(path):
        first, _, rest = imported.partition(".")
        if first == "natstats" and rest:
            assert STAGE[rest.split(".")[0]] <= STAGE[name], f"{path.name} imports {imported}"
        for forbidden in FORBIDDEN.get(name, ()):
            assert not imported.startswith(forbidden), f"{path.name} imports {imported}"


def test_a_stage_of_distillation_imports_only_those_before_it():
    stage = {name: number for number, names in enumerate(DISTILL) for name in names}
    for path in sorted((PACKAGE / "distill").rglob("*.py")):
        name = path.relative_to(PACKAGE / "distill").parts[0].removesuffix(".py")
        if name == "__init__":
            continue
        assert name in stage, f"{name} has no place in the order of stages"
        for imported in imports(path):
            if imported.startswith("natstats.distill."):
                other = imported.split(".")[2]
                assert stage[other] <= stage[name], f"{path.name} imports {imported}"
                apart = {other, name} == {"comparison", "training"}
                assert not apart, f"{path.name} imports {imported}"


def test_every_package_is_installed():
    """A package that setup.cfg forgets is dropped without a word."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = set(find_packages(str(ROOT), include=["natstats", "natstats.*"]))
    assert listed == found | {"natstats_cli"}


def test_every_module_says_what_is_public():
    for info in pkgutil.walk_packages([str(PACKAGE)], "natstats."):
        module = importlib.import_module(info.name)
        if info.name.rsplit(".", 1)[-1].startswith("_") or info.name == "natstats.demo_data":
            continue
        assert hasattr(module, "__all__"), info.name
        for name in module.__all__:
            assert hasattr(module, name), (info.name, name)


def test_everything_public_can_be_reached_from_the_top():
    for name in natstats.__all__:
        assert getattr(natstats, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = natstats.nonsense


def test_files_stay_short():
    long = {
        path.name: n
        for path in [*PACKAGE.rglob("*.py"), *(ROOT / "cli").glob("*.py")]
        if (n := len(path.read_text().splitlines())) > 450
    }
    assert not long


def test_the_changelog_knows_this_version():
    assert f"## {natstats.__version__}" in (ROOT / "CHANGELOG.md").read_text()
