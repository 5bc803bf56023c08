"""Small files that promise much: refused by what they say, before memory or time is taken."""

from __future__ import annotations

import contextlib
import io
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.checks import MOST_PIXELS
from natstats.files.array_files import MOST_BYTES, Arrays
from natstats.files.config_files import read_config
from natstats.files.csv_files import read_csv
from natstats.files.json_files import read_json
from natstats.files.torch_files import is_spread, load_plain
from natstats.images.sources import open_images
from natstats.networks.checkpoints import read_checkpoint
from natstats.networks.load import load_network
from natstats.networks.zoo import cifar_resnet


def packed(path, content):
    """The same file with its parts packed."""
    torch.save(content, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    assert path.stat().st_size < 100_000
    return path


def test_packed_zeros_are_no_weights_and_no_images(tmp_path):
    path = packed(tmp_path / "c.pth", {"w": torch.zeros(1000, 3, 40, 40)})
    with pytest.raises(natstats.NatstatsError, match=r"c\.pth cannot be read: it is packed"):
        read_checkpoint(path)
    with pytest.raises(natstats.UsageError, match=r"images: .*c\.pth: it is packed"):
        open_images(path)
    with pytest.raises(ValueError, match="torch packs nothing"):
        load_plain(path)


def test_a_tensor_of_one_number_has_one_element(tmp_path):
    spread = torch.zeros(1).expand(10**5, 3, 64, 64)
    torch.save({"w": spread}, tmp_path / "c.pth")
    assert (tmp_path / "c.pth").stat().st_size < 10_000
    with pytest.raises(natstats.NatstatsError, match="checkpoint: .*no larger than their file; w"):
        read_checkpoint(tmp_path / "c.pth")
    with pytest.raises(natstats.UsageError, match="images: .*no larger than its file"):
        open_images(tmp_path / "c.pth")
    small = torch.zeros(1).expand(10, 3, 16, 16)  # of which one may say what one likes
    torch.save(small, tmp_path / "small.pth")
    assert len(open_images(tmp_path / "small.pth")) == 10
    assert not is_spread(torch.zeros(10**6)[::7])


@pytest.mark.filterwarnings("ignore:.*[Ss]parse")
@pytest.mark.parametrize(
    "made",
    [
        lambda *size: torch.empty(size, device="meta"),
        lambda *size: torch.zeros(1).expand(size),
        lambda *size: torch.sparse_coo_tensor(size=size),
    ],
    ids=["no numbers", "one number", "sparse"],
)
def test_a_number_of_classes_is_one_that_the_file_has(tmp_path, made):
    """The network is built with as many classes as a checkpoint has."""
    state = cifar_resnet(8).state_dict()
    state |= {"fc.weight": made(10**8, 64), "fc.bias": made(10**8)}
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(natstats.NatstatsError, match="no larger than their file; fc.weight"):
        load_network("cifar_resnet8", checkpoint=tmp_path / "c.pth")
    torch.save({**state, "fc.weight": made(10, 64), "fc.bias": made(10)}, tmp_path / "c.pth")
    with contextlib.suppress(natstats.NatstatsError):
        load_network("cifar_resnet8", checkpoint=tmp_path / "c.pth")


@pytest.mark.parametrize("levels", [3, 7])
def test_a_list_that_is_named_again_and_again(tmp_path, levels):
    lines = ["a0: &a0 [" + ", ".join(["0"] * 1000) + "]"]
    for level in range(1, levels):
        again = ", ".join([f"*a{level - 1}"] * 1000)
        lines.append(f"a{level}: &a{level} [{again}]")
    (tmp_path / "c.yaml").write_text("\n".join(lines))
    pytest.importorskip("yaml")
    with pytest.raises(natstats.UsageError, match="at most 1048576 values were expected"):
        read_config(tmp_path / "c.yaml")


def test_a_list_may_be_named_again(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "c.yaml").write_text("a: &a [1, 2]\nb: *a\nc: [*a, *a]\n")
    assert read_config(tmp_path / "c.yaml") == {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}


def test_tables_and_records_have_an_end(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"c{n}" for n in range(1500)) + "\n")
    with pytest.raises(ValueError, match="at most 1000 columns"):
        read_csv(tmp_path / "wide.csv")
    for name, read in (("long.csv", read_csv), ("long.json", read_json)):
        with (tmp_path / name).open("wb") as file:
            file.truncate((64 << 20) + 1)  # which takes no room
        with pytest.raises(ValueError, match="at most 64 MiB"):
            read(tmp_path / name)


def test_arrays_are_read_when_all_of_them_fit():
    buffer = io.BytesIO()
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f8", "fortran_order": False, "shape": (MOST_BYTES // 8 + 1,)}
    )
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", head.getvalue())
    arrays = Arrays(buffer, "spectra.npz")
    with pytest.raises(natstats.NatstatsError, match=r"spectra\.npz, a: expected at most 4 GiB"):
        arrays.read("a", np.dtype(np.float64), (-1,))


@pytest.mark.parametrize("size", [(2**14, 2**14), (2**17, 8), (MOST_PIXELS, 5)])
def test_maps_have_a_largest_size(size):
    with pytest.raises(natstats.UsageError, match="expected at most 67108864 pixels"):
        natstats.SpectrumAccumulator(*size)
    state = natstats.SpectrumAccumulator(16, 16, n_groups=4).state_dict()
    state["height"], state["width"] = size
    with pytest.raises(natstats.UsageError, match="of another shape: sums "):
        natstats.SpectrumAccumulator.from_state_dict(state)


@pytest.mark.parametrize(
    ("name", "value"),
    [("height", "16"), ("n_groups", 10**9), ("n_groups", 0), ("sums", None), ("image_power", [1])],
)
def test_a_state_says_what_it_holds(name, value):
    state = natstats.SpectrumAccumulator(16, 16, n_groups=4).state_dict()
    with pytest.raises(natstats.UsageError, match="state: expected"):
        natstats.SpectrumAccumulator.from_state_dict({**state, name: value})


def test_a_sentence_has_an_end():
    error = natstats.UsageError("a: " + "x" * 10**6, "a line")
    assert len(str(error)) < 2100
    assert str(error).endswith("\na line")
    assert " ... " in str(error)
    with pytest.raises(natstats.UsageError) as caught:
        natstats.measure(nn.Conv2d(3, 1, 3), torch.rand(2, 3, 8, 8), batch_size=[0] * 10**5)
    assert len(str(caught.value)) < 2100
