"""Checkpoint files: wherever the weights are, they are found; nothing in a file is ever run."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pathlib
import pickle
import subprocess
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

import natstats
from natstats.networks.checkpoints import CONTAINERS, read_checkpoint
from natstats.networks.zoo import cifar_resnet


class Calls:
    """Would call a function when unpickled."""

    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


class Settings(dict):
    """A mapping as training frameworks save one: items and attributes."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    return cifar_resnet(8)


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()


@pytest.fixture
def save(tmp_path):
    def write(content, **options):
        path = tmp_path / "c.pth"
        torch.save(content, path, **options)
        return path

    return write


def same(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


@pytest.mark.parametrize("key", CONTAINERS)
def test_every_container_is_opened(save, state, key):
    checkpoint = read_checkpoint(save({"epoch": 3, key: state}))
    assert same(checkpoint.state, state)
    assert checkpoint.notes == ()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])
def test_a_bare_state_dict_in_either_format(save, state, options):
    assert same(read_checkpoint(save(state, **options)).state, state)


def test_safetensors(tmp_path, state):
    path = tmp_path / "c.safetensors"
    safetensors.torch.save_file(state, path)
    assert same(read_checkpoint(path).state, state)


def test_containers_in_containers(save, state):
    assert same(read_checkpoint(save({"state_dict": {"model": state}})).state, state)
    assert same(read_checkpoint(save({"ema": {"module": state, "decay": 0.99}})).state, state)


def reference_script(state):
    """The shape of what torchvision's reference scripts write."""
    averaged = {k: v + 1 if v.is_floating_point() else v for k, v in state.items()}
    return {
        "model": state,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": []},
        "model_ema": averaged,
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs"), betas=(0.9, 0.99)),
        "best": np.float64(0.5),
    }


def test_the_choice_among_several_is_said_and_can_be_made(save, state):
    path = save(reference_script(state))
    chosen = read_checkpoint(path)
    assert same(chosen.state, state)
    assert "under model in the checkpoint; it also has model_ema (--checkpoint-key)" in "".join(
        chosen.notes
    )
    averaged = read_checkpoint(path, "model_ema")
    assert torch.equal(averaged.state["conv1.weight"], state["conv1.weight"] + 1)


def test_a_key_can_be_the_start_of_keys_or_a_place_of_any_name(save, state):
    path = save(
        {"state_dict": {f"student.{k}": v for k, v in state.items()} | {"t.w": state["fc.bias"]}}
    )
    assert same(read_checkpoint(path, "student").state, state)
    path = save({"nets": {"G": state, "D": {"w": torch.zeros(1)}}})
    assert same(read_checkpoint(path, "nets.G").state, state)
    with pytest.raises(natstats.UsageError, match="checkpoint_key: .*got 'nets.E'.*it has nets"):
        read_checkpoint(path, "nets.E")


def test_a_single_state_dict_of_any_name_is_taken_and_said(save, state):
    found = read_checkpoint(save({"generator": state, "optimizer_g": {"w": torch.ones(1)}}))
    assert same(found.state, state)
    assert found.notes == ("the weights are those under generator in the checkpoint",)
    with pytest.raises(natstats.NatstatsError, match="several, under G, D; .*--checkpoint-key"):
        read_checkpoint(save({"G": state, "D": state}))


def test_objects_that_are_no_weights_are_left_unread_and_named(save, state):
    settings = Settings(lr=0.1)
    settings.frozen = True
    content = {
        "state_dict": state,
        "hyper_parameters": settings,
        "counts": collections.defaultdict(list, a=[1]),
        "activation": functools.partial(nn.GELU, approximate="tanh"),
        "array": np.ones(3),
        **reference_script(state),
    }
    checkpoint = read_checkpoint(save(content))
    assert same(checkpoint.state, state)
    assert "argparse.Namespace" in checkpoint.notes[-1]
    assert "were not read" in checkpoint.notes[-1]


def test_a_module_that_was_saved_whole_gives_its_state_dict(save, network, state):
    """Of the pickled module, only tensors are read; its classes are not even imported."""
    assert same(read_checkpoint(save(network)).state, state)
    assert same(read_checkpoint(save({"epoch": 1, "model": network})).state, state)
    buffers = nn.Sequential(nn.BatchNorm2d(3))
    buffers[0].register_buffer("scratch", torch.zeros(2), persistent=False)
    assert same(read_checkpoint(save(buffers)).state, buffers.state_dict())


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Calls(print, "unpickled"), "builtins.print"),
        (Calls(eval, "print('unpickled')"), "builtins.eval"),
        (Calls(os.system, "echo unpickled"), "system"),
        (Calls(getattr, "text", "upper"), "builtins.getattr"),
    ],
)
def test_functions_to_call_are_refused_by_name(save, state, capfd, payload, name):
    with pytest.raises(natstats.NatstatsError, match=rf"needs \S*{name} .*can run any code"):
        read_checkpoint(save({"state_dict": state, "config": payload}))
    assert "unpickled" not in capfd.readouterr().out


def test_no_class_of_a_file_is_called(save, state, tmp_path):
    target = tmp_path / "made"
    payload = Calls(subprocess.Popen, ["touch", str(target)])
    checkpoint = read_checkpoint(save({"state_dict": state, "config": payload}))
    assert same(checkpoint.state, state)
    assert "Popen" in checkpoint.notes[0]
    assert not target.exists()


def test_an_old_file_with_other_objects_says_which(save, state):
    content = {"model": state, "args": argparse.Namespace(lr=1)}
    path = save(content, _use_new_zipfile_serialization=False)
    with pytest.raises(natstats.NatstatsError, match="needs argparse.Namespace to be unpickled"):
        read_checkpoint(path)


def test_reading_leaves_the_list_of_safe_classes_as_it_was(save, state):
    before = set(torch.serialization.get_safe_globals())
    read_checkpoint(save(reference_script(state)))
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"a": 1})])
@pytest.mark.parametrize("suffix", ["pth", "safetensors", "ckpt"])
def test_a_damaged_file_is_named(tmp_path, content, suffix):
    path = tmp_path / f"c.{suffix}"
    path.write_bytes(content)
    with pytest.raises(natstats.NatstatsError, match=r"checkpoint: .*c\."):
        read_checkpoint(path)


def test_a_file_that_was_cut_off_is_named(save, state):
    path = save(state)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(natstats.NatstatsError, match=r"c\.pth"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds a list"),
        (torch.ones(3), "holds a Tensor"),
        ({}, "holds none"),
        ({"epoch": 3, "lr": 0.1}, r"holds none \(it has epoch, lr\)"),
        ({"optimizer": {"w": torch.ones(1)}}, "holds none"),
        (OrderedDict({1: torch.ones(1)}), "holds none"),
    ],
)
def test_what_is_no_state_dict_is_described(save, content, words):
    with pytest.raises(
        natstats.NatstatsError, match=f"checkpoint: expected a state dict; .*{words}"
    ):
        read_checkpoint(save(content))


def test_torchscript_is_refused_with_what_to_save(tmp_path, network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 3))).save(str(tmp_path / "c.pt"))
        with pytest.raises(natstats.NatstatsError, match=r"TorchScript.*state_dict\(\)"):
            read_checkpoint(tmp_path / "c.pt")


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "nowhere.pth", tmp_path):
        with pytest.raises(natstats.NatstatsError, match="there is none at"):
            read_checkpoint(path)


def test_what_is_inside_itself_or_of_a_wrong_kind_is_refused(tmp_path, save):
    loop = {}
    loop["model"] = loop
    with pytest.raises(natstats.NatstatsError, match="without an end in sight"):
        read_checkpoint(save(loop))
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    module.__dict__["_modules"], module.__dict__["_parameters"] = 5, [1]
    with pytest.raises(natstats.NatstatsError, match="holds none"):
        read_checkpoint(save(module))
    (tmp_path / "note.pth").write_text("hello")
    with pytest.raises(natstats.NatstatsError, match="is damaged, or was not written by torch"):
        read_checkpoint(tmp_path / "note.pth")
