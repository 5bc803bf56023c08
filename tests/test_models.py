"""Networks by name, and checkpoints that fit, nearly fit, do not fit, or are not to be trusted."""

from __future__ import annotations

import pickle

import pytest
import safetensors.torch
import torch
import torchvision.models

import natstats
from natstats.images import Framing
from natstats.models import load_network, read_checkpoint

NAME = "squeezenet1_1"


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None).state_dict()


def load(path):
    return load_network("resnet18", checkpoint=path)


def test_random_weights_are_on_purpose_and_the_same_for_a_seed():
    one, again, other = (load_network(NAME, weights="none", seed=s) for s in (0, 0, 1))
    assert not one.trained
    assert "untrained" in one.notes[0]
    assert one.digest() == again.digest() != other.digest()


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    load_network(NAME, weights="none", seed=5)
    assert torch.equal(torch.rand(2), expected)


def test_preprocessing_is_that_of_the_published_weights():
    plain = load_network("resnet50", weights="none")  # IMAGENET1K_V2: crop 224, resize 232
    assert plain.preprocessing.framing == Framing(224, 232, "bilinear")
    sized = load_network("resnet50", weights="none", size=112)
    assert sized.preprocessing.framing == Framing(112, 116, "bilinear")


def test_normalisation():
    images = torch.rand(2, 3, 4, 4)
    preprocessing = natstats.Preprocessing()
    back = preprocessing.normalize(images) * torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    torch.testing.assert_close(back + torch.tensor(preprocessing.mean).view(1, 3, 1, 1), images)


@pytest.mark.parametrize("form", ["bare", "state_dict", "model", "prefixed", "safetensors"])
def test_checkpoints_in_every_form_load_the_same_weights(tmp_path, state, form):
    path = tmp_path / "c.pth"
    if form == "safetensors":
        path = tmp_path / "c.safetensors"
        safetensors.torch.save_file(state, path)
    elif form == "bare":
        torch.save(state, path)
    elif form == "prefixed":
        torch.save({f"module._orig_mod.{k}": v for k, v in state.items()}, path)
    else:
        torch.save({form: state, "epoch": 3}, path)
    loaded = load(path)
    assert loaded.trained
    for key, value in loaded.model.state_dict().items():
        assert torch.equal(value, state[key])


def test_a_checkpoint_without_its_classifier_is_used_with_a_note(tmp_path, state):
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, tmp_path / "c.pth")
    assert "fc.weight" in load(tmp_path / "c.pth").notes[0]


def test_another_number_of_classes_is_used_with_a_note(tmp_path, state):
    torch.save(
        state | {"fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}, tmp_path / "c.pth"
    )
    assert "classifier" in load(tmp_path / "c.pth").notes[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if "layer3" not in k}, r"missing \(layer3"),
        (lambda s: s | {"conv1.weight": torch.zeros(1)}, r"1 of another shape \(conv1.weight\)"),
        (lambda s: {"x." + k: v for k, v in s.items()}, r"unknown \(x\.conv1\.weight"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_how_many_keys_and_which(
    tmp_path, state, change, words
):
    torch.save(change(state), tmp_path / "c.pth")
    with pytest.raises(natstats.NatstatsError, match=words) as caught:
        load(tmp_path / "c.pth")
    assert caught.value.exit_code == 1


def test_code_is_never_unpickled(tmp_path, capsys):
    torch.save({"state_dict": {"w": torch.zeros(1)}, "config": Payload()}, tmp_path / "c.pth")
    with pytest.raises(natstats.NatstatsError, match="unpickling of other objects"):
        read_checkpoint(tmp_path / "c.pth")
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"garbage", pickle.dumps({"a": 1})])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_damaged_file_is_named(tmp_path, content, suffix):
    path = tmp_path / f"c.{suffix}"
    path.write_bytes(content)
    with pytest.raises(natstats.NatstatsError, match=r"checkpoint: .*c\."):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: load_network("resnet51"), "model: .*did you mean resnet50"),
        (lambda: load_network(NAME, weights="IMAGENET"), "weights: .*IMAGENET1K_V1"),
        (lambda: load_network("cifar_resnet20"), "no published weights"),
        (lambda: load_network(NAME, checkpoint="nowhere.pth"), "there is none at nowhere.pth"),
        (lambda: load_network(NAME, weights="none", size=2), "size: .*at least 5; got 2"),
        (
            lambda: load_network(NAME, weights="IMAGENET1K_V1", checkpoint="c.pth"),
            "weights: expected none beside a checkpoint",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(natstats.NatstatsError, match=words):
        call()


def test_weights_that_cannot_be_downloaded_say_how_to_give_a_file(monkeypatch, tmp_path):
    def no_network(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(natstats.NatstatsError, match="--checkpoint.*--weights none") as caught:
        load_network(NAME)
    assert "Name or service not known" in str(caught.value)
