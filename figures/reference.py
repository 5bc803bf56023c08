"""The pages of the docs that the code itself says: commands, exit codes, columns, names, words.

    python figures/reference.py

Writes commands.md from the commands and their options, exit-codes.md from the table of codes,
columns.md from the descriptions beside the tables, api.md from the public names and their
docstrings, and explanation/words.md from the words of the pages. A test finds out when one is old.
The site (figures/docs_site.py) puts the whole docstring in the place of each summary of api.md.
"""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
from natstats_cli.exit_codes import EXIT_CODES
from natstats_cli.main import natstats as group

import natstats
from natstats.distill.columns import TABLES as DISTILL_TABLES
from natstats.report.pages.words import READ_ON, WORDS
from natstats.runs.columns import TABLES

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "reference"

NAMES = {
    "Measure": "measure measure_images measure_series merge_parts MeasureOptions",
    "What comes out": "Run Series Comparison compare MetaAnalysis meta_analysis",
    "Fit": "fit_spectrum compare_forms FitOptions fit_law Law",
    "In your own loop": "Collector SpectrumAccumulator power_spectrum ring_frequencies",
    "Networks": "load_network Network Preprocessing",
    "Simulate": "power_law_fields expected_power",
    "Errors": "NatstatsError UsageError",
}
"""Public names by what they are for; names that stand nowhere here go to the end."""

ROLE = re.compile(r":\w+:`~?([^`]+)`")
"""A reference of a docstring, such as :func:`natstats.measure`."""

_OPTION = re.compile(r"(?<![\w`-])(--[a-z][a-z-]*[a-z])")


def commands() -> str:
    """Every command with its options, as click has them."""
    context = click.Context(group, info_name="natstats")
    lines = [
        "# Commands and options",
        "",
        "What `natstats COMMAND --help` says, on one page. Made from the commands themselves by",
        "`python figures/reference.py`.",
        "",
        "| command | what it does |",
        "|---|---|",
    ]
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    for name, command in found.items():
        assert command is not None
        first = _paragraphs(command.help or "")[0]
        lines.append(f"| [`natstats {name}`](#natstats-{name}) | {_plain(first)} |")
    lines += ["", "`natstats --version` prints the version."]
    for name, command in found.items():
        assert command is not None
        own = click.Context(command, info_name=name, parent=context)
        usage = " ".join(["natstats", name, *command.collect_usage_pieces(own)])
        lines += ["", f"## natstats {name}", "", "```text", usage, "```", ""]
        lines += _help(command.help or "")
        lines += _options(command, own)
    return "\n".join(lines).rstrip() + "\n"


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", inspect.cleandoc(text).strip())


def _help(text: str) -> list[str]:
    """Help as Markdown: paragraphs, and what must not be wrapped as code."""
    lines: list[str] = []
    for paragraph in _paragraphs(text):
        if paragraph.startswith("\b"):
            rows = inspect.cleandoc(paragraph.removeprefix("\b").removeprefix("\n"))
            lines += ["```text", *rows.splitlines(), "```", ""]
        else:
            lines += [_plain(paragraph), ""]
    return lines


def _options(command: click.Command, context: click.Context) -> list[str]:
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in record[0]:
            lines.append(
                f"- `{record[0]}`: {_plain(record[1])}" if record[1] else f"- `{record[0]}`"
            )
    return lines


def _plain(text: str) -> str:
    """Text in which nothing is Markdown but what stands between backticks."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    for place in range(0, len(parts), 2):
        part = re.sub(r"([*<>])", r"\\\1", parts[place])
        parts[place] = _OPTION.sub(r"`\1`", part).replace("|", r"\|")
    return "".join(parts)


def columns() -> str:
    """Every column of every table, as the code describes them."""
    lines = [
        "# Every column of every table",
        "",
        "All tables are comma-separated values in UTF-8: a line of heads, then a line for each",
        "row. An empty cell is a number that is not there. Frequencies are in cycles per pixel of",
        "the map (per frame, of clips along time), map sizes in pixels, exponents without a unit,",
        "intervals at the level that was asked for (95 % unless told otherwise). Which file is",
        "where: [run-directory.md](run-directory.md).",
        "",
        "From Python, `natstats.runs.columns.TABLES` and `natstats.distill.columns.TABLES` have",
        "the same. Made from them by `python figures/reference.py`.",
    ]
    for holder, tables in {**TABLES, **DISTILL_TABLES}.items():
        lines += ["", f"## {holder}"]
        for table in tables:
            lines += ["", f"### {table.name}", "", f"A row for {table.row}."]
            lines += [] if not table.note else ["", table.note]
            lines += ["", "| column | meaning |", "|---|---|"]
            lines += [f"| `{name}` | {meaning} |" for name, meaning in table.columns.items()]
    return "\n".join(lines) + "\n"


def api() -> str:
    """Every public name with its call, its summary and its file."""
    from natstats import distill

    lines = [
        "# Python: every public name",
        "",
        "What `import natstats` gives. Each name has its call and what it is for; `help(NAME)`,",
        "and the site of these docs, have the whole docstring: arguments with shapes and units,",
        "errors, an example. Made from the docstrings by `python figures/reference.py`.",
    ]
    known = set(natstats.__all__) - {"__version__"}
    groups = {title: names.split() for title, names in NAMES.items()}
    rest = sorted(known - {name for names in groups.values() for name in names})
    for title, names in {**groups, "More": rest}.items():
        if names:
            lines += ["", f"## {title}"]
        for name in names:
            lines += _entry(f"natstats.{name}")
    lines += ["", "## What ships in the package"]
    for name in ("network", "photographs"):
        lines += _entry(f"natstats.demo.{name}")
    lines += [
        "", "## Distillation", "",
        "`from natstats import distill`; how to use it: [distil.md](../how-to/distil.md).",
    ]  # fmt: skip
    for name in sorted(distill.__all__, key=str.lower):
        if not inspect.ismodule(getattr(distill, name)):
            lines += _entry(f"natstats.distill.{name}")
    return "\n".join(lines) + "\n"


def _entry(path: str) -> Iterator[str]:
    """A heading, the call, the summary, the file, and the mark that the site looks for."""
    home, _, name = path.rpartition(".")
    value = getattr(importlib.import_module(home), name)
    yield from ("", f"### {path}", "")
    if callable(value):
        yield from ("```text", _call(name, value), "```", "")
    summary = ROLE.sub(r"`\1`", _paragraphs(value.__doc__ or "")[0]).replace("``", "`")
    yield from summary.splitlines()
    home = getattr(value, "__module__", None)
    if home in ("builtins", None):
        return
    file = Path(inspect.getfile(value)).relative_to(ROOT)
    yield from ("", f"Defined in [{file}](../../{file}).", "", f"<!-- api: {home}.{name} -->")


def _call(name: str, value: object) -> str:
    """How it is called, without the types; empty where that cannot be known."""
    try:
        found = inspect.signature(value)  # type: ignore[arg-type]
    except ValueError:
        return name
    shown = found.replace(
        parameters=[
            one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()
        ],
        return_annotation=inspect.Signature.empty,
    )
    text = re.sub(r"<[^<>]*>", "...", f"{name}{shown}")  # what differs from process to process
    return textwrap.fill(text, 96, subsequent_indent="    ", break_on_hyphens=False)


def words() -> str:
    """Every word of the pages, told as they tell it, and where the docs say more."""
    lines = [
        "# The words, in a sentence or two each",
        "",
        "What the words of the docs mean; the reports have them in the same sentences. Made from",
        "[words.py](../../natstats/report/pages/words.py) by `python figures/reference.py`.",
    ]
    lines.append("")
    for word, meaning in WORDS.items():
        text, place = READ_ON.get(word, ("", ""))
        more = f" [{text}]({place})." if text else ""
        lines.append(f"- **{word}**: {meaning}{more}")
    return "\n".join(lines) + "\n"


def exit_codes() -> str:
    """What the command line ends with, and when."""
    lines = [
        "# Exit codes",
        "",
        "Every command ends with one of these codes. An error is a message on standard error that",
        "begins with `Error:`. It names the argument, what was expected and what was given.",
        "",
        "| code | when | what to do |",
        "|---:|---|---|",
        *(f"| {code} | {when} | {advice} |" for code, (when, advice) in EXIT_CODES.items()),
        "",
        "When a signal n ends a command, the shell reports 128 + n. 137 is a kill after which",
        "nothing can clean up, often for lack of memory. What was saved before is kept, and the",
        "same command continues from there.",
    ]
    return "\n".join(lines) + "\n"


PAGES = {
    "commands.md": commands,
    "exit-codes.md": exit_codes,
    "columns.md": columns,
    "api.md": api,
    "../explanation/words.md": words,
}
"""The pages by their path from docs/reference, and what makes them."""


def main() -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
