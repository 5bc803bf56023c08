"""Counterfactuals predicted from the account beside networks that are shuffled in earnest.

    python analyses/theory_counterfactual.py WEIGHTS CIFAR PHOTOS --images 64 --seeds 2

WEIGHTS is a folder with the files that analyses/trained_networks.py names, CIFAR a folder of images
of 32 pixels, PHOTOS one of photographs. The taps of every kernel are shuffled, or the input
channels of every convolution; batch normalisation is estimated anew on the same images. The account
of the network as it is predicts the exponents to first order, on average over orders; the account
of each shuffled network says what they are, and which shares have answered. As kernels that are
shuffled may be shuffled again, it also predicts each single step from the maps that come in there:
what is left of the gap then is not first order, but theory.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor
from trained_networks import of_others

import natstats
from natstats.activations.trace import trace_calls
from natstats.images.sources import batches, open_images
from natstats.measurement.counterfactual import counterfactual_of
from natstats.networks.shuffled_weights import SHUFFLES
from natstats.theory.account import CAUSES, Account
from natstats.theory.account_law import AccountLaw
from natstats.theory.account_pass import AccountPass
from natstats.theory.counterfactuals import Counterfactuals

RESULT = Path(__file__).parent / "results" / "theory_counterfactual.json"
NETWORKS = ("ResNet-20", "ResNet-56", "SqueezeNet 1.1", "MobileNetV2")
BATCH = 32
EVERY = 4


def prepared(network: natstats.Network, images: Path, limit: int) -> Iterator[Tensor]:
    """The images as the network takes them, in batches."""
    way = network.preprocessing
    for batch in batches(open_images(images, way.framing, limit), BATCH):
        yield way.normalize(batch.images)


def account_of(network: natstats.Network, images: Path, limit: int) -> Account:
    """The account of a network."""
    passed: AccountPass | None = None
    with torch.inference_mode():
        first = next(prepared(network, images, 1))
        trace = trace_calls(network.model, network.arguments(first))
        arguments = network.arguments(first)
        passed = AccountPass(
            network.model, arguments, trace, n_groups=limit, every=min(EVERY, limit // 16)
        )
        with passed:
            for batch in prepared(network, images, limit):
                network.model(*network.arguments(batch))
    return Account(passed.compute(), natstats.FitOptions())


def hidden_layers(account: Account) -> dict[str, float]:
    """The weight layers of the law, with their depth: all but the one behind which nothing is."""
    law = AccountLaw(account)
    going_on = {step.before for step in account.spectra.steps}
    return {
        name: float(depth)
        for name, depth in zip(law.layers, law.depth, strict=True)
        if account.steps[account.place_of_layer[name]].after in going_on
    }


def totals(account: Account) -> dict[str, float]:
    """What each cause adds along the trunk."""
    table = account.totals.set_index("cause").share
    return {cause: round(float(table.get(cause, 0.0)), 3) for cause in CAUSES if cause in table}


STATES = {
    "shuffle-kernels": ("shuffled kernels", ("kernels",)),
    "shuffle-channels": ("shuffled channels", ("kernels", "correlations")),
}


def step_gaps(account: Account, name: str) -> list[float]:
    """Predicted minus measured share of each step of a shuffled network, from its own input."""
    state, causes = STATES[name]
    gaps = []
    for place, step in enumerate(account.steps):
        own = [one for one in account.shares.list if one.step == place and one.cause in causes]
        if state in step.predictions and own:
            expected = account.share_between(place, step.predictions[state], state).value
            gaps.append(expected - sum(one.value for one in own))
    return gaps


def compared(
    found: Counterfactuals, name: str, shuffled: list[Account], layers: Mapping[str, float]
) -> dict[str, Any]:
    """Predicted beside measured: the exponents of the layers, their changes, and slopes."""
    laws = [AccountLaw(account, layers) for account in shuffled]
    names = [one for one in found.law.layers if all(one in law.layers for law in laws)]
    measured = np.array(
        [[dict(zip(law.layers, law.exponents, strict=True))[one] for one in names] for law in laws]
    )
    table = found.exponents.set_index("layer").loc[names]
    change, expected = measured.mean(0) - table.exponent, table[name] - table.exponent
    gap = (table[name] - measured.mean(0)).to_numpy()
    slope, apart = found.slope_of[name]
    own = [law.slope_of["all"] for law in laws]
    worst = int(np.argmax(np.abs(gap)))
    early = table.depth <= np.quantile(table.depth, 0.25)
    return {
        "counterfactual": name,
        "kept": list(next(one.kept for one in found.each if one.name == name)),
        "slope_predicted": [slope.value, slope.low, slope.high],
        "difference_predicted": [apart.value, apart.low, apart.high],
        "slope_measured": float(np.mean([one.value for one in own])),
        "slopes_measured": [[one.value, one.low, one.high] for one in own],
        "median_gap": float(np.median(np.abs(gap))),
        "median_gap_first_quarter": float(np.median(np.abs(gap[early.to_numpy()]))),
        "largest_gap": {"layer": names[worst], "gap": float(gap[worst])},
        "median_step_gap": float(
            np.median(np.abs([gap for account in shuffled for gap in step_gaps(account, name)]))
        ),
        "correlation_of_changes": float(np.corrcoef(change, expected)[0, 1]),
        "totals_measured": [totals(account) for account in shuffled],
        "layers": [
            {
                "layer": layer,
                "depth": float(row.depth),
                "exponent": round(float(row.exponent), 3),
                "predicted": round(float(row[name]), 3),
                "measured": [round(float(one), 3) for one in measured[:, place]],
            }
            for place, (layer, row) in enumerate(table.iterrows())
        ],
    }


def study(network: natstats.Network, images: Path, limit: int, n_seeds: int) -> dict[str, Any]:
    """All counterfactuals of one network."""
    account = account_of(network, images, limit)
    layers = hidden_layers(account)
    found = Counterfactuals(AccountLaw(account, layers))
    rows = []
    for name in SHUFFLES:
        shuffled = [
            account_of(
                counterfactual_of(network, name, seed, prepared(network, images, limit)),
                images,
                limit,
            )
            for seed in range(n_seeds)
        ]
        rows.append(compared(found, name, shuffled, layers))
    whole = found.law.slope_of["all"]
    return {
        "n_layers": len(found.law.layers),
        "slope": [whole.value, whole.low, whole.high],
        "slopes_of_causes": {
            cause: [one.value, one.low, one.high] for cause, one in found.law.slope_of.items()
        },
        "totals": totals(account),
        "predicted_only": {
            name: [pair[0].value, pair[0].low, pair[0].high]
            for name, pair in found.slope_of.items()
            if name not in SHUFFLES
        },
        "sentence": found.law.sentence(),
        "counterfactuals": rows,
    }


def answers(before: dict[str, float], row: dict[str, Any]) -> str:
    """What the shares add along the trunk, and in the shuffled networks, in a line."""
    after = {
        cause: np.mean([one.get(cause, 0.0) for one in row["totals_measured"]]) for cause in before
    }
    return ", ".join(f"{cause} {before[cause]:+.2f} -> {after[cause]:+.2f}" for cause in before)


def in_words(name: str, row: dict[str, Any]) -> str:
    """A line of the table."""
    predicted, low, high = row["slope_predicted"]
    return (
        f"| {name} | {row['counterfactual']} | {predicted:+.4f} [{low:+.4f}, {high:+.4f}] | "
        f"{row['slope_measured']:+.4f} | {row['median_gap']:.2f} | "
        f"{row['median_gap_first_quarter']:.2f} | {row['median_step_gap']:.3f} | "
        f"{row['correlation_of_changes']:.2f} |"
    )


@click.command()
@click.argument("weights", type=click.Path(exists=True, path_type=Path))
@click.argument("cifar", type=click.Path(exists=True, path_type=Path))
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--images", "n_images", default=64, show_default=True, help="Images of each network.")
@click.option("--seeds", default=2, show_default=True, help="Orders of each counterfactual.")
@click.option("--only", multiple=True, help="These networks only; the others are kept.")
def counterfactual(
    weights: Path, cifar: Path, photos: Path, n_images: int, seeds: int, only: tuple[str, ...]
) -> None:
    """Shuffled networks: predicted against measured exponents and slopes."""
    for file, one in of_others(weights):
        if one.name not in (only or NETWORKS) or not file.is_file():
            continue
        started = time.perf_counter()
        images = cifar if one.training == "CIFAR-10" else photos
        found = study(one.load(), images, n_images, seeds)
        found["seconds"] = round(time.perf_counter() - started)
        write(one.name, {"images": n_images, "seeds": seeds, **found})
        for row in found["counterfactuals"]:
            click.echo(in_words(one.name, row))
            click.echo(f"  {answers(found['totals'], row)}")


def write(name: str, found: dict[str, Any]) -> None:
    """Put what was found of a network beside what is known of others."""
    known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {}
    networks = {**known.get("networks", {}), name: found}
    record = {
        "command": "python analyses/theory_counterfactual.py WEIGHTS CIFAR PHOTOS",
        "natstats": natstats.__version__,
        "networks": {one: networks[one] for one in NETWORKS if one in networks},
    }
    RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    counterfactual()
