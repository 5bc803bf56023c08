"""How well theory predicts what convolutions and activation functions of trained networks do.

Reads runs that analyses/accounts.py has measured. Of each network: the convolution on the torus
against what is measured, the change by Gaussian theory against that of each activation function,
and what is left of the change along the trunk when all shares are taken from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from study import circumstances

import natstats
from natstats.runs.store import to_json
from natstats.theory.account import Account

RESULT = Path(__file__).parent / "results" / "theory_trained.json"
NETWORKS = ("resnet-20", "resnet-56", "squeezenet-1-1", "mobilenetv2", "dncnn-sigma-25")

AT_MOST = {"convolutions": 0.03, "rectifiers": 0.06, "correlation": 0.8, "sum": 1e-6}
"""What was asked for: median differences, the correlation of rectifiers, and the sum of shares."""

Row = dict[str, Any]


def of_convolutions(frame: pd.DataFrame) -> Row:
    """The convolution on the torus less what is measured, of all convolutions."""
    steps = frame[(frame.kind == "convolution") & (frame.cause == "kernels")].step
    borders = frame[frame.cause == "borders"].set_index("step")["share"]
    off = borders.reindex(steps).fillna(0.0).abs()  # one tap, no stride: exact
    wide = off[off.index.isin(borders.index)]
    return {
        "n": len(off),
        "median": float(off.median()),
        "n_wide": len(wide),
        "median_wide": float(wide.median()),
        "largest": [[str(name), float(borders[name])] for name in wide.nlargest(3).index],
    }


def of_rectifiers(frame: pd.DataFrame) -> Row:
    """Gaussian theory against the measured change, of all activation functions."""
    parts = frame[frame.cause == "rectifiers"].pivot(index="step", columns="part", values="share")
    if "Gaussian" not in parts:
        return {"n": 0}
    parts = parts.dropna(subset=["Gaussian"])
    measured = parts["Gaussian"] + parts["rest"]
    largest = parts["rest"].abs().nlargest(3).index
    return {
        "n": len(parts),
        "median": float(parts["rest"].abs().median()),
        "correlation": float(np.corrcoef(parts["Gaussian"], measured)[0, 1]),
        "mean_measured": float(measured.mean()),
        "mean_gaussian": float(parts["Gaussian"].mean()),
        "largest": [
            [str(name), float(measured[name]), float(parts["Gaussian"][name])] for name in largest
        ],
    }


def of_sum(account: Account) -> float:
    """What is left of the change along the trunk when all shares are taken from it."""
    first, last = account.ends
    return float(abs(account.totals["share"].sum() - (last - first)))


@click.command()
@click.argument("runs", type=click.Path(path_type=Path, exists=True))
def trained(runs: Path) -> None:
    """Theory against trained networks, from the RUNS of analyses/accounts.py."""
    rows = []
    for name in NETWORKS:
        run = natstats.Run.open(runs / name)
        account = run.account
        assert account is not None
        frame = account.frame
        row: Row = {
            "network": run.info["name"],
            "n_images": int(run.spectra[0].spectrum.n_images),
            "convolutions": of_convolutions(frame),
            "rectifiers": of_rectifiers(frame),
            "sum": of_sum(account),
        }
        rows.append(row)
        wide, rect = row["convolutions"], row["rectifiers"]
        print(
            f"{row['network']}: convolutions {wide['median']:.3f} (k > 1: {wide['median_wide']:.3f}"
            f", largest {wide['largest'][0][0]} {wide['largest'][0][1]:+.2f}); rectifiers "
            f"{rect['median']:.3f}, correlation {rect['correlation']:.2f}, largest "
            f"{rect['largest'][0][0]} {rect['largest'][0][1]:+.2f} for {rect['largest'][0][2]:+.2f}"
            f"; sum {row['sum']:.0e}"
        )
    record = {
        "command": f"python analyses/theory.py trained {runs.name}",
        **circumstances(),
        "at_most": AT_MOST,
        "networks": rows,
    }
    RESULT.write_text(json.dumps(json.loads(to_json(record)), indent=0) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    trained()
