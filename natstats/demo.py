"""What ships in the package: photographs under free licences and a small trained network."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

from natstats.images.sources import Framing
from natstats.networks.load import Network, load_network

__all__ = ["network", "photographs"]

FRAMING = Framing(224)
"""The centre of each photograph, unscaled."""


def photographs() -> Path:
    """Folder of the photographs; ``LICENSES.md`` in it says whose they are.

    >>> len(list(photographs().glob("*.jpg"))) >= 16
    True
    """
    return Path(str(resources.files("natstats.demo_data"))) / "photos"


def network() -> Network:
    """Return a ResNet-20 trained on textures by ``analyses/train_demo_network.py``.

    >>> network().trained
    True
    """
    weights = photographs().with_name("cifar_resnet20_textures.safetensors")
    loaded = load_network("cifar_resnet20", checkpoint=weights)
    return replace(
        loaded,
        weights=f"trained on textures ({weights.name} in the package)",
        preprocessing=replace(loaded.preprocessing, framing=FRAMING),
        notes=(),
    )
