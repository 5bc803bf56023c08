"""Every field of a state is checked before it is taken up, and an error names it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.files.ownership import STATE
from natstats.files.state_files import read_state
from natstats.measurement.pass_sums import PassSums
from natstats.measurement.state_schema import check_state


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    """What a measurement has kept that was cut."""

    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 8:
            raise StopError

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    images = torch.rand(12, 3, 16, 16)
    out = tmp_path_factory.mktemp("state") / "run"
    with pytest.raises(StopError):
        natstats.measure(
            model, images, out=out, progress=stop, save_every=0.0, batch_size=4, n_groups=8,
            explain=True,
        )  # fmt: skip
    return read_state(out / STATE / "trained.safetensors")


ARRAYS = "inputs/sums/input.grey/"


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("facts/options/n_groups", 10**9, "n_groups: expected a whole number"),
        ("facts/options/n_groups", 9, "expected 9 groups"),
        ("facts/options/edges", "x", "edges: expected a kind of edges"),
        ("facts/options/more", np.zeros(2), "facts: expected plain values"),
        ("facts/example", 12, "reading.numbers: expected numbers below 12"),
        ("facts/name", None, "facts.name: expected a text; got null"),
        ("reading/n_read", 10**6, "n_read: expected at most all images"),
        ("reading/n_read", -1, "n_read: expected a whole number of at least 0"),
        ("reading/numbers", np.arange(8) + 10**6, "numbers: expected numbers below 12"),
        ("reading/numbers", np.array([0, 0, *range(2, 8)]), "numbers: expected an array of int64"),
        ("reading/ended", [[0, float("inf"), []]], "ended: expected for each shard its place"),
        ("reading/ended", [[0, -7, []]], "ended: expected for each shard its place"),
        ("reading/ended", [[0, 10**30, []]], "ended: expected for each shard its place"),
        ("reading/ended", [[0, 8, []]], "ended: expected each of 0 shards at most once"),
        ("reading/facts/n_shards", "x", "n_shards: expected"),
        ("reading/facts/n_shards", 0, "n_shards: expected"),
        ("reading/numbers", np.array([-1] * 8), "numbers: expected an array of int64"),
        ("reading/contents", np.zeros((7, 32), np.uint8), "contents: expected one each"),
        ("reading/contents", np.zeros((8, 31), np.uint8), "contents: expected an array of uint8"),
        ("reading/left_out", [[0, 1]], "left_out: expected pairs of a number and a text"),
        (f"{ARRAYS}height", 2**40, "height: expected a whole number of at least 5"),
        (f"{ARRAYS}width", 3, "expected a map of at most"),
        (f"{ARRAYS}n_groups", 7, "expected 8 groups"),
        (f"{ARRAYS}numbers", [[5, 2]], "numbers: expected pairs of whole numbers that rise"),
        (f"{ARRAYS}sums", np.full((8, 19), np.nan), "sums: expected an array of float64, finite"),
        (f"{ARRAYS}sums", np.full((8, 19), -1.0), "sums: expected an array of float64, finite"),
        (f"{ARRAYS}sums", np.full((8, 19), 1e300), "sums: expected counts of images"),
        (f"{ARRAYS}sums", np.zeros((8, 18)), r"sums: expected shape \(8, 19\)"),
        (f"{ARRAYS}image_power", np.zeros((3, 8), np.float32), "image_power: expected shape"),
        ("inputs/channels", {}, "inputs.channels: expected those of all sums"),
        ("collected/kinds", {}, "collected.sums.0.: expected a module with a kind"),
        ("collected/never_called", {"x": "y"}, "never_called: expected modules with a kind"),
        ("collected/sums/0/key", ["0", "0", ""], "key: expected a name, a number and a name"),
        ("collected/sums/0/sizes/0/stride", "x", "stride: expected a number, or NaN"),
        ("collected/calls/0/depth", 1.5, "depth: expected a whole number"),
        ("account_sums/moments/0/power", np.zeros((2, 2)), "power: expected an array of finite"),
        ("account_sums/sums/offsets", [[0, "x"]], "offsets: expected pairs"),
        ("smallest", 10**9, "smallest: expected a whole number"),
        ("seconds", float("nan"), "seconds: expected a number"),
        ("is_whole", 1, "is_whole: expected true or false"),
        ("account", [1], "account: expected an array of uint8"),
    ],
)
def test_what_is_wrong_is_named(state, place, value, words):
    check_state(state)
    changed = copy.deepcopy(state)
    inside = changed
    *parents, name = place.split("/")
    for one in parents:
        inside = inside[int(one) if isinstance(inside, list) else one]
    assert isinstance(inside, list) or name in inside or name == "more"
    inside[name] = value
    with pytest.raises(natstats.NatstatsError, match=f"^state, .*{words}"):
        PassSums.from_state(changed)


def test_the_ends_of_shards_are_those_of_the_stream(state):
    facts = {**state["reading"]["facts"], "n_images": None, "n_shards": 2}
    for ended, is_good in (
        ([[0, 5, []], [1, 3, ["a.heic"]]], True), ([[0, 5, []], [0, 5, []]], False),
        ([[2, 5, []]], False),
    ):  # fmt: skip
        changed = {**state, "reading": {**state["reading"], "facts": facts, "ended": ended}}
        if is_good:
            assert PassSums.from_state(changed).reading.n_images == 8
        else:
            with pytest.raises(natstats.NatstatsError, match="each of 2 shards at most once"):
                check_state(changed)


def test_what_a_later_version_adds_is_left_alone(state):
    more = {**state, "later": 1, "reading": {**state["reading"], "later": 2}}
    assert PassSums.from_state(more).reading.n_read == 8


def test_the_number_of_images_may_not_be_known(state):
    reading = {**state["reading"], "facts": {**state["reading"]["facts"], "n_images": None}}
    check_state({**state, "reading": reading})
