"""The tables of docs/calibration.md on many networks; part of figures/calibration.py."""

from __future__ import annotations

from collections.abc import Sequence

from calibration_tables import Row, made_by, percent, rows_of, table

INTERVALS = (
    "PM, normal",
    "PM, Hartung-Knapp",
    "PM, modified",
    "DL, Hartung-Knapp",
    "REML, Hartung-Knapp",
    "natstats",
)


def _range(rows: Sequence[Row], name: str) -> str:
    """The smallest and the largest rate over cells."""
    rates = [row[name] for row in rows]
    low, high = percent(min(rates)), percent(max(rates))
    return low if low == high else f"{low} to {high}"


def _of(rows: Sequence[Row], **wanted: object) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def networks() -> list[str]:
    """Coverage of the mean of many networks, and rates of the tests between them."""
    rows = rows_of("networks")
    mean = [row for row in rows if row["study"] == "mean"]
    main = [row for row in mean if row["networks"] >= 5]
    named = {"PM, normal": "usual"}
    lines = []
    for errors in dict.fromkeys(row["errors"] for row in main):
        for dof in dict.fromkeys(row["dof"] for row in main):
            for k in dict.fromkeys(row["networks"] for row in main):
                own = _of(main, errors=errors, dof=dof, networks=k)
                cells = [_range(own, name) for name in INTERVALS]
                cells[-1] = f"**{cells[-1]}**"
                lines.append([f"{errors}", f"{dof}", f"{k}", *cells])
    head = [
        "errors", "degrees of freedom", "networks",
        *(f"{named.get(name, name)}" for name in INTERVALS[:-1]), "natstats",
    ]  # fmt: skip
    spreads = list(dict.fromkeys(row["heterogeneity"] for row in mean))
    ahead = []
    for k in dict.fromkeys(row["networks"] for row in mean):
        for dof in ("known", "3 to 53"):
            own = _of(mean, networks=k, errors="differ 4-fold", dof=dof)
            ahead.append(
                [
                    f"{k}",
                    dof,
                    _range(own, "natstats"),
                    *("–" if k < 3 else percent(row["next"]) for row in own),
                    *(percent(row["told apart"]) for row in own if not row["heterogeneity"]),
                    *(f"{row['tau']:.2f}" for row in own),
                ]
            )
    ahead_head = [
        "networks", "degrees of freedom", "mean covered",
        *(f"next, τ = {s:g}" for s in spreads), "one slope rejected, τ = 0",
        *(f"median τ, τ = {s:g}" for s in spreads),
    ]  # fmt: skip
    groups = [
        [
            " + ".join(map(str, sizes)),
            *(
                _range(_of(rows, study="subgroups", sizes=sizes, dof=dof), "told apart")
                for dof in ("known", "3 to 53")
            ),
        ]
        for sizes in _sizes(rows)
    ]
    shapes = [
        [f"{row['networks']}", ", ".join(map(str, row["layers"])), percent(row["told apart"])]
        for row in rows
        if row["study"] == "shapes"
    ]
    return [
        "Coverage of the mean slope, per cent, smallest and largest over a spread of networks of 0 "
        "to 3 times their errors:",
        "",
        *table(head, lines),
        "",
        "What else is told, errors that differ 4-fold:",
        "",
        *table(ahead_head, ahead),
        "",
        "Subgroups without a difference told apart at 5 %, over a spread of 0, 1 and 3:",
        "",
        *table(["networks in each", "errors known", "3 to 53 degrees of freedom"], groups),
        "",
        "Networks of one shape, layers scattered independently, told apart at 5 %:",
        "",
        *table(["networks", "layers of each", "per cent"], shapes),
        "",
        f"{mean[0]['repeats']} repeats; the standard error of a rate of 95 % is 0.5.",
        *made_by("calibration_networks"),
    ]


def _sizes(rows: Sequence[Row]) -> list[list[int]]:
    found: list[list[int]] = []
    for row in rows:
        if row["study"] == "subgroups" and row["sizes"] not in found:
            found.append(row["sizes"])
    return found
