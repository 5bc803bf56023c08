"""How often the interval of a gain covers the truth, by simulation.

Two methods answer the same images with the same seeds. An answer is right where a normal variable
is above zero: the sum of an effect of the image that both methods share, one of the image on the
method, one of the seed on the method, and noise of the answer. Both methods have the same effects,
so the true gain is zero. Run with::

    python analyses/distill_intervals.py
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np

from natstats.distill.comparison.crossed import crossed_difference

RESULTS = Path(__file__).parent / "results" / "distill_intervals.json"
N_IMAGES, N_TIMES, LEVEL = 300, 2000, 0.95
SEEDS, SEED_SDS, IMAGE_SDS = (2, 3, 5), (0.0, 0.03, 0.1, 0.3), (0.0, 0.5)


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


def main() -> None:
    """Print and keep the table."""
    rng = np.random.default_rng(0)
    rows = []
    for n_seeds, seed_sd, image_sd in product(SEEDS, SEED_SDS, IMAGE_SDS):
        covered = coverage(n_seeds, seed_sd, image_sd, rng)
        rows.append(
            {"seeds": n_seeds, "seed_sd": seed_sd, "image_sd": image_sd, "coverage": covered}
        )
        print(f"{n_seeds} seeds, sd {seed_sd:g} and {image_sd:g}: {100 * covered:.1f} %")
    facts = {"images": N_IMAGES, "times": N_TIMES, "level": LEVEL, "rows": rows}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
