"""Comparisons and meta-analyses read back from the folders that they were written into."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.files.json_files import read_json
from natstats.files.ownership import KINDS
from natstats.files.paths import expanded, member
from natstats.files.schema import MAPPING, TEXT, ListOf, MappingOf, Record, or_null, whole
from natstats.fits.options import FitOptions
from natstats.law.differences import Estimate
from natstats.law.meta_analysis import Contrast, Pooled
from natstats.law.shape_agreement import ShapeAgreement
from natstats.numbers import as_number
from natstats.runs import store
from natstats.runs.comparison import FORMAT as COMPARISON_FORMAT
from natstats.runs.comparison import Comparison
from natstats.runs.networks_result import FORMAT as NETWORKS_FORMAT
from natstats.runs.networks_result import MetaAnalysis
from natstats.runs.run_schema import check_format
from natstats.runs.series_record import CHANGE, LAYERS, read_table

__all__ = ["open_comparison", "open_networks"]

_NETWORK_TEXTS = frozenset(
    {"network", "path", "model", "family", "weights", "trained", "images", "subgroup", "verdict",
     "digest", "unit"}
)  # fmt: skip

_SLOPES = tuple(
    f"slope{unit}{part}" for unit in ("", "_whole") for part in ("", "_low", "_high")
)  # fmt: skip
_NETWORKS = ("network", "path", "subgroup", "digest", *_SLOPES, "weight", "weight_whole")
_MEANS = (
    "unit", "subgroup", "n", "mean", "low", "high", "p", "next_low", "next_high", "tau", "i2", "q",
    "q_p",
)  # fmt: skip

_BY_UNIT = Record({"depth": MAPPING, "whole": MAPPING})

_LAW = Record(
    {
        "fit": MAPPING,
        "by": or_null(TEXT),
        "pooled": _BY_UNIT,
        "contrast": _BY_UNIT,
        "trained_minus_random": MappingOf(MAPPING),
        "shape": or_null(MAPPING),
        "notes": ListOf(TEXT),
        "format": whole(1),
    }
)


def open_comparison(path: str | Path) -> Comparison:
    """Read what :meth:`natstats.Comparison.save` wrote.

    Raises:
        UsageError: `path` is not a comparison.
        NatstatsError: it is damaged or of a newer format.
    """
    path = expanded(path, "comparison")
    record = _record_of(path, "comparison", COMPARISON_FORMAT, CHANGE)
    with _told(path, "comparison"):
        return Comparison(
            names=(record["names"][0], record["names"][1]),
            layers=read_table(path, "comparison.csv", LAYERS).astype({"depth": int}),
            only=(tuple(record["only"][0]), tuple(record["only"][1])),
            mean=Estimate.from_dict(record["mean"]),
            slope=Estimate.from_dict(record["slope"]),
            **{name: record[name] for name in
               ("n_layers", "n_differ", "is_paired", "level", "depth")},
            notes=tuple(record["notes"]),
        )  # fmt: skip


def open_networks(path: str | Path) -> MetaAnalysis:
    """Read what :meth:`natstats.MetaAnalysis.save` wrote.

    Raises:
        UsageError: `path` is not a meta-analysis.
        NatstatsError: it is damaged or of a newer format.
    """
    path = expanded(path, "law")
    record = _record_of(path, "law", NETWORKS_FORMAT, _LAW)
    with _told(path, "law"):
        shape = record["shape"]
        networks = read_table(path, "networks.csv", _NETWORKS, _NETWORK_TEXTS)
        counts = networks.columns.intersection(["n_layers", "n_seeds"])
        return MetaAnalysis(
            networks=networks.astype(dict.fromkeys(counts, int)),
            subgroups=read_table(path, "subgroups.csv", _MEANS, _NETWORK_TEXTS).astype({"n": int}),
            by=record["by"],
            pooled=_all_pooled(record["pooled"]),
            contrast={
                unit: Contrast(**{**_numbers(one), "dof": tuple(map(as_number, one["dof"]))})
                for unit, one in record["contrast"].items()
            },
            trained=_all_pooled(record["trained_minus_random"]),
            shape=None
            if shape is None
            else ShapeAgreement(_all_pooled(shape["terms"]), as_number(shape["p"]), shape["n"]),
            options=FitOptions.from_dict(record["fit"]),
            notes=tuple(record["notes"]),
        )


def _record_of(path: Path, kind: str, newest: int, schema: Record) -> dict[str, Any]:
    """The record of a folder, checked."""
    file, called = KINDS[kind].record, KINDS[kind].called
    store.restore(path)
    if not os.path.lexists(path / file):
        raise UsageError(f"{kind}: expected a {called}; {path} holds no {file}")
    with _told(path, kind):
        record = read_json(member(path, file, file))
        check_format(record, newest, file)
        schema.check(record, f"{file}, ")
    return dict(record)


@contextlib.contextmanager
def _told(path: Path, kind: str) -> Iterator[None]:
    """Name the folder in the errors of what is done in this context."""
    expected = f"{kind}: expected a whole {KINDS[kind].called} in {path}"
    try:
        yield
    except OSError as error:
        raise NatstatsError(f"{expected}; {error.strerror or error}") from error
    except (NatstatsError, ValueError) as error:
        raise NatstatsError(f"{expected}; {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise NatstatsError(
            f"{expected}; {KINDS[kind].record}: a field is missing or is of another kind ({error})"
        ) from error


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers among values by name, without lists and mappings."""
    return {name: as_number(v) for name, v in values.items() if not isinstance(v, list | dict)}


def _all_pooled(found: Mapping[str, Any]) -> dict[str, Pooled]:
    return {
        name: Pooled(
            **_numbers(one),
            mean=Estimate.from_dict(one["mean"]),
            weights=tuple(map(as_number, one["weights"])),
        )
        for name, one in found.items()
    }
