"""Networks by name: torchvision's builders and our own, with published weights or a checkpoint."""

from __future__ import annotations

import copy
import hashlib
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks, networks
from natstats.errors import NatstatsError, UsageError
from natstats.images import Framing
from natstats.input_forms import arguments

__all__ = [
    "Network",
    "Preprocessing",
    "build_network",
    "load_network",
    "network_names",
    "read_checkpoint",
    "usable_device",
    "with_checkpoint",
]

_NESTED = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of a photograph.

    Attributes:
        framing: scaling and cutting.
        mean: subtracted from each channel in [0, 1].
        std: that each channel is divided by then.
    """

    framing: Framing = field(default_factory=lambda: Framing(224, 256))
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def normalize(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) or clips in [0, 1] as the network expects them."""
        shape = (1, -1, *[1] * (images.ndim - 2))
        mean = images.new_tensor(self.mean).view(shape)
        return (images - mean) / images.new_tensor(self.std).view(shape)


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to be measured.

    Attributes:
        model: in eval mode, on its device.
        name: the builder's.
        weights: where the weights come from, in words.
        trained: False for a network with random weights.
        preprocessing: what it expects of a photograph.
        notes: what a reader of the results must know.
        takes: in what form it takes images, one of :data:`natstats.input_forms.FORMS`.
    """

    model: nn.Module
    name: str
    weights: str
    trained: bool = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    notes: tuple[str, ...] = ()
    takes: str = "images"

    def arguments(self, images: Tensor) -> tuple[Any, ...]:
        """Arguments of the forward pass, see :func:`natstats.input_forms.arguments`."""
        return arguments(self.takes, images)

    def digest(self) -> str:
        """SHA-256 over names, shapes and bytes of all parameters and buffers, 16 hex digits."""
        sha = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            if isinstance(tensor, Tensor):
                sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                sha.update(flat.view(torch.uint8).numpy().data)
        return sha.hexdigest()[:16]


def usable_device(device: torch.device | str | None) -> torch.device:
    """Return a device that tensors can be put on; None stands for CUDA if there is any, else CPU.

    Raises:
        UsageError: there is no such device here.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise UsageError(
            f"device: expected a device of this machine, such as cpu or cuda; got {str(device)!r}: "
            f"{reason}"
        ) from None
    return torch.device(device)


def network_names() -> list[str]:
    """Names that :func:`load_network` knows: torchvision's builders and our own."""
    import torchvision.models

    return [*torchvision.models.list_models(), *networks.NETWORKS]


def load_network(
    name: str,
    *,
    weights: str = "default",
    checkpoint: str | Path | None = None,
    size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = "cpu",
) -> Network:
    """Build a network and give it its weights.

    Args:
        name: of a torchvision builder, or of a network of :mod:`natstats.networks`.
        weights: ``default`` (the newest published weights), the name of published weights such as
            ``IMAGENET1K_V1``, or ``none`` for the untrained network.
        checkpoint: a ``.pth``, ``.pt`` or ``.safetensors`` file, in place of `weights`.
        size: side of the images, pixels, in place of what the weights were published with.
        seed: of the random weights.
        device: where to put it; None for CUDA if there is any, else the CPU.

    Raises:
        UsageError: unknown name or weights, or both weights and a checkpoint.
        NatstatsError: the weights cannot be had, or do not fit.
    """
    checks.one_of("model", name, network_names())
    device = usable_device(device)
    checks.positive_int("seed", seed, 0)
    preprocessing, published = _published(name, weights)
    if size is not None:
        checks.positive_int("size", size, 5)
        old = preprocessing.framing
        resize = round(size * (old.resize or old.size) / old.size)
        framing = Framing(size, resize, old.interpolation)
        preprocessing = Preprocessing(framing, preprocessing.mean, preprocessing.std)

    if checkpoint is not None:
        if weights not in ("default", "none"):
            raise UsageError(f"weights: expected none beside a checkpoint; got {weights!r}")
        state = read_checkpoint(Path(checkpoint))
        model = _build(name, seed, _n_classes(name, state))
        notes = _load(model, state, str(checkpoint))
        label, trained = f"checkpoint {checkpoint}", True
    elif weights == "none" or published is None:
        if weights != "none":
            raise UsageError(
                f"weights: expected none or a checkpoint file for {name}, which has no published "
                f"weights; got {weights!r}"
            )
        model, label, trained = _build(name, seed), f"none (random, seed {seed})", False
        notes = ["the network is untrained: its weights are random, as was asked for"]
    else:
        model, notes = _download(name, published), []
        label, trained = str(published), True
    takes = _form_of(name)
    if takes == "list" and size is None:
        preprocessing = replace(preprocessing, framing=_detector_framing(model))
    model = model.eval().to(device)
    return Network(model, name, label, trained, preprocessing, tuple(notes), takes)


def _form_of(name: str) -> str:
    """In what form the network of a torchvision builder takes its images."""
    if name in networks.NETWORKS:
        return "images"
    import torchvision.models

    home = torchvision.models.get_model_builder(name).__module__
    forms = {".detection.": "list", ".video.": "clips", ".optical_flow.": "pairs"}
    return next((form for part, form in forms.items() if part in home), "images")


def _detector_framing(model: nn.Module) -> Framing:
    """The size that a detector would bring images to by itself, so that it has nothing to do."""
    transform = model.get_submodule("transform")
    sides: Any = getattr(transform, "fixed_size", None) or getattr(transform, "min_size", (800,))
    return Framing(int(min(sides)), int(min(sides)))


def _published(name: str, weights: str) -> tuple[Preprocessing, Any]:
    """Preprocessing and entry of published weights; the default's when none are to be loaded."""
    if name in networks.NETWORKS:
        return Preprocessing(Framing(32, 32)), None
    import torchvision.models

    entries = torchvision.models.get_model_weights(name)
    if len(entries) == 0:
        return Preprocessing(), None
    if weights in ("default", "none"):
        entry = entries["DEFAULT"]
    else:
        entry = entries[checks.one_of("weights", weights, [member.name for member in entries])]
    preset = entry.transforms()
    crop, resize = (getattr(preset, key, None) for key in ("crop_size", "resize_size"))
    sides = [side[0] for side in (crop, resize) if isinstance(side, list)]
    fallback = Preprocessing()
    framing = (
        Framing(min(sides), max(sides), preset.interpolation.value) if sides else fallback.framing
    )
    plain = {  # what the presets of these do in code, and detectors in the model
        "OpticalFlow": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "ObjectDetection": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    }.get(type(preset).__name__, (fallback.mean, fallback.std))
    mean, std = (
        tuple(getattr(preset, key, plain[place])) for place, key in enumerate(("mean", "std"))
    )
    return Preprocessing(framing, mean, std), entry


def _build(name: str, seed: int, num_classes: int | None = None) -> nn.Module:
    """A network with random weights, the same for the same seed."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Some builders announce that a default of theirs will change.
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        if name in networks.NETWORKS:
            builder = networks.NETWORKS[name]
            model = builder() if num_classes is None else builder(num_classes=num_classes)
        else:
            import torchvision.models

            model = torchvision.models.get_model(name, weights=None, **_fixed_arguments(name))
    assert isinstance(model, nn.Module)
    return model


def _fixed_arguments(name: str) -> dict[str, Any]:
    """What a builder must be told: nothing else may be downloaded, a quantised network is one."""
    import inspect

    import torchvision.models

    known = inspect.signature(torchvision.models.get_model_builder(name)).parameters
    fixed = {"weights_backbone": None, "quantize": True}
    return {key: value for key, value in fixed.items() if key in known}


def build_network(name: str, seed: int, like: Mapping[str, Tensor] | None = None) -> nn.Module:
    """A network with random weights, with as many classes as the state dict `like` has.

    Raises:
        UsageError: unknown name.
    """
    checks.one_of("model", name, network_names())
    return _build(name, seed, None if like is None else _n_classes(name, like))


def with_checkpoint(network: Network, path: Path) -> Network:
    """A copy of a network with the weights in a file; the network is left as it is.

    Its notes spoke of the weights that it had, and do not come along.

    Raises:
        NatstatsError: the weights cannot be had, or do not fit.
    """
    model = copy.deepcopy(network.model)
    notes = _load(model, read_checkpoint(path), str(path))
    label = f"checkpoint {path}"
    return replace(network, model=model, weights=label, trained=True, notes=tuple(notes))


def _n_classes(name: str, state: Mapping[str, Tensor]) -> int | None:
    """Classes of a checkpoint of one of our own networks, whose classifier is called ``fc``."""
    if name in networks.NETWORKS and "fc.weight" in state:
        return len(state["fc.weight"])
    return None


def _download(name: str, entry: Any) -> nn.Module:
    import torchvision.models

    try:
        model = torchvision.models.get_model(name, weights=entry, **_fixed_arguments(name))
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a bad hash a RuntimeError
        raise NatstatsError(
            f"weights: expected to download {entry} from {entry.url}; got {error}. Give a file "
            "with --checkpoint, or take the untrained network with --weights none"
        ) from error
    assert isinstance(model, nn.Module)
    return model


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the state dict in a file, without running any code that the file may hold.

    The state dict may stand bare or under ``state_dict``, ``model_state_dict`` or ``model``;
    the prefixes that data-parallel and compiled models leave are taken off.

    Raises:
        NatstatsError: there is no such file, it cannot be read, or it holds more than tensors.
    """
    if not path.is_file():
        raise NatstatsError(f"checkpoint: expected a file; there is none at {path}")
    try:
        if path.suffix == ".safetensors":
            import safetensors.torch

            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise NatstatsError(
            f"checkpoint: expected tensors only; {path} needs unpickling of other objects or is "
            "damaged, and is refused because unpickling can run any code"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise NatstatsError(
            f"checkpoint: expected a .pth, .pt or .safetensors file; "
            f"{path} cannot be read: {reason}"
        ) from None
    for key in _NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not any(isinstance(v, Tensor) for v in state.values()):
        raise NatstatsError(f"checkpoint: expected a state dict; {path} holds none")
    return {
        _without_prefixes(str(key)): value
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def _without_prefixes(key: str) -> str:
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix)
    return key


def _classifier_keys(model: nn.Module) -> set[str]:
    """Keys of the linear layers after the last convolution; the spectra do not see them."""
    named = list(model.named_modules())
    convs = [i for i, (_, m) in enumerate(named) if isinstance(m, nn.modules.conv._ConvNd)]
    after = named[convs[-1] + 1 :] if convs else []
    return {
        f"{name}.{key}"
        for name, module in after
        if isinstance(module, nn.Linear)
        for key in module.state_dict()
    }


def _load(model: nn.Module, state: dict[str, Tensor], source: str) -> list[str]:
    """Load a state dict that may differ in the classifier only; return notes for the reader."""
    own = model.state_dict()
    classifier = _classifier_keys(model)
    # A counter of batches is bookkeeping of training; old checkpoints lack it.
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unknown = [k for k in state if k not in own]
    shapes = [k for k in state if k in own and state[k].shape != own[k].shape]
    bad_missing = [k for k in missing if k not in classifier]
    bad_shapes = [k for k in shapes if k not in classifier]
    if bad_missing or bad_shapes or (unknown and missing):
        raise NatstatsError(
            f"checkpoint: expected the {len(own)} keys of the model in {source}; "
            + "; ".join(
                f"{len(keys)} {what} ({_few(keys)})"
                for keys, what in (
                    (missing, "missing"),
                    (unknown, "unknown"),
                    (shapes, "of another shape"),
                )
                if keys
            )
        )
    notes = []
    if missing or shapes:
        notes.append(
            f"the checkpoint lacks a fitting classifier ({_few([*missing, *shapes])}); it is left "
            "at random weights, and no measured map depends on it"
        )
    if unknown:
        notes.append(
            f"{len(unknown)} keys of the checkpoint are not in the model ({_few(unknown)})"
        )
    usable = {k: v for k, v in state.items() if k in own and k not in shapes}
    model.load_state_dict(usable, strict=False)
    return notes


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
