"""How often another form is flagged, and single images; part of analyses/calibration.py.

Ring power of an image is drawn from a Gamma distribution about what the form expects, with the
independent modes of the ring, times the channels, as shape; contrast multiplies whole images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from simulated import crop_power

from natstats.fits.bands import band_of
from natstats.fits.form_comparison import compare_forms
from natstats.fits.options import ESTIMATORS
from natstats.spectra.expected import expected_power, independent_modes
from natstats.spectra.frequencies import rings
from natstats.spectra.simulate import spectrum_of

Rows = list[dict[str, Any]]

SIDE = 28


def shapes() -> dict[str, np.ndarray]:
    """Expected ring power of fields that follow a form, at 28 pixels."""
    frequency = rings(SIDE, SIDE).frequency
    plain, white = expected_power(2.0, SIDE, SIDE), expected_power(0.0, SIDE, SIDE)
    floor = plain[-1] / white[-1]
    return {
        **{
            f"floor, {share} of the highest ring": plain + white * floor * share / (1 - share)
            for share in (0.3, 0.5, 0.7)
        },
        **{f"cut-off at {cut}": plain * np.exp(-frequency / cut) for cut in (0.4, 0.2, 0.1)},
        **{
            f"break from 2 to {above} at 0.15": plain
            * np.maximum(1, frequency / 0.15) ** (2 - above)
            for above in (2.5, 3, 4)
        },
    }


def _flags(
    expected: np.ndarray,
    side: int,
    n_images: int,
    channels: int,
    contrast: float,
    repeats: int,
    generator: np.random.Generator,
) -> list[str]:
    """The flag of each repeat, None where it was not judged."""
    modes = channels * independent_modes(side, side)
    found = []
    for _ in range(repeats):
        noise = generator.gamma(modes / 2, 2 / modes, size=(n_images, len(modes)))
        amplitude = np.exp(contrast * generator.standard_normal((n_images, 1)))
        forms = compare_forms(
            spectrum_of(expected * noise * amplitude**2, side, side, n_groups=128)
        )
        if forms.n_bins:
            found.append(forms.flag)
    return found


def rates(repeats: int, seed: int) -> Rows:
    """False flags on power laws, and flags where another form is the truth."""
    generator = np.random.default_rng([seed, 5])
    rows: Rows = []
    for side in (14, 28, 56):
        for n_images in (24, 64, 128):
            for alpha, channels in ((2.0, 1), (3.2, 16)):
                for contrast in (0.0, 0.7):
                    found = _flags(
                        expected_power(alpha, side, side),
                        side,
                        n_images,
                        channels,
                        contrast,
                        repeats,
                        generator,
                    )
                    rows.append(
                        {
                            "truth": "power law",
                            "side": side,
                            "n_images": n_images,
                            "alpha": alpha,
                            "channels": channels,
                            "contrast": contrast,
                            "repeats": repeats,
                            "judged": len(found),
                            "flagged": sum(flag != "" for flag in found),
                        }
                    )
    flagged, judged = (sum(row[key] for row in rows) for key in ("flagged", "judged"))
    print(f"power laws: {flagged} of {judged} judged ones flagged", flush=True)
    for truth, expected in shapes().items():
        for n_images in (24, 128):
            for channels in (1, 16):
                found = _flags(expected, SIDE, n_images, channels, 0.0, repeats, generator)
                rows.append(
                    {
                        "truth": truth,
                        "side": SIDE,
                        "n_images": n_images,
                        "channels": channels,
                        "contrast": 0.0,
                        "repeats": repeats,
                        "judged": len(found),
                        "flagged": sum(flag != "" for flag in found),
                        "as": {flag: found.count(flag) for flag in sorted(set(found)) if flag},
                    }
                )
                print(rows[-1], flush=True)
    return rows


def single(repeats: int, seed: int) -> Rows:
    """Scatter and bias of the exponents of single images of alpha 2."""
    rows = []
    for side in (7, 14, 28, 56):
        generator = np.random.default_rng([seed, side, 3])
        fields = -(-repeats // 16)
        for channels in (1, 4, 16):
            power = crop_power(side, side, [2.0], channels * fields, generator)[0]
            # Channels come from different fields.
            mean = power.reshape(channels, fields, 16, -1).mean(axis=0).reshape(fields * 16, -1)
            for estimator in ESTIMATORS:
                found = band_of(side, side, "sine", 0.0, 0.5).estimate(mean, estimator)
                rows.append(
                    {
                        "side": side,
                        "channels": channels,
                        "estimator": estimator,
                        "images": len(found),
                        "bias": found.mean() - 2,
                        "bias_se": found.std(ddof=1) / np.sqrt(len(found)),
                        "sd": found.std(ddof=1),
                    }
                )
                print({k: v if isinstance(v, str) else round(v, 3) for k, v in rows[-1].items()})
    return rows
