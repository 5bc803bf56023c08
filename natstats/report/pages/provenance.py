"""How a run was measured and how to repeat it, as the report page shows it: no HTML."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from natstats.fits.band_choice import band_text
from natstats.fits.options import FitOptions
from natstats.numbers import short

__all__ = ["measured", "repeat"]


def repeat(info: Mapping[str, Any], options: FitOptions) -> str:
    """The command that made the run if it is known, else the call from Python.

    >>> print(repeat({"command": ["natstats", "measure", "my model"]}, FitOptions()))
    natstats measure 'my model'
    """
    usual = FitOptions().to_dict()
    chosen = {k: v for k, v in options.to_dict().items() if v != usual[k] or k == "estimator"}
    fitted = ", ".join(f"{key}={value!r}" for key, value in chosen.items())
    command, refit = info.get("command"), info.get("refit")
    if command:
        lines = [command if isinstance(command, str) else shlex.join(map(str, command))]
        if isinstance(refit, str):
            lines.append(refit)
        elif refit:
            lines.append(f"# then, from Python: natstats.Run.open(...).refit({fitted})")
        return "\n".join(lines)
    model, images = info.get("model"), info.get("images") or {}
    function = "measure_images" if model is None else "measure"
    given = {
        key: value
        for key, value in (info.get("options") or {}).items()
        if value is not None and key not in ("normalisation", "workers")
    }
    lines = ["import natstats", ""]
    if model is not None:
        lines.append(f"# model: {model.get('name')}, weights: {model.get('weights')}")
    lines += [
        f"# images: {images.get('source', 'not known')}",
        f"run = natstats.{function}(",
        "    model," if model is not None else "    images,",
        *(["    images,"] if model is not None else []),
        *(f"    {key}={value!r}," for key, value in given.items()),
        f"    fit=natstats.FitOptions({fitted}),",
        ")",
    ]
    # A line break inside a name must not end the comment that it stands in.
    return "\n".join(" ".join(line.splitlines()) for line in lines)


def measured(info: Mapping[str, Any], options: FitOptions) -> list[tuple[str, str]]:
    """How it was measured: label and value, without what is not known."""
    images, model = info.get("images") or {}, info.get("model") or {}
    asked, timing = info.get("options") or {}, info.get("timing") or {}
    device = info.get("device") or {}
    unit = "frame" if asked.get("temporal") else "pixel"
    rows: Sequence[tuple[str, Any]] = [
        ("model", model.get("name")),
        ("weights", model.get("weights")),
        ("digest of the weights", model.get("digest")),
        ("trained", "no, the weights are random" if model.get("trained") is False else None),
        ("images", images.get("source")),
        ("number of images", images.get("n_images")),
        ("digest of the images", images.get("contents") or images.get("digest")),
        (
            "preparation",
            _preparation(images, images.get("normalisation", asked.get("normalisation"))),
        ),
        ("enlarged images", images.get("n_enlarged") or None),
        ("unreadable images", images.get("n_unreadable")),
        ("layers asked for", _joined(asked.get("layers"))),
        (
            "layouts declared",
            _joined([f"{k} {v}" for k, v in (asked.get("layouts") or {}).items()]),
        ),
        ("edges of the maps", asked.get("edges")),
        ("groups of images", _groups(asked.get("n_groups"), images.get("n_images"))),
        ("seed", asked.get("seed")),
        ("control", _control(asked)),
        ("mixed precision", "yes" if asked.get("amp") else "no" if "amp" in asked else None),
        ("estimator", options.estimator),
        ("spectrum", "along time" if asked.get("temporal") else None),
        ("band", band_text(options.band, unit)),
        ("power of images", "brought to the same mean" if options.normalize else "as it is"),
        ("smallest number of rings", options.min_rings),
        ("intervals", _intervals(options)),
        ("measure of depth", options.depth),
        ("layers in the law", options.law_layers if model else None),
        ("device", _joined([device.get("type"), device.get("name")])),
        ("time", _time(timing)),
        ("made", info.get("created")),
        ("versions", _joined([f"{k} {v}" for k, v in (info.get("versions") or {}).items()])),
    ]
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def _intervals(options: FitOptions) -> str:
    level = f"{100 * options.level:g} %"
    how = "Student's t with effective degrees of freedom"
    if options.interval == "bootstrap":
        how = f"studentised bootstrap, {options.resamples} resamples"
    wider = ", wider by a tenth because they decided how many images were measured"
    return f"{level}, {how}{wider * options.stopped}"


def _groups(n_groups: Any, n_images: Any) -> str:
    """How many groups there were; no more than images, whatever was asked for.

    >>> _groups(128, 48), _groups(128, 1000), _groups(128, None)
    ('48, an image each', '128, of about 8 images each', '128')
    """
    if not isinstance(n_groups, int) or not isinstance(n_images, int) or n_images < 1:
        return "" if n_groups is None else str(n_groups)
    if n_images <= n_groups:
        return f"{n_images}, an image each"
    return f"{n_groups}, of about {n_images / n_groups:.0f} images each"


def _control(asked: Mapping[str, Any]) -> str:
    if not asked.get("control"):
        return ""
    return f"the architecture with {asked['control']}, {asked.get('control_seeds')} seeds"


def _joined(values: Any) -> str:
    if isinstance(values, str) or values is None:
        return values or ""
    return ", ".join(str(value) for value in values if value is not None)


def _preparation(images: Mapping[str, Any], normalisation: Mapping[str, Any] | None) -> str:
    if images.get("size") is None:
        return "as they are"
    steps = []
    if images.get("frames"):
        steps.append(f"{images['frames']} frames of a clip")
    if images.get("resize"):
        steps.append(f"shorter side to {images['resize']} px ({images.get('interpolation')})")
    steps.append(f"central {images['size']} × {images['size']} px")
    if normalisation:
        mean, std = (list(normalisation.get(key) or ()) for key in ("mean", "std"))
        if any(mean) or any(value != 1 for value in std):
            ends = (_joined(map(short, values)) for values in (mean, std))
            steps.append("normalised for the model (mean {}; sd {})".format(*ends))
        else:
            steps.append("in [0, 1], not normalised")
    return ", ".join(steps)


def _time(timing: Mapping[str, Any]) -> str:
    if "seconds" not in timing:
        return ""
    speed = timing.get("images_per_second", 0)
    return f"{short(timing['seconds'], 3)} s, {short(speed, 3)} images per second"
