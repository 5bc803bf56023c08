"""How to measure is one record: checked, kept in the run, and shared by all that measure."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from torch import nn

import natstats
from natstats import MeasureOptions, UsageError
from natstats.measurement.options import ImageSettings, NetworkSettings, SeriesSettings
from natstats.networks.load_options import LoadOptions

IMAGES = torch.rand(8, 1, 12, 12)
OTHER = {
    "layers": ["conv", "0"], "layouts": {"0": "NCHW"}, "temporal": True, "probe": False,
    "edges": "hann", "n_groups": 9, "batch_size": 3, "workers": 1, "limit": 5, "until": 0.05,
    "seed": 7,
    "size": 64, "crop": 32, "normalize": False, "frames": 4, "amp": True,
    "control": "random-weights", "control_seeds": 2,
}  # fmt: skip
EXPLAINED = {**OTHER, "temporal": False, "explain": True, "counterfactual": "shuffle-channels"}
del EXPLAINED["until"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)).eval()


def test_options_survive_their_plain_values():
    assert {*EXPLAINED, *OTHER} == {one.name for one in fields(MeasureOptions)}
    for options in (MeasureOptions(), MeasureOptions(**OTHER), MeasureOptions(**EXPLAINED)):
        assert MeasureOptions.from_dict(options.to_dict()) == options
    for values in (OTHER, EXPLAINED):
        assert MeasureOptions(**values).to_dict() == values
        assert list(MeasureOptions(**values).to_dict()) == list(values)


@pytest.mark.slow
def test_a_record_and_its_fields_by_name_measure_alike():
    given = {"n_groups": 8, "edges": "hann", "seed": 2, "batch_size": 4}
    by_name = natstats.measure(network(), IMAGES, **given)
    by_record = natstats.measure(network(), IMAGES, options=MeasureOptions(**given))
    assert by_name.layers.equals(by_record.layers)
    assert by_name.info["options"] == by_record.info["options"]


def test_a_run_keeps_what_it_takes_to_be_measured_again():
    run = natstats.measure(network(), IMAGES, n_groups=8, layers=["0"])
    assert list(run.info["options"]) == [name for name in OTHER if name != "until"][:-2]
    assert run.info["options"] == {
        **MeasureOptions().to_dict(), "n_groups": 8, "layers": ["0"], "workers": 0
    }  # fmt: skip
    options = MeasureOptions.from_dict(run.info["options"])
    again = natstats.measure(network(), IMAGES, options=options)
    assert again.layers.equals(run.layers)
    assert again.info["options"] == run.info["options"]


def test_a_control_is_measured_as_the_network_without_choosing_again():
    run = natstats.measure(
        natstats.Network(network(), "small", "as given"), IMAGES, n_groups=4, edges="hann", limit=6,
        seed=3, control="random-weights", control_seeds=2,
    )  # fmt: skip
    assert run.info["options"]["control_seeds"] == 2
    assert [one.seed for one in run.random_weights] == [3, 4]
    for one in run.random_weights:
        assert one.info["options"] == {
            **MeasureOptions().to_dict(), "n_groups": 4, "edges": "hann", "workers": 0
        }  # fmt: skip
        assert one.info["images"]["n_images"] == 6


def test_images_alone_record_their_own_options():
    run = natstats.measure_images(IMAGES, options=MeasureOptions(n_groups=8, seed=1))
    assert list(run.info["options"]) == [
        "edges", "temporal", "n_groups", "batch_size", "workers", "limit", "seed", "size", "crop",
        "frames",
    ]  # fmt: skip
    with pytest.raises(UsageError, match=r"^layers: expected only for a network.*'conv'"):
        natstats.measure_images(IMAGES, options=MeasureOptions(layers="conv"))


@pytest.mark.parametrize(
    "measure",
    [
        lambda **given: natstats.measure(network(), IMAGES, **given),
        lambda **given: natstats.measure_images(IMAGES, **given),
        lambda **given: natstats.measure_series(network(), "*.pth", IMAGES, **given),
    ],
)
def test_a_record_and_fields_together_are_refused(measure):
    with pytest.raises(UsageError, match=r"^options: .*got both \(seed\)"):
        measure(options=MeasureOptions(), seed=1)
    with pytest.raises(UsageError, match=r"^options: expected a MeasureOptions; got a dict"):
        measure(options={"seed": 1})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_groups": 0}, "n_groups: .*at least 1; got 0"),
        ({"batch_size": None}, "batch_size: .*got None"),
        ({"seed": 2**32}, "seed: .*at most 4294967295"),
        ({"size": 4}, "size: .*at least 5; got 4"),
        ({"limit": "many"}, "limit: .*got 'many'"),
        ({"amp": "bf16"}, "amp: expected True or False"),
        ({"control": "noise"}, "control: expected one of random-weights"),
        ({"control": "random-weights", "control_seeds": 1}, "control_seeds: .*at least 2; got 1"),
    ],
)
def test_what_is_out_of_range_is_named(given, words):
    with pytest.raises(UsageError, match=f"^{words}"):
        MeasureOptions(**given)
    with pytest.raises(UsageError, match=f"^{words}"):
        natstats.measure(network(), IMAGES, **given)


def test_an_unknown_argument_is_an_error_as_of_any_function():
    with pytest.raises(TypeError, match=r"measure\(\) got an unexpected keyword argument 'edge'"):
        natstats.measure(network(), IMAGES, edge="sine")
    with pytest.raises(TypeError, match=r"measure_images\(\) got an unexpected .*'layers'"):
        natstats.measure_images(IMAGES, layers="conv")


def test_signatures_and_types_know_every_field():
    loading, measuring = ({one.name for one in fields(r)} for r in (LoadOptions, MeasureOptions))
    assert {*NetworkSettings.__annotations__} == loading | measuring
    assert {*SeriesSettings.__annotations__} == (loading | measuring) - {"checkpoint"}
    assert {*ImageSettings.__annotations__} < measuring
    usual = {one.name: one.default for r in (LoadOptions, MeasureOptions) for one in fields(r)}
    types = {one.name: one.type for r in (LoadOptions, MeasureOptions) for one in fields(r)}
    for settings in (NetworkSettings, ImageSettings):
        for name, kind in settings.__annotations__.items():
            assert getattr(kind, "__forward_arg__", kind) == types[name], name
    shown = inspect.signature(natstats.measure).parameters
    assert {name: shown[name].default for name in usual} == usual


def test_records_of_options_load_neither_numpy_nor_torch():
    code = (
        "import sys, natstats.measurement.options, natstats.networks.load_options;"
        "sys.exit(any(one in sys.modules for one in ('numpy', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
