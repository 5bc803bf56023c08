"""Files that mean harm, or are none: refused in a sentence, walked fast, shown in one line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import natstats
from natstats.networks import fitting
from natstats.networks.checkpoint_files import CheckpointFile, number_checkpoints
from natstats.networks.checkpoints import read_checkpoint
from natstats.networks.load import LARGEST_SEED, load_network
from natstats.networks.state_dicts import opened, state_in
from natstats.networks.zoo import cifar_resnet


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    return write


def shared(leaf, names, depth=60):
    """Each level holds the one below twice: two to the depth paths."""
    for _ in range(depth):
        leaf = dict.fromkeys(names, leaf)
    return leaf


@pytest.mark.parametrize("names", [("model", "net"), ("a", "b"), ("state_dict", "other")])
def test_what_is_shared_is_gone_through_once(save, names):
    weights = {"w": torch.ones(2)}
    path = save(shared(weights, names))
    assert path.stat().st_size < 20_000
    if names == ("a", "b"):
        with pytest.raises(natstats.NatstatsError, match="has several, under a.a"):
            read_checkpoint(path)
    else:
        assert any(key.endswith("w") for key in read_checkpoint(path).state)
    with pytest.raises(natstats.NatstatsError, match="holds none"):
        read_checkpoint(save(shared({"epoch": 3}, names)))
    with pytest.raises(natstats.UsageError, match="checkpoint_key: .*got 'nowhere'"):
        read_checkpoint(path, "nowhere")


def test_what_is_deep_or_inside_itself(save):
    deep = {"w": torch.ones(2)}
    for _ in range(3000):  # far deeper than Python calls functions in one another
        deep = {"x": deep}
    assert [*state_in(opened(deep), Path("c.pth"))[0]] == ["w"]
    loop = {"w": torch.ones(2)}
    loop["config"] = {"parent": loop, "list": [loop]}
    assert [*read_checkpoint(save(loop)).state] == ["w"]
    loop = {"a": {}}
    loop["a"]["b"] = loop
    with pytest.raises(natstats.NatstatsError, match="without an end in sight"):
        read_checkpoint(save(loop))


@pytest.mark.slow
def test_a_module_that_is_shared_or_inside_itself(save):
    part = nn.Linear(1, 1)
    for _ in range(40):
        part = nn.Sequential(part, part)
    with pytest.raises(natstats.NatstatsError, match="without an end in sight"):
        read_checkpoint(save(part))
    module = nn.Sequential(nn.Conv2d(3, 4, 1))
    module._modules["again"] = module
    with pytest.raises(natstats.NatstatsError, match="without an end in sight"):
        read_checkpoint(save(module))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "ckpt"])
def test_pipes_and_devices_are_not_waited_for(tmp_path, suffix):
    path = tmp_path / f"c.{suffix}"
    os.mkfifo(path)
    with pytest.raises(natstats.NatstatsError, match="a named pipe, not a file"):
        read_checkpoint(path)
    with pytest.raises(natstats.NatstatsError, match="a named pipe, not a file"):
        CheckpointFile("c", 0, path).digest()
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(natstats.NatstatsError, match="a character device, not a file"):
        read_checkpoint(path)


FORGED = "x\x1b[2J\nError: all is lost\u202e"


def is_one_line_of_text(text):
    return not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", text) and "\nError" not in text


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {f"{FORGED}.{key}": value for key, value in state.items()},
        lambda state: state | {f"{FORGED}.weight": torch.ones(3)},
        lambda state: {FORGED: state},
        lambda state: {FORGED: state, "other": {"w": torch.ones(2)}},
        lambda state: {FORGED: state, f"{FORGED}2": state},
        lambda state: {FORGED: 3},
        lambda state: {"model": state, "ema": {f"{FORGED}.w": torch.ones(1)}},
        lambda state: {k.replace("fc.", f"{FORGED}."): v for k, v in state.items()},
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_keys_are_shown_in_one_line(save, monkeypatch, change, strict):
    monkeypatch.setattr(fitting, "recognised", lambda *arguments: [])  # which takes seconds
    path = save(change(cifar_resnet(8).state_dict()))
    for key in (None, FORGED, "nowhere"):
        for text in said(path, checkpoint_key=key, strict=strict):
            assert is_one_line_of_text(text), text


def said(path, **options):
    """The message, or the notes and the name of the weights."""
    try:
        network = load_network("cifar_resnet8", checkpoint=path, **options)
    except natstats.NatstatsError as error:
        return [str(error)]
    assert not any("\n" in note for note in network.notes)
    return [*network.notes, network.weights]


def test_names_of_files_are_shown_in_one_line(tmp_path):
    path = tmp_path / f"{FORGED}.pth"
    for content in (None, b"", b"garbage"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(natstats.NatstatsError) as caught:
            load_network("cifar_resnet8", checkpoint=path)
        assert is_one_line_of_text(str(caught.value))
    for name in (str(path), f"{FORGED}:f", f"torch:{FORGED}", FORGED, "a.pth", "a.safetensors"):
        with pytest.raises(natstats.NatstatsError) as caught:
            load_network(name)
        assert is_one_line_of_text(str(caught.value)), str(caught.value)


@pytest.mark.parametrize("name", ["resnet18.pth", "runs/last.ckpt", "w.safetensors", "a/b.th"])
def test_a_file_given_as_model_is_a_checkpoint(name):
    with pytest.raises(natstats.UsageError, match="a file of weights: give it as --checkpoint"):
        load_network(name)


@pytest.mark.parametrize("seed", [LARGEST_SEED + 1, 2**64, 10**30, -1, True, 1.5])
def test_seeds_have_limits(seed):
    with pytest.raises(natstats.UsageError, match="seed: expected a whole number"):
        load_network("cifar_resnet8", weights="none", seed=seed)


def test_the_largest_seed_is_taken():
    assert not load_network("cifar_resnet8", weights="none", seed=LARGEST_SEED).trained


@pytest.mark.parametrize("name", ["wrn_" + "9" * 5000 + "_2", "cifar_resnet1000000000002"])
def test_numbers_in_names_have_limits(name):
    with pytest.raises(natstats.UsageError, match="model: expected"):
        load_network(name, weights="none")


def test_numbers_in_names_of_files_that_are_no_steps(tmp_path):
    paths = [tmp_path / f"epoch_{10**30 + n}.pth" for n in range(2)]
    assert [one.step for one in number_checkpoints(paths)] == [0, 1]
