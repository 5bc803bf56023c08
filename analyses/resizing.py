"""What scaling does to the exponent of layer 0.

    python analyses/resizing.py --images FOLDER

Photographs are scaled by several factors and cut to their central square, always of the same size,
so that the size of the map is not the cause of what is found. Each is compared with the same
photographs unscaled, by their paired difference. The same is done to ideal fields of exponent 2.

Scaling does two things. It brings other waves of the photograph into the band, and its filter
changes their power. So a reduced photograph is also compared with the same part of the unscaled
one, fitted up to the frequency that the scaled map ends at: the same waves, and only the filter
between them.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

import natstats
from natstats.images.files import image_paths
from natstats.images.pixels import read_rgb
from natstats.law.differences import Differences, ErrorSource
from natstats.spectra.input_spectra import LUMA

RESULT = Path(__file__).parent / "results" / "resizing.json"
FACTORS = (1 / 4, 1 / 3, 1 / 2, 3 / 4, 1, 3 / 2, 2)
PIL_METHODS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
PLAIN = "bilinear without antialiasing"
MAP = 96
PRESET = (256, 224)
BAND = (0.0, 0.25)
N_FIELDS, FIELD_SIDE, FIELD_ALPHA, FIELD_OUTER_SCALE = 64, 400, 2.0, 6

Picture = Image.Image
"""RGB for a photograph, mode F for a field."""


def scaled(picture: Picture, width: int, height: int, method: str) -> np.ndarray[Any, Any]:
    """A picture at another size, in grey, (height, width)."""
    if (width, height) == picture.size:
        return grey(np.asarray(picture, dtype=np.float64))
    if method != PLAIN:
        resized = picture.resize((width, height), PIL_METHODS[method])
        return grey(np.asarray(resized, dtype=np.float64))
    plane = torch.from_numpy(grey(np.asarray(picture, dtype=np.float64)))[None, None]
    return torch.nn.functional.interpolate(
        plane, (height, width), mode="bilinear", align_corners=False, antialias=False
    )[0, 0].numpy()


def grey(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Luma of (H, W, 3) in [0, 1]; fields (H, W) are grey already."""
    return pixels if pixels.ndim == 2 else pixels @ np.array(LUMA) / 255


def centre(plane: np.ndarray[Any, Any], side: int) -> np.ndarray[Any, Any]:
    """The central square."""
    top, left = ((length - side) // 2 for length in plane.shape)
    return plane[top : top + side, left : left + side]


def by_factor(picture: Picture, factor: float, method: str, side: int) -> np.ndarray[Any, Any]:
    """The central square of a picture that was scaled by a factor."""
    width, height = (round(length * factor) for length in picture.size)
    return centre(scaled(picture, width, height, method), side)


def by_preset(picture: Picture, method: str) -> np.ndarray[Any, Any]:
    """The central square of a picture whose shorter side was brought to 256 pixels."""
    resize, side = PRESET
    factor = resize / min(picture.size)
    width, height = (max(resize, round(length * factor)) for length in picture.size)
    return centre(scaled(picture, width, height, method), side)


def measured(maps: Iterator[np.ndarray[Any, Any]]) -> natstats.Run:
    """Layer 0 of maps, each a group of its own."""
    array = np.stack(list(maps))[:, None]
    return natstats.measure_images(array, n_groups=len(array), batch_size=32)


def difference(run: natstats.Run, other: natstats.Run) -> list[float]:
    """Exponent of `run` minus that of `other`, of the same pictures, with its interval."""
    moves = run.fits.deviations - other.fits.deviations
    change = Differences(run.fits.exponents - other.fits.exponents, [ErrorSource(moves)], 0.95)
    (found,) = change.each()
    return [found.value, found.low, found.high]


def exponent(run: natstats.Run) -> list[float]:
    """With its interval."""
    fit = run.fits.layers[0]
    return [fit.exponent, fit.low, fit.high]


def compared(run: natstats.Run, unscaled: natstats.Run) -> dict[str, Any]:
    """Exponents in the whole band and in its lower half, and what they differ by."""
    low, low_unscaled = (one.refit(band=BAND) for one in (run, unscaled))
    return {
        "exponent": exponent(run),
        "exponent_low_band": exponent(low),
        "difference": difference(run, unscaled),
        "difference_low_band": difference(low, low_unscaled),
    }


def study(pictures: Sequence[Picture], kind: str) -> list[dict[str, Any]]:
    """All factors and methods, a row each."""
    unscaled = measured(by_factor(p, 1, "bilinear", MAP) for p in pictures)
    rows = []
    for factor in FACTORS:
        same = None
        if factor < 1:  # the same part of the pictures and the same waves, unscaled
            part = measured(by_factor(p, 1, "bilinear", round(MAP / factor)) for p in pictures)
            same = part.refit(band=(0.0, factor / 2))
        for method in ("bilinear",) if factor == 1 else (*PIL_METHODS, PLAIN):
            run = measured(by_factor(p, factor, method, MAP) for p in pictures)
            row = {"pictures": kind, "n": len(pictures), "map": MAP, "factor": factor}
            row |= {"method": "unscaled" if factor == 1 else method, **compared(run, unscaled)}
            row["difference_same_waves"] = None if same is None else difference(run, same)
            rows.append(row)
            report(row)
    return rows


def presets(pictures: Sequence[Picture], kind: str) -> list[dict[str, Any]]:
    """The usual preset of torchvision, with and without antialiasing, against unscaled."""
    side = PRESET[1]
    unscaled = measured(by_factor(p, 1, "bilinear", side) for p in pictures)
    rows = []
    for method in ("unscaled", "bilinear", "bicubic", PLAIN):
        run = unscaled
        if method != "unscaled":
            run = measured(by_preset(p, method) for p in pictures)
        row = {"pictures": kind, "n": len(pictures), "map": side, "factor": "shorter side to 256"}
        row |= {"method": method, **compared(run, unscaled)}
        rows.append(row)
        report(row)
    return rows


def report(row: dict[str, Any]) -> None:
    """One line on the terminal."""
    factor = row["factor"] if isinstance(row["factor"], str) else f"{row['factor']:.3f}"
    numbers = " ".join(f"{value:+.3f}" for value in (*row["exponent"], *row["difference"]))
    print(
        f"{row['pictures']:12} {row['map']:4} {factor:20} {row['method']:30} {numbers}", flush=True
    )


def main() -> None:
    """Photographs, then fields."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    started = time.time()
    photographs = []
    smallest = {"study": MAP / min(FACTORS), "presets": PRESET[0]}
    for path in image_paths(arguments.images):
        with path.open("rb") as file:
            photographs.append((path.name, read_rgb(file)))
    chosen = {
        part: [p for _, p in photographs if min(p.size) >= side] for part, side in smallest.items()
    }
    left_out = [name for name, p in photographs if min(p.size) < smallest["study"]]
    print(f"{len(photographs)} photographs; too small for the factors: {left_out}", flush=True)
    fields = [
        Image.fromarray(field.astype(np.float32))
        for field in natstats.power_law_fields(
            N_FIELDS, FIELD_SIDE, FIELD_SIDE, FIELD_ALPHA, outer_scale=FIELD_OUTER_SCALE, seed=0
        )
    ]
    record = {
        "command": "python analyses/resizing.py --images FOLDER",
        "n_photographs": len(photographs),
        "left_out": len(left_out),
        "shorter_side": [f(min(p.size) for _, p in photographs) for f in (min, max)],
        "map": MAP,
        "band": BAND,
        "fields": {
            "n": N_FIELDS, "side": FIELD_SIDE, "alpha": FIELD_ALPHA,
            "outer_scale": FIELD_OUTER_SCALE,
        },
        "factors": [*study(chosen["study"], "photographs"), *study(fields, "fields")],
        "presets": [*presets(chosen["presets"], "photographs"), *presets(fields, "fields")],
        "versions": {
            "natstats": natstats.__version__, "torch": str(torch.__version__),
            "pillow": PIL.__version__, "python": platform.python_version(),
        },
        "seconds": round(time.time() - started),
    }  # fmt: skip
    RESULT.write_text(json.dumps(record, indent=1, default=float) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()
