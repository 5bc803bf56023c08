"""The names that type checkers know of choices are those that are taken when it runs."""

from __future__ import annotations

import inspect
import typing

import pytest

import natstats
from natstats.distill import distill, method
from natstats.distill.training import compiling, recipe_names, recipes
from natstats.fits import options as fit_options
from natstats.measurement import options as measure_options
from natstats.networks import load_options
from natstats.spectra import edge_names

CHOICES = [
    (edge_names.Edges, edge_names.EDGES),
    (fit_options.EstimatorName, fit_options.ESTIMATORS),
    (fit_options.IntervalName, fit_options.INTERVALS),
    (fit_options.DepthName, fit_options.DEPTHS),
    (load_options.InputForm, load_options.INPUT_FORMS),
    (measure_options.NetworkControl, measure_options.NETWORK_CONTROLS),
    (measure_options.Counterfactual, measure_options.MEASURED_COUNTERFACTUALS),
    (recipe_names.Optimizer, recipes.OPTIMIZERS),
    (recipe_names.Schedule, recipes.SCHEDULES),
    (recipe_names.Augmentation, recipes.AUGMENTATIONS),
    (recipe_names.PadMode, recipes.PAD_MODES),
    (recipe_names.Amp, recipes.AMPS),
    (compiling.Compile, compiling.COMPILES),
    (method.Place, method.PLACES),
    (method.Activation, method.ACTIVATIONS),
]


@pytest.mark.parametrize(("literal", "names"), CHOICES)
def test_types_and_lists_name_the_same(literal, names):
    assert typing.get_args(literal) == tuple(names)


def literals_of(function):
    hints = typing.get_type_hints(function)
    return {
        name: kind
        for name, kind in hints.items()
        if any(typing.get_origin(one) is typing.Literal for one in (kind, *typing.get_args(kind)))
    }


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (natstats.MeasureOptions, {"edges", "control", "counterfactual"}),
        (natstats.FitOptions, {"estimator", "interval", "depth"}),
        (load_options.LoadOptions, {"takes"}),
        (natstats.load_network, {"takes"}),
        (natstats.power_spectrum, {"edges"}),
        (natstats.fit_spectrum, {"edges"}),
        (natstats.fit_layers, {"edges"}),
        (natstats.fit_law, {"measure"}),
        (natstats.expected_power, {"edges"}),
        (natstats.Collector.__init__, {"edges"}),
        (natstats.SpectrumAccumulator.__init__, {"edges"}),
        (recipes.Recipe, {"optimizer", "schedule", "augmentation", "pad_mode", "amp"}),
        (distill, {"compile"}),
        (measure_options.NetworkSettings, {"edges", "control", "counterfactual", "takes"}),
    ],
)
def test_public_signatures_have_them(function, names):
    assert literals_of(function).keys() == names


def test_no_choice_of_a_public_signature_is_any_text():
    """What is checked against a list when it runs, under one of these names, is typed."""
    named = {"edges", "estimator", "interval", "takes", "control", "counterfactual"}
    for public in natstats.__all__:
        value = getattr(natstats, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            hints = inspect.signature(value).parameters
            plain = {name for name in named & {*hints} if hints[name].annotation in (str, "str")}
            assert not plain, public
