"""Arrays and tensors: no value is rounded before the mean is gone, and odd ones are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import natstats
from natstats.images.sources import batches, open_images

# Fields of a known exponent, of standard deviation 1, whose values have all the digits of float64.
FIELDS = natstats.power_law_fields(48, 64, 64, alpha=3.0, seed=1)[:, None].astype(np.float64)
FIELDS /= FIELDS.std()


def exponent(images, row=0, **options):
    return natstats.measure_images(images, **options).layers.exponent[row]


TRUE = exponent(FIELDS)


def test_the_fields_have_the_exponent_they_were_made_with():
    assert pytest.approx(3.0, abs=0.05) == TRUE


@pytest.mark.parametrize("offset", [1e3, -1e5, 1e6, 3e8])
@pytest.mark.parametrize(
    "wrap", [lambda x: x, torch.from_numpy, lambda x: x.astype(">f8"), lambda x: x.astype("g")],
    ids=["array", "tensor", "big-endian", "longdouble"],
)  # fmt: skip
def test_the_mean_of_float64_costs_no_digits(offset, wrap):
    assert exponent(wrap(FIELDS + offset)) == pytest.approx(TRUE, abs=1e-5)


@pytest.mark.parametrize("suffix", ["npy", "pt"])
def test_nor_in_a_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        np.save(path, FIELDS - 1e6)
    else:
        torch.save(torch.from_numpy(FIELDS - 1e6), path)
    assert exponent(path) == pytest.approx(TRUE, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "scale", "offset"),
    [("i4", 1e4, 2e9), ("i8", 1e5, 1e12), ("u4", 1e4, 4e9), ("u8", 1e5, 1e13), (">i4", 1e4, -2e9),
     ("u2", 300, 60000), ("i2", 300, -30000), ("u1", 20, 128)],
)  # fmt: skip
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: torch.from_numpy(x.astype(x.dtype.name))])
def test_nor_does_that_of_whole_numbers(dtype, scale, offset, wrap):
    whole = np.round(FIELDS * scale)
    fits = np.abs(FIELDS).max() * scale
    whole = np.clip(whole, -4000, 4000) if dtype == "u2" else whole
    whole = np.clip(whole, -2700, 2700) if dtype == "i2" else whole
    whole = np.clip(whole, -120, 120) if dtype == "u1" else whole
    assert fits < 2**53
    assert exponent(wrap((whole + offset).astype(dtype))) == pytest.approx(
        exponent(whole), abs=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("offset", [1e2, 1e4, -1e5])
def test_a_far_mean_of_float32_costs_its_own_digits_and_no_more(offset):
    """Against the same rounded values, with their means removed in float64 by numpy."""
    rounded = (FIELDS + offset).astype(np.float32)
    exact = rounded.astype(np.float64)
    exact -= exact.mean((2, 3), keepdims=True)
    assert exponent(rounded) == pytest.approx(exponent(exact), abs=1e-5)


@pytest.mark.slow
def test_grey_and_colour_and_clips_keep_their_digits_too():
    colour = np.concatenate([FIELDS, FIELDS[::-1], FIELDS], axis=1)
    near, far = (natstats.measure_images(colour + offset).layers.exponent for offset in (0, 1e7))
    np.testing.assert_allclose(far, near, atol=1e-5)
    clips = FIELDS.reshape(6, 1, 8, 64, 64)
    for temporal in (False, True):
        pair = [
            natstats.measure_images(clips + offset, temporal=temporal, fit=natstats.FitOptions())
            for offset in (0, 1e7)
        ]
        first, second = (run.spectra[0].spectrum.mean_power for run in pair)
        np.testing.assert_allclose(second, first, rtol=1e-4)


@pytest.mark.slow
def test_layer_0_keeps_them_and_the_network_gets_its_own_type():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    run = natstats.measure(model, FIELDS + 1e6)
    assert run.layers.exponent[0] == pytest.approx(TRUE, abs=1e-5)
    assert run.layers.layer[1] == "0"


def test_what_float32_holds_enters_in_float32_and_as_it_was():
    for dtype in ("f4", "f2", "u1", "i2", "u2"):
        array = np.random.default_rng(0).integers(0, 200, (4, 1, 8, 8)).astype(dtype)
        images = open_images(array)
        (batch,) = batches(images, 4)
        assert batch.images.dtype == torch.float32
        np.testing.assert_array_equal(batch.images, array[images.places])


def test_a_float32_array_near_zero_is_exact_to_the_last_digit():
    """The spectrum of the maps themselves, not centred before."""
    array = np.random.default_rng(0).random((6, 1, 32, 32), dtype=np.float32)
    images = open_images(array)
    accumulator = natstats.SpectrumAccumulator(32, 32)
    accumulator.update(torch.from_numpy(array[images.places]))
    found = natstats.measure_images(array, batch_size=6).spectra[0].spectrum
    np.testing.assert_array_equal(found.power, accumulator.compute().power)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 1, 8, 8), dtype=complex), np.zeros((2, 1, 8, 8), dtype=bool),
        np.zeros((2, 1, 8, 8), dtype="U3"), np.zeros((2, 1, 8, 8), dtype="M8[s]"),
        np.zeros((2, 1, 8, 8), dtype="m8[s]"), np.zeros((2, 1, 8, 8), dtype=[("a", "f4")]),
        np.zeros((2, 1, 8, 8), dtype=object), np.zeros((2, 0, 8, 8)), np.zeros((0, 3, 8, 8)),
        np.zeros((2, 1, 0, 8, 8)), np.zeros((8, 8)),
    ],
    ids=lambda a: f"{a.dtype.kind}{a.shape}",
)  # fmt: skip
def test_arrays_that_are_no_images_are_refused(array, tmp_path):
    with pytest.raises(natstats.UsageError, match="images: expected real numbers of shape"):
        natstats.measure_images(array)
    if array.dtype != object:
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(natstats.UsageError, match="images: expected real numbers of shape"):
            natstats.measure_images(tmp_path / "a.npy")


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.1, 1e6, 0.0])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_images_without_number_or_variation_have_no_exponent(value, dtype):
    row = natstats.measure_images(np.full((5, 1, 16, 16), value, dtype=dtype)).layers.iloc[0]
    assert np.isnan(row.exponent)
    assert row["flags"] == (
        "constant" if np.isfinite(value) else "non-finite (5 images left out); no images"
    )


def cut(path):
    np.save(path, np.zeros((2, 1, 8, 8)))
    path.write_bytes(path.read_bytes()[:300])


def archive(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((2, 1, 8, 8)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.touch(), "the file is empty"),
        (lambda p: p.write_bytes(b"\x93NUMPY"), "a.npy: "),
        (lambda p: p.write_bytes(b"\x93NUMPY\x01\x00\x10\x00" + b"{" * 16), "a.npy: "),
        (lambda p: p.mkdir(), "expected a folder of images|at least one image"),
        (cut, "a.npy: "), (archive, "archive of several"),
    ],
)  # fmt: skip
def test_a_damaged_npy_file_is_one_sentence(tmp_path, make, words):
    make(tmp_path / "a.npy")
    with pytest.raises(natstats.UsageError, match=words) as raised:
        open_images(tmp_path / "a.npy")
    assert "\n" not in str(raised.value)


# Values that do not look like what the network expects.


def warnings_of(images, **options):
    network = natstats.load_network("cifar_resnet20", weights="none")
    return natstats.measure(network, images, layers="conv1", **options).info["warnings"]


@pytest.mark.slow
def test_bytes_that_enter_a_network_are_hinted_at():
    rng = np.random.default_rng(0)
    for array in (
        rng.integers(0, 256, (3, 3, 16, 16), dtype=np.uint8),
        rng.random((3, 3, 16, 16)) * 255,
    ):
        (note,) = [w for w in warnings_of(array) if "entered as they are" in w]
        assert "divided by 255" in note
        assert note.startswith(f"the values of the images are from {array.min():.4g} to ")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    assert any("divided by 255" in w for w in natstats.measure(model, array).info["warnings"])


@pytest.mark.slow
def test_values_in_0_1_are_hinted_at_where_a_network_normalises():
    array = np.random.default_rng(0).random((3, 3, 16, 16))
    (note,) = [w for w in warnings_of(array) if "entered as they are" in w]
    assert "expects them less the mean" in note
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))  # which says nothing of it
    assert natstats.measure(model, array).info["warnings"] == []


@pytest.mark.slow
def test_normalised_values_and_photographs_are_not_spoken_of(tmp_path):
    from PIL import Image

    array = np.random.default_rng(0).normal(size=(3, 3, 16, 16))
    assert not any("entered as they are" in w for w in warnings_of(array))
    Image.new("RGB", (32, 32), "white").save(tmp_path / "a.png")
    assert not any("entered as they are" in w for w in warnings_of(tmp_path))
    assert natstats.measure_images(np.abs(array) * 99).info["warnings"] == []
