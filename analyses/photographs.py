"""Exponents of photographs, one by one, against what is published for natural images.

    python analyses/photographs.py FOLDER

Tolhurst, Tadmor and Chao (1992, Ophthalmic and Physiological Optics 12) found slopes of amplitude
between -0.8 and -1.5 (mean -1.2) for 135 photographs: exponents of power between 1.6 and 3.0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

import natstats

RESULT = Path(__file__).parent / "results" / "photographs.json"
PUBLISHED = (1.6, 3.0)


def main() -> None:
    """Measure the central square of every photograph, unscaled and at 256 pixels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    rows = []
    for size in (None, 256):
        run = natstats.measure_images(arguments.folder, size=size)
        measured, fit = run.spectra[0], run.fits.layers[0]
        own = fit.image_exponents
        inside = (own > PUBLISHED[0]) & (own < PUBLISHED[1])
        rows.append(
            {
                "side": measured.layer.height,
                "scaled": size is not None,
                "images": len(own),
                "exponent": [fit.exponent, fit.low, fit.high],
                "image_mean": own.mean(),
                "image_sd": own.std(ddof=1),
                "quantiles": {q: np.percentile(own, q) for q in (0, 5, 50, 95, 100)},
                "share_in_published_range": inside.mean(),
            }
        )
        print(rows[-1])
    record = {
        "command": "python analyses/photographs.py FOLDER",
        "layer": "input.grey",
        "natstats": natstats.__version__,
        "rows": rows,
    }
    RESULT.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
