"""How often the interval of a gain covers the truth, by simulation.

*Crossed*: two methods answer the same images with the same seeds. An answer is right where a normal
variable is above zero: the sum of an effect of the image that both methods share, one of the image
on the method, one of the seed on the method, and noise of the answer. Both methods have the same
effects, so the true gain is zero.

*Pooled*: accuracies of three to twelve methods are method + seed + residual, all methods alike, so
that any contrast is zero; the residuals of the last method, of two, or of half of them have other
standard deviations, or those of every second method have a part in common. Covered is the contrast
of two of the common methods, that of two of the others, and one of each; what is not covered is a
false positive. *Few*: the same for three to eight seeds, if errors were pooled from two seeds on.
Run with::

    python analyses/distill_intervals.py
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np

from natstats.distill.comparison import pooled as pooling
from natstats.distill.comparison.crossed import crossed_difference
from natstats.distill.comparison.pooled import pooled_difference, pooled_variance

RESULTS = Path(__file__).parent / "results" / "distill_intervals.json"
N_IMAGES, N_TIMES, LEVEL = 300, 2000, 0.95
SEEDS, SEED_SDS, IMAGE_SDS = (2, 3, 5), (0.0, 0.03, 0.1, 0.3), (0.0, 0.5)

POOLED_SEEDS, POOLED_TIMES, FEW_SEEDS = 8, 1000, (3, 4, 5, 6, 8)
SDS = {
    "equal": [1.0] * 12,
    "equal, four methods": [1.0] * 4,
    "one of sd 5": [1.0] * 11 + [5.0],
    "one of sd 5, four methods": [1.0] * 3 + [5.0],
    "two of sd 5": [1.0] * 10 + [5.0] * 2,
    "one of sd 2": [1.0] * 11 + [2.0],
    "half of sd 0.5": [1.0] * 6 + [0.5] * 6,
    "from 0.6 to 1.6": np.linspace(0.6, 1.6, 12).tolist(),
}
"""Standard deviations of the residuals; that of what a seed does to all is 1."""

FEW = {
    "equal, four methods": [1.0] * 4,
    "equal": [1.0] * 12,
    "one of three of sd 5": [1.0] * 2 + [5.0],
    "one of four of sd 3": [1.0] * 3 + [3.0],
    "one of six of sd 3": [1.0] * 5 + [3.0],
    "two of six of sd 3": [1.0] * 4 + [3.0] * 2,
    "one of twelve of sd 3": [1.0] * 11 + [3.0],
    "one of six of sd 2": [1.0] * 5 + [2.0],
}
"""The same for numbers of seeds from which errors might be pooled."""


def coverage(n_seeds: int, seed_sd: float, image_sd: float, rng: np.random.Generator) -> float:
    """Share of the intervals that hold zero."""
    hits = 0
    for _ in range(N_TIMES):
        shared = rng.normal(size=N_IMAGES)
        right = [
            shared
            + image_sd * rng.normal(size=N_IMAGES)
            + seed_sd * rng.normal(size=(n_seeds, 1))
            + rng.normal(size=(n_seeds, N_IMAGES))
            > 0
            for _ in range(2)
        ]
        found = crossed_difference(right[0].astype(np.int8) - right[1].astype(np.int8), LEVEL)
        hits += found.low <= 0 <= found.high
    return hits / N_TIMES


def pooled_coverage(
    sds: list[float],
    rng: np.random.Generator,
    in_common: float = 0.0,
    times: int = POOLED_TIMES,
    n_seeds: int = POOLED_SEEDS,
) -> dict[str, float]:
    """Share of the intervals of three contrasts that hold zero, and their mean lengths.

    Args:
        sds: standard deviation of the residuals of every method.
        rng: source of randomness.
        in_common: share of the variance that every second method has in common.
        times: simulated studies.
        n_seeds: seeds of every method.
    """
    n = len(sds)
    pairs = {"first": ("0", "1"), "last": (str(n - 2), str(n - 1)), "between": ("0", str(n - 1))}
    hits, lengths = dict.fromkeys(pairs, 0.0), dict.fromkeys(pairs, 0.0)
    for _ in range(times):
        noise = np.sqrt(1 - in_common) * rng.normal(size=(n, n_seeds))
        noise += np.sqrt(in_common) * rng.normal(size=(2, n_seeds))[np.arange(n) % 2]
        values = np.array(sds)[:, None] * noise + rng.normal(size=n_seeds)
        runs = {str(place): dict(enumerate(row.tolist())) for place, row in enumerate(values)}
        pool = pooled_variance(runs)
        for name, (first, second) in pairs.items():
            found = pooled_difference(runs, first, second, pool, LEVEL)
            hits[name] += (found.low <= 0 <= found.high) / times
            lengths[name] += (found.high - found.low) / times
    return {**hits, **{f"length_{name}": value for name, value in lengths.items()}}


def main() -> None:
    """Print and keep the tables."""
    rng = np.random.default_rng(0)
    rows = []
    for n_seeds, seed_sd, image_sd in product(SEEDS, SEED_SDS, IMAGE_SDS):
        covered = coverage(n_seeds, seed_sd, image_sd, rng)
        rows.append(
            {"seeds": n_seeds, "seed_sd": seed_sd, "image_sd": image_sd, "coverage": covered}
        )
        print(f"{n_seeds} seeds, sd {seed_sd:g} and {image_sd:g}: {100 * covered:.1f} %")
    pooled = []
    for name, sds in SDS.items():
        pooled.append({"residuals": name, **pooled_coverage(sds, rng)})
        print(pooled[-1], flush=True)
    pooled.append({"residuals": "half in common", **pooled_coverage([1.0] * 12, rng, 0.5)})
    print(pooled[-1], flush=True)
    few, pooled_from = [], pooling.FEWEST_SEEDS
    pooling.FEWEST_SEEDS = 2
    for n_seeds, (name, sds) in product(FEW_SEEDS, FEW.items()):
        few.append(
            {"seeds": n_seeds, "residuals": name, **pooled_coverage(sds, rng, n_seeds=n_seeds)}
        )
        print(few[-1], flush=True)
    facts = {
        "images": N_IMAGES, "times": N_TIMES, "level": LEVEL, "rows": rows,
        "pooled_seeds": POOLED_SEEDS, "pooled_times": POOLED_TIMES, "pooled": pooled,
        "pooled_from": pooled_from, "few": few,
    }  # fmt: skip
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
