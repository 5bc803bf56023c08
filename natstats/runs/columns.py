"""The meaning of every column in the tables of runs, series, comparisons and many networks.

Columns are described only here: docs/reference/columns.md is written from here, and a test compares
this with the files. Frequencies are in cycles per pixel of the map (per frame of clips that are
measured along time), map sizes in pixels, exponents without a unit. Intervals are at the level that
was asked for, 95 % unless told otherwise. An empty cell is a missing number.
"""

from __future__ import annotations

from collections.abc import Mapping

from natstats.files.table_files import TableFile
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.forms import FORMS
from natstats.fits.image_spread import QUANTILES

__all__ = ["TABLES"]

_LAYER = {
    "layer": "name of the module, as `named_modules()` has it; `input.grey` and `input.colour` are "
    "the images",
    "call": "0, or 1, 2, ... for further calls of the same module in one pass",
    "kind": "`conv`, `depthwise`, `linear`, ...; `input` for the images",
    "depth": "layers with weights on the longest path from the images to here, itself included; 0 "
    "for the images",
}

_PLACED = {name: _LAYER[name] for name in ("layer", "call", "depth")}
_NAMED = {name: _LAYER[name] for name in ("layer", "kind", "depth")}


def _ends(name: str, of: str, sep: str = "_") -> dict[str, str]:
    """The two ends of an interval."""
    return {
        f"{name}{sep}low": f"lower end of the interval of {of}",
        f"{name}{sep}high": f"upper end of the interval of {of}",
    }


def _quantiles() -> dict[str, str]:
    found = {}
    for quantile in QUANTILES:
        name, share = f"q{round(100 * quantile):02d}", f"{100 * quantile:g} %"
        found[name] = f"exponent below which {share} of the images are"
        found |= _ends(name, f"`{name}`")
    return found


def _forms() -> dict[str, str]:
    parameters = {
        "floor_share": "share of the floor in the power of the highest ring of the band",
        "cut_off_frequency": "frequency of the cut-off, cycles/pixel; infinite where there is none",
        "break_frequency": "frequency of the break, cycles/pixel",
        "exponent_below_break": "exponent below the break",
        "exponent_above_break": "exponent above the break",
    }
    found = {}
    for form in FORMS.values():
        found[f"aicc_{form.tail}"] = f"AICc of the form *{form.name}*, less that of the best form"
        found[f"rms_{form.tail}"] = (
            "root mean square residual of this form in the natural logarithm of power, over bins"
        )
        for column in form.columns:
            found[column] = parameters.get(column, "exponent of this form")
    return found


_LAYERS = TableFile(
    "layers.csv",
    "each layer, in the order of execution, the images first",
    {
        **_LAYER,
        "order": "place in the order of execution",
        "receptive_field": "side of the receptive field, pixels of the image",
        "channels": "number of channels, that is of maps for each image",
        "height": "height of a map, pixels",
        "width": "width of a map, pixels",
        "stride": "pixels of the image between two pixels of the map",
        "layout": "where the maps are in the output, such as `NCHW`; `by rule` where the probe "
        "could not prove it",
        "n_images": "images that are in the fit",
        "n_rings": "rings of frequencies in the band",
        "exponent": "minus the log-log slope of power, by the estimator that was asked for",
        **_ends("exponent", "`exponent`, for other images of the same sort"),
        **{one.column: f"exponent by `{name}`: {one.meaning}" for name, one in ESTIMATORS.items()},
        "exponent_image_mean": "mean of the exponents of single images",
        "exponent_image_sd": "standard deviation of the exponents of single images",
        "r2": "share of the variance of log power that the fit explains, with the same weight for "
        "every octave",
        "curvature": "coefficient of the squared log frequency in what the fit leaves",
        "curvature_p": "p-value of the test that the curvature is zero",
        "best_form": "form with the smallest AICc (see forms.csv)",
        "aicc_gain": "AICc of the power law, less that of the best form",
        "flags": "what to know before using this row, separated by `; `",
        "law": "`yes`, or why the layer is not in the law",
        "control_mean": "mean exponent with random weights, over their seeds; this column and "
        "those that follow are there only with `--control`",
        "difference": "exponent minus `control_mean`",
        **_ends("difference", "`difference`, for other images and other seeds"),
        "difference_p_corrected": "p-value of the test that the difference is zero, by Holm's rule",
    },
)

_FORMS_FILE = TableFile(
    "forms.csv",
    "each layer",
    {
        **_PLACED,
        "n_bins": "bins of rings that were compared; 0 where no forms could be compared",
        "n_groups": "effective number of groups of images behind the covariance of the bins",
        "best_form": "form with the smallest AICc; empty where none could be judged",
        "aicc_gain": "AICc of the power law, less that of the best form",
        "flag": "flag of the layer where a form is clearly better than the power law",
        **_forms(),
    },
)

_SENSITIVITY = TableFile(
    "sensitivity.csv",
    "each layer, each end of the band, and each step by which that end is moved inwards",
    {
        **_PLACED,
        "side": "the end that is moved: `low` is raised, `high` is lowered",
        "band_low": "lowest ring that is left, cycles/pixel",
        "band_high": "highest ring that is left, cycles/pixel",
        "n_rings": "rings that are left",
        "exponent": "exponent in that band",
        **_ends("exponent", "`exponent`"),
    },
)

_IMAGES = TableFile(
    "image_exponents.csv",
    "each layer; the numbers describe the exponents of its single images",
    {
        **_PLACED,
        "n": "images with an exponent",
        "mean": "mean of their exponents",
        **_ends("mean", "`mean`"),
        "sd": "standard deviation of their exponents",
        **_ends("sd", "`sd`"),
        **_quantiles(),
    },
    "The exponent of the mean spectrum (layers.csv) is not the mean of the images' exponents. A "
    "number is left empty if there are too few images for its interval.",
)

_SKIPPED = TableFile(
    "skipped.csv",
    "each layer that was selected and not measured",
    {
        "layer": "name of the module",
        "kind": "kind of the layer",
        "reason": "why it was not measured",
    },
)

_SPECIFICATIONS = TableFile(
    "specifications.csv",
    "each combination of reasonable choices, sorted by the change over the whole depth",
    {
        "estimator": "name of the estimator",
        "band": "the frequencies that are fitted, in words",
        "layers": "which layers, in words",
        "depth": "name of the measure of depth",
        "map_size": "`left alone`, or `covariate` where the logarithm of the maps' side is a "
        "covariate",
        "n_layers": "layers with an exponent",
        "slope": "slope of the exponent per unit of that depth",
        "change": "slope times the range of depth of all layers in the law, so that all rows can "
        "be compared",
        **_ends("change", "`change`"),
        "p": "p-value of the test that the slope is zero",
        "rank_p": "p-value of the same test by ranks",
        "outcome": "`rises`, `falls` or `no trend`",
    },
)

_CONTROL = TableFile(
    "control.csv",
    "each layer, with `--control random-weights`",
    {
        **_NAMED,
        "exponent": "exponent with the trained weights",
        **_ends("exponent", "`exponent`"),
        "control_mean": "mean exponent with random weights, over their seeds",
        "control_sd": "standard deviation of that exponent over the seeds",
        "difference": "trained minus random weights",
        "low": "lower end of the interval of the difference, for other images and other seeds",
        "high": "upper end of the interval of the difference",
        "p": "p-value of the test that the difference is zero",
        "p_corrected": "the same by Holm's rule, over all layers that count",
        "reason": "why there is no difference, or why it does not count",
        "seed_*": "exponent with the random weights of that seed",
    },
)

_ACCOUNT = TableFile(
    "account.csv",
    "each share of each step, with `natstats explain` or `--explain`",
    {
        "step": "name of the step",
        "layer": "first layer with weights that the step leads to",
        "operation": "what the operation is, in words",
        "kind": "kind of the operation",
        "module": "module that does it",
        "depth": "layers with weights on the path so far",
        "trunk": "whether the step is on the trunk, the path from the images to the last layer",
        "before": "exponent of the maps that go in",
        "after": "exponent of the maps that come out",
        "cause": "what this share is attributed to",
        "part": "part of a cause, such as `Gaussian`; empty for the whole",
        "share": "what it adds to the exponent",
        "low": "lower end of the interval of the share",
        "high": "upper end of the interval of the share",
        "p": "p-value of the test that the share is zero",
        "kernel_exponent": "exponent of white noise after the kernels alone",
        "shuffled_exponent": "the same, with the taps of each kernel shuffled",
    },
    "The shares of a step add up to `after` minus `before`.",
)

_DIFFERENCE = {
    **_NAMED,
    "exponent_a": "exponent in the first run",
    **{
        f"{end}_a": f"{word} end of its interval"
        for end, word in (("low", "lower"), ("high", "upper"))
    },
    "exponent_b": "exponent in the second run",
    **{
        f"{end}_b": f"{word} end of its interval"
        for end, word in (("low", "lower"), ("high", "upper"))
    },
    "difference": "second minus first",
    "low": "lower end of the interval of the difference",
    "high": "upper end of the interval of the difference",
    "p": "p-value of the test that the difference is zero",
    "p_corrected": "the same by Holm's rule, over all layers that count",
    "flags": "flags of either run",
}

_COMPARISON = TableFile("comparison.csv", "each layer that both runs have by name", _DIFFERENCE)

_CHANGE = TableFile(
    "change.csv",
    "each layer; the first run is the first checkpoint, the second is the last",
    _DIFFERENCE,
)

_SERIES = TableFile(
    "series.csv",
    "each checkpoint, in the order of the steps",
    {
        "checkpoint": "name of the checkpoint, and of the folder of its run",
        "step": "the number by which the names of the files differ",
        "verdict": "verdict on the law of this checkpoint",
        "slope": "slope of the law, per unit of depth",
        **_ends("slope", "`slope`"),
        "slope_p": "p-value of the test that the slope is zero",
        "n_layers": "layers in the law",
        "exponent_mean": "mean exponent over layers",
        **_ends("exponent_mean", "`exponent_mean`"),
        "n_exponents": "layers in that mean",
        "best_shape": "shape of the law with the smallest AICc",
        "weights_digest": "digest of the weights, as loaded",
        "file_digest": "SHA-256 of the file",
        "file": "path of the file",
    },
)

_EXPONENTS = TableFile(
    "exponents.csv",
    "each checkpoint and layer, the images included",
    {
        "checkpoint": "name of the checkpoint",
        "step": "its step",
        "layer": _LAYER["layer"],
        "kind": _LAYER["kind"],
        "depth": "depth, in the measure of the law",
        "exponent": "exponent of the layer at this checkpoint",
        "low": "lower end of its interval",
        "high": "upper end of its interval",
        "flags": "flags of the layer",
    },
)

_NETWORKS = TableFile(
    "networks.csv",
    "each network",
    {
        "network": "name of the network in the figure and on the page",
        "path": "folder of its run",
        "family": "family of the network",
        "model": "name of the network",
        "weights": "name of its weights",
        "trained": "`trained`, `random weights` or `not known`",
        "images": "where the images come from",
        "subgroup": "its group, with `--by`",
        "verdict": "verdict on its law, as the run by itself has it",
        "n_layers": "layers in its law",
        "deepest": "depth of its deepest layer",
        "dof": "degrees of freedom of its slope",
        "slope": "slope of its law, per unit of depth",
        **_ends("slope", "`slope`"),
        "slope_error": "standard error of `slope`",
        "weight": "weight of the network in the mean of the slopes per unit of depth",
        "slope_whole": "`slope` times `deepest`: the change over the whole depth",
        **_ends("slope_whole", "`slope_whole`"),
        "slope_whole_error": "standard error of `slope_whole`",
        "weight_whole": "weight of the network in the mean of the slopes over the whole depth",
        "n_seeds": "seeds of random weights that were measured with it",
        "random_slope": "slope with random weights, mean over seeds",
        "difference": "trained minus random weights, slopes of the same layers",
        **_ends("difference", "`difference`"),
        "random_slope_whole": "`random_slope`, over the whole depth",
        "difference_whole": "`difference`, over the whole depth",
        **_ends("difference_whole", "`difference_whole`"),
        "digest": "digest of the weights",
    },
)

_SUBGROUPS = TableFile(
    "subgroups.csv",
    "each group of networks and each of the two slopes: all networks first, then subgroups, then "
    "networks with a control",
    {
        "unit": "`depth` for slopes per unit of depth, `whole` for those over the whole depth",
        "subgroup": "name of the group",
        "n": "networks in it",
        "mean": "their mean slope",
        "low": "lower end of the interval of the mean",
        "high": "upper end of the interval of the mean",
        "p": "p-value of the test that the mean is zero",
        "next_low": "lower end of the interval for the slope of one more network of this group",
        "next_high": "upper end of the interval for the slope of one more network",
        "tau": "standard deviation of the true slopes between networks",
        "i2": "share of the variance of the slopes that is between networks",
        "q": "Cochran's Q: weighted sum of squares of the slopes about their mean",
        "q_p": "p-value of the test that all networks have the same slope",
    },
)

TABLES: Mapping[str, tuple[TableFile, ...]] = {
    "A run": (
        _LAYERS, _FORMS_FILE, _SENSITIVITY, _IMAGES, _SKIPPED, _SPECIFICATIONS, _CONTROL, _ACCOUNT,
    ),
    "A comparison": (_COMPARISON,),
    "A series": (_SERIES, _EXPONENTS, _CHANGE),
    "The law over many networks": (_NETWORKS, _SUBGROUPS),
}  # fmt: skip
"""The tables, by the kind of result whose folder holds them."""
