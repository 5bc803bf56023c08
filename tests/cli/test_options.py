"""The options that commands share: what help says of them, and that no text names another."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import natstats
from natstats import demo
from natstats.fits.options import FitOptions

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
OF_TORCHRUN = {"--max-restarts", "--nproc-per-node", "--no-python"}
OF_PIP = {"--index-url"}
OF_ALL = {"--help", "--version"}


@pytest.fixture(scope="module")
def commands(group):
    """The subcommands by name."""
    context = click.Context(group)
    return {name: group.get_command(context, name) for name in group.list_commands(context)}


def options_of(command):
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for name in (*parameter.opts, *parameter.secondary_opts)
    }


def help_of(command):
    """What the command says of itself, every run of blanks as one."""
    return " ".join(CliRunner().invoke(command, ["--help"]).stdout.split())


def fit_parameters(command):
    known = FitOptions().to_dict()
    return {p.name: p for p in command.params if p.name in known}


def test_fit_says_that_what_is_not_given_stays_as_it_was(commands):
    """A default of its own would be wrong for every run that was fitted otherwise."""
    found = fit_parameters(commands["fit"])
    # Whether intervals decided when to stop is a fact of the measurement, and nobody's choice.
    assert found.keys() == FitOptions().to_dict().keys() - {"stopped"}
    for parameter in found.values():
        assert parameter.help.endswith("[default: as in RUN]"), parameter.name
    given = commands["fit"].make_context("fit", ["a-run"]).params
    assert [given[name] for name in found] == [None] * len(found)
    for value in ("octave", "0.95", "jackknife", "1000", "layers", "all rings"):
        assert f"[default: {value}" not in help_of(commands["fit"])


@pytest.mark.parametrize("name", ["measure", "images"])
def test_the_defaults_that_help_names_are_those_of_the_library(commands, name):
    defaults = FitOptions().to_dict()
    for key, parameter in fit_parameters(commands[name]).items():
        said = re.search(r"\[default: (.*)\]$", parameter.help).group(1)
        expected = {"band": "all rings", "normalize": "no-equal-power"}.get(key, defaults[key])
        assert said == str(expected), key
    assert defaults["band"] == (0.0, 0.5)
    assert defaults["normalize"] is False


def test_images_have_no_depth(commands):
    assert "--depth" in options_of(commands["measure"])
    assert "--depth" not in help_of(commands["images"])
    result = CliRunner().invoke(commands["images"], ["photos", "--depth", "order"])
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert {"--band", "--estimator", "--level"} <= options_of(commands["images"])


def test_the_fewest_seeds_of_the_control_are_named(commands):
    (seeds,) = (p for p in commands["measure"].params if p.name == "control_seeds")
    assert "at least 2" in seeds.help
    with pytest.raises(natstats.UsageError, match=r"^control_seeds: .*at least 2.*; got 1$"):
        natstats.measure(
            demo.network(), demo.photographs(), control="random-weights", control_seeds=1
        )


def texts():
    """README, pages and sources with options in them."""
    paths = [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]
    for folder in ("natstats", "cli"):
        paths += [p for kind in ("py", "html") for p in (ROOT / folder).rglob(f"*.{kind}")]
    return sorted(path for path in paths if OPTION.search(path.read_text(encoding="utf-8")))


def of_scripts():
    """Options of the studies, as their parsers have them."""
    return {
        option
        for path in (*ROOT.glob("analyses/*.py"), *ROOT.glob("figures/*.py"))
        for option in re.findall(
            r'(?:add_argument|click\.option)\(\s*"(--[a-z-]+)"', path.read_text(encoding="utf-8")
        )
    }


@pytest.mark.parametrize("path", texts(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_option_that_is_named_exists(commands, path):
    """In text those of any command; studies have theirs where a study is being run."""
    known = set().union(OF_ALL, OF_TORCHRUN, *map(options_of, commands.values()))
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        named = set(OPTION.findall(line))
        if "python analyses/" in line or "python figures/" in line:
            named -= of_scripts()
        if line.startswith(("#SBATCH", "srun torchrun", "torchrun")):  # of others
            named -= {*OPTION.findall(line.partition("natstats_cli")[0])}
        named -= OF_PIP if "pip install" in line else set()
        assert not named - known, f"{path.name}: {line.strip()}"


def test_every_command_that_is_shown_has_its_options(commands):
    """`natstats measure ...` in README and pages, up to the end of the code, line or comment."""
    shown = 0
    for path in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, rest in re.findall(r"natstats (\w+)([^`\n#|]*)", text):
            if name in commands:
                named = set(OPTION.findall(rest))
                assert named <= options_of(commands[name]) | OF_ALL, f"{path.name}: {name} {rest}"
                shown += bool(named)
    assert shown >= 15
