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

# The rooms in the order of the data; each may import itself and those before it. Modules outside
# of rooms stand first (what all need) and last (where all meet).
ROOMS = """_version|errors|text|html_blocks|brief|numbers|checks processes files images activations
networks spectra fits law theory report runs distill measurement demo|demo_data"""
DISTILL = """method|record|run_folders|older_arguments|traces trunk|run_files|taps pairing losses
methods results report comparison training"""

NEVER = {  # what rooms, or modules of them, do not load
    "torch": "fits law theory.account report runs.run runs.series runs.comparison",
    "matplotlib": "images spectra fits law theory runs measurement",
}

MODULES = {info.name: info for info in pkgutil.walk_packages([str(PACKAGE)], "natstats.")}


def ranks(order: str) -> dict[str, int]:
    return {name: rank for rank, names in enumerate(order.split()) for name in names.split("|")}


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


@pytest.mark.slow
@pytest.mark.parametrize(("start", "order"), [("natstats.", ROOMS), ("natstats.distill.", DISTILL)])
def test_a_module_imports_only_from_its_room_and_those_before(start, order):
    rank = ranks(order)

    def rank_of(name: str) -> int:
        return rank.get(name.removeprefix(start).split(".")[0], len(rank))

    ours = {name for name in MODULES if name.startswith(start)}
    pairs = [(name, other) for name in ours for other in imports(name) & ours]
    assert pairs
    assert not [pair for pair in pairs if rank_of(pair[1]) > rank_of(pair[0])]


@pytest.mark.slow
@pytest.mark.parametrize("library", NEVER)
def test_a_library_is_loaded_only_where_it_is_needed(library):
    rooms = tuple(f"natstats.{room}." for room in NEVER[library].split())
    modules = [name for name in MODULES if f"{name}.".startswith(rooms)]
    code = f"import sys, natstats, {', '.join(modules)}; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_package_is_installed():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = find_packages(str(ROOT), include=["natstats", "natstats.*"])
    assert set(config["options"]["packages"].split()) == {*found, "natstats_cli"}


def test_what_is_public_is_there_and_no_module_has_its_name():
    for name in ["natstats", *MODULES]:
        module = importlib.import_module(name)
        for public in [] if name.startswith("natstats._") else module.__all__:
            value = getattr(module, public)
            is_module = f"{module.__package__}.{public}" in MODULES
            assert not is_module or not callable(value), f"{name}.{public}"


def test_files_stay_short():
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "cli").glob("*.py")]
    lengths = {path.name: len(path.read_text().splitlines()) for path in files}
    assert not {name: n for name, n in lengths.items() if n > 400}


def test_the_changelog_knows_this_version():
    assert f"## {natstats.__version__}" in (ROOT / "CHANGELOG.md").read_text()
