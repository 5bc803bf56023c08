"""The shape of the project: data flows one way, nothing is forgotten in packaging or in words."""

from __future__ import annotations

import ast
import configparser
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools import find_packages

import natstats

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "natstats"

# A row may import from itself and from the rows above it.
ROOMS = """
_version errors text numbers checks
files
images
activations
networks
spectra
fits
law
report
runs
distill
preparation measurement series_measurement demo demo_data
"""

# The same inside natstats.distill.
DISTILL = """
method record run_folders trunk
run_files
taps
pairing
losses
methods
results
report
comparison
training
"""

NEVER = {  # what a room, or a module of one, may not import, by itself or through others
    "torch": ["fits", "law", "report", "runs.run", "runs.series", "runs.comparison", "runs.control"],
    "matplotlib": ["images", "spectra", "fits", "law", "runs", "measurement"],
}  # fmt: skip

MODULES = {info.name: info for info in pkgutil.walk_packages([str(PACKAGE)], "natstats.")}


def ranks(order: str) -> dict[str, int]:
    return {name: row for row, names in enumerate(order.split("\n")) for name in names.split()}


def imports(name: str) -> set[str]:
    """Modules of natstats that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(name)))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES else node.module for one in whole}
    return {one for one in found if one.startswith("natstats.")}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_own_room_and_those_before(name):
    for start, order in (("natstats.", ROOMS), ("natstats.distill.", DISTILL)):
        rank = ranks(order)
        room = name.removeprefix(start).split(".")[0]
        for other in imports(name) if name.startswith(start) else ():
            if other.startswith(start) and room in rank:
                assert rank[other.removeprefix(start).split(".")[0]] <= rank[room], other


@pytest.mark.parametrize("library", NEVER)
def test_a_library_is_loaded_only_where_it_is_needed(library):
    modules = [
        m for m in MODULES for room in NEVER[library] if f"{m}.".startswith(f"natstats.{room}.")
    ]
    allowed = [m for m in modules if library != "matplotlib" or ".figures" not in m]
    code = f"import sys, natstats, {', '.join(allowed)}; sys.exit({library!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


def test_every_package_is_installed():
    """A package that setup.cfg forgets is dropped without a word."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    assert listed == {*find_packages(str(ROOT), include=["natstats", "natstats.*"]), "natstats_cli"}


@pytest.mark.parametrize("name", ["natstats", *MODULES])
def test_a_module_says_what_is_public(name):
    module, package = importlib.import_module(name), name.rpartition(".")[0]
    for public in getattr(module, "__all__", [None] if not name.startswith("natstats._") else []):
        assert hasattr(module, public)
        is_module = f"{package}.{public}" in MODULES
        assert not (is_module and callable(getattr(module, public))), f"{public} is a module, too"


def test_files_stay_short():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "cli").glob("*.py")]
    lengths = {path.name: len(path.read_text().splitlines()) for path in files}
    assert not {name: n for name, n in lengths.items() if n > 400}


def test_the_changelog_knows_this_version():
    assert f"## {natstats.__version__}" in (ROOT / "CHANGELOG.md").read_text()
