"""A run that was changed opens and fits, or says in one sentence which field of a file is odd."""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import natstats
from natstats.files.json_files import read_json, to_json
from natstats.files.paths import member
from natstats.files.schema import ListOf, Record, real, whole
from natstats.report.pages.provenance import measured
from natstats.runs import store
from natstats.runs.control import RandomWeights
from natstats.runs.run_schema import ARRAYS
from natstats.spectra.records import Layer, LayerSpectrum

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

INFO = {
    "name": "net",
    "created": "2026-01-01T00:00:00+00:00",
    "command": "natstats measure net",
    "warnings": ["a note"],
    "versions": {"natstats": "0.4.0", "torch": "2.6"},
    "timing": {"seconds": 1.5, "images_per_second": 8.0},
    "device": {"type": "cpu", "name": "made", "threads": 1},
    "model": {"name": "net", "weights": "w", "trained": True, "digest": "0123"},
    "images": {
        "source": "photos", "n_images": 12, "digest": "ab", "contents": "cd", "size": 48,
        "resize": 56, "interpolation": "bilinear", "n_enlarged": 1, "frames": None,
        "normalisation": {"mean": [0.5], "std": [0.2]}, "n_unreadable": 1, "unreadable": ["a: b"],
    },
    "options": {
        "layers": ["conv"], "layouts": {"a": "NCHW"}, "temporal": False, "edges": "sine",
        "n_groups": 12, "batch_size": 16, "seed": 0, "limit": None, "amp": False,
    },
    "series": {"checkpoint": "e1", "file": "e1.pth", "digest": "ef", "asked": {"model": "net"}},
}  # fmt: skip


def layer_spectra(sizes, channels=2, n_images=12, n_groups=12, seed=0):
    """Layers as a measurement makes them, from fields of a known exponent."""
    import torch

    found = []
    for place, side in enumerate(sizes):
        accumulator = natstats.SpectrumAccumulator(side, side, n_groups=n_groups)
        fields = natstats.power_law_fields(n_images * channels, side, side, 2.0, seed=seed + place)
        maps = torch.from_numpy(fields.reshape(n_images, channels, side, side))
        accumulator.update(maps)
        layer = Layer(
            f"layer{place}" if place else "input.colour", 0, "conv" if place else "input", place,
            channels, side, side, 1.0, place, 2.0 * place + 1,
        )  # fmt: skip
        found.append(LayerSpectrum(layer, accumulator.compute()))
    return found


@pytest.fixture(scope="module")
def run():
    skipped = [natstats.spectra.records.SkippedLayer("fc", "Linear", "no maps")]
    made = natstats.Run(layer_spectra([12, 10]), skipped, INFO)
    for seed in (0, 1):
        spectra = layer_spectra([12, 10], seed=10 * seed + 7)
        other = natstats.Run(spectra, (), {"name": "net"})
        made.random_weights.append(
            RandomWeights.of(seed, other.info, other.spectra, other.skipped_layers)
        )
    return made


@pytest.fixture
def saved(run, tmp_path):
    return run.save(tmp_path / "run", report=False)


def fields_of(value, where=""):
    """Place of every field of a record, lists by their first item."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (name,), inner
            yield from (((name, *rest), one) for rest, one in fields_of(inner))
    elif isinstance(value, list) and value:
        yield (0,), value[0]
        yield from (((0, *rest), one) for rest, one in fields_of(value[0]))


def changed(record, place, value):
    found = copy.deepcopy(record)
    inside = found
    for name in place[:-1]:
        inside = inside[name]
    if value is MISSING:
        del inside[place[-1]]
    elif value is EXTRA:
        inside[f"{place[-1]}-x" if isinstance(place[-1], str) else 0] = "extra"
    else:
        inside[place[-1]] = value
    return found


MISSING, EXTRA = object(), object()
VALUES = (
    "x", -1, -0.5, 10**400, 10**12, 1e300, True, None, [], {}, [None], {"a": None}, MISSING, EXTRA
)  # fmt: skip


def used(path):
    """The run of a folder, after all that a reader asks of it."""
    found = natstats.Run.open(path)
    assert len(found.layers) == len(found.spectra)
    _ = found.law.sentence(), found.skipped, found.control, found.name, found.unit
    return found


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A run of two layers without a control, which opens and fits quickly."""
    made = natstats.Run(
        layer_spectra([10, 10]), [natstats.spectra.records.SkippedLayer("a", "b", "c")], INFO
    )
    return made.save(tmp_path_factory.mktemp("runs") / "small", report=False)


@pytest.fixture
def copied(small, tmp_path):
    return Path(shutil.copytree(small, tmp_path / "small"))


@pytest.mark.slow
@pytest.mark.parametrize("part", ["layers", "skipped", "fit", "facts"])
def test_any_changed_field_is_named_or_does_no_harm(copied, part):
    file = copied / "run.json"
    record = json.loads(file.read_text())
    refused, fitted = 0, set()
    places = [place for place, _ in fields_of(record)]
    parts = ("layers", "skipped", "fit")
    for place in [p for p in places if p[0] == part or (part == "facts" and p[0] not in parts)]:
        for value in VALUES:
            file.write_text(json.dumps(changed(record, place, value)))
            try:
                found = natstats.Run.open(copied)
            except natstats.NatstatsError as error:
                refused += 1
                said = str(error)
                assert said.startswith("run: expected a whole run in "), said
                field = next(part for part in place if isinstance(part, str))
                assert re.search(rf"; run.json, .*{field}.*: expected |spectra.npz, ", said), said
                assert "\n" not in said
                continue
            measured(found.info, found.options)  # what a report says of it
            # One fit of every field that may be another value.
            if part in ("layers", "fit") and place not in fitted:
                fitted.add(place)
                used(copied)
    assert refused > {"layers": 100, "skipped": 30, "fit": 50, "facts": 200}[part]


@pytest.mark.slow
@pytest.mark.parametrize("place", [("layers", 0), ("skipped",), ("seed",), ("layers", 0, "call")])
def test_a_changed_control_is_named(saved, place):
    file = saved / "control" / "seed-1" / "run.json"
    record = json.loads(file.read_text())
    for value in ("x", -1, None, {}):
        file.write_text(json.dumps(changed(record, place, value)))
        with pytest.raises(natstats.NatstatsError, match=f"control/seed-1/run.json, {place[0]}"):
            natstats.Run.open(saved)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("layers", 1, "height"), "x", r'layers\[1\].height: expected a whole number of .*"x"'),
        (("layers", 1, "width"), 0, r"layers\[1\].width: expected a whole number of .* got 0"),
        (("layers", 1, "width"), 3, r"layers\[1\].width: expected 1, or at least 5; got 3"),
        (("layers", 0, "edges"), "round", r"layers\[0\].edges: expected one of sine, .*round"),
        (("layers", 0, "stride"), 0, r"layers\[0\].stride: expected a number that is above 0.* 0"),
        (("layers", 0), None, r"layers\[0\]: expected a mapping; got null"),
        (("layers",), [], "layers: expected a layer or more; got none"),
        (("layers",), MISSING, "layers: expected a list; it is missing"),
        (("skipped", 0, "reason"), 1, r"skipped\[0\].reason: expected a text; got 1"),
        (("timing", "seconds"), "long", 'timing.seconds: expected a number; got "long"'),
        (("model", "trained"), 1, "model.trained: expected true or false, or null; got 1"),
        (("images", "normalisation", "mean"), 1, "images.normalisation.mean: expected a list"),
        (("fit", "level"), 95, "fit.level: expected a number between 0 and 1; got 95"),
        (("fit", "resamples"), 10**9, "fit.resamples: expected .* at most 100000; got 1000000000"),
        (("fit", "normalize"), 0, "fit.normalize: expected True or False; got 0"),
        (("fit", "band"), [0.4, 0.1], "fit.band: expected two rising numbers"),
        (("fit", "estimator"), [], "fit.estimator: expected one of"),
        (("fit", "depth"), {}, "fit.depth: expected one of"),
    ],
)  # fmt: skip
def test_the_sentence_names_the_field_and_both_values(saved, place, value, words):
    record = json.loads((saved / "run.json").read_text())
    (saved / "run.json").write_text(json.dumps(changed(record, place, value)))
    with pytest.raises(natstats.NatstatsError, match=f"run.json, {words}"):
        natstats.Run.open(saved)


@pytest.mark.parametrize("value", [-1, 0, True, False, 1.5, "3", None, [3], 10**30, MISSING])
@pytest.mark.parametrize("file", ["run.json", "control/seed-0/run.json"])
def test_a_format_is_a_number_from_1(saved, file, value):
    record = json.loads((saved / file).read_text())
    (saved / file).write_text(json.dumps(changed(record, ("format",), value)))
    with pytest.raises(natstats.NatstatsError, match=f"{file}, format: expected "):
        natstats.Run.open(saved)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "3",
        '"run"',
        "[" * 100_000,
        '{"format": 3, "name": "\\ud800"}',
        "\x00",
    ],
)
def test_what_is_no_record_is_said_to_be_none(saved, text):
    (saved / "run.json").write_text(text)
    with pytest.raises(natstats.NatstatsError, match="whole run in .*; run.json.*: expected") as it:
        natstats.Run.open(saved)
    assert len(str(it.value)) < 500


def arrays_of(path):
    with np.load(path / "spectra.npz") as arrays:
        return dict(arrays)


def some_nan(array):
    found = array.astype(np.float64)
    found.flat[1] = np.nan
    return found.astype(array.dtype)


def put(value):
    def change(array):
        found = array.copy()
        found.flat[-1] = value
        return found

    return change


CHANGES = {
    "missing": None,
    "text": lambda a: a.astype(str),
    "half": lambda a: a.astype(np.float16),
    "long": lambda a: a.astype(np.longdouble),
    "complex": lambda a: a.astype(np.complex128),
    "flat": lambda a: a.reshape(-1)[:-1],
    "longer": lambda a: np.concatenate([a, a]),
    "axis": lambda a: a[..., None],
    "empty": lambda a: a[:0],
    "scalar": lambda a: a.flat[0],
    "negative": put(-1),
    "nan": some_nan,
    "infinite": lambda a: put(np.inf)(a.astype(np.float64)).astype(a.dtype, casting="unsafe"),
    "reversed": lambda a: a[::-1],
}


@pytest.mark.slow
@pytest.mark.parametrize("key", [*ARRAYS])
def test_any_changed_array_is_named_or_does_no_harm(copied, key):
    saved, whole_arrays = copied, arrays_of(copied)
    refused = set()
    for layer in ("0000", "0001"):
        name = f"{layer}/{key}"
        for how, change in CHANGES.items():
            arrays = dict(whole_arrays)
            if change is None:
                del arrays[name]
            else:
                arrays[name] = change(arrays[name])
            np.savez(saved / "spectra.npz", **arrays)
            try:
                natstats.Run.open(saved)
                if layer == "0001":
                    used(saved)
            except natstats.NatstatsError as error:
                # Of other groups in the first layer the next one is told.
                named = name if (key, layer) != ("count", "0000") else r"000[0-2]/\w+"
                said = str(error)
                assert re.search(f"spectra.npz, {named}: expected ", said), how
                refused.add(how)
    assert refused >= {"missing", "text", "half", "long", "complex", "axis", "scalar", "negative"}


def test_groups_are_the_same_in_all_layers_and_in_the_control(run, tmp_path):
    spectra = [*layer_spectra([12]), *layer_spectra([12, 10], n_groups=9)[1:]]
    folder = tmp_path / "a"
    folder.mkdir()
    store.write_run(folder, {}, spectra, [])
    with pytest.raises(natstats.NatstatsError, match="0001/count: expected 12 groups.*; got 9"):
        natstats.Run.open(folder)
    path = run.save(tmp_path / "b", report=False)
    part = path / "control" / "seed-1"
    store.write_run(part, {"seed": 1}, layer_spectra([12, 10], n_groups=9)[1:], [])
    with pytest.raises(
        natstats.NatstatsError,
        match="control/seed-1/spectra.npz, 0000/count: expected 12 groups as in the run; got 9",
    ):
        natstats.Run.open(path)
    store.write_run(part, {"seed": 7}, layer_spectra([12, 10])[1:], [])
    with pytest.raises(natstats.NatstatsError, match="seed-1/run.json, seed: expected that of"):
        natstats.Run.open(path)


@pytest.mark.slow
def test_arrays_that_would_fill_the_memory_are_not_read(saved, monkeypatch):
    """1 GiB of zeros packs into a megabyte: its header is refused before it is unpacked."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**17, 2**10)}
    )
    with (
        zipfile.ZipFile(saved / "spectra.npz") as old,
        zipfile.ZipFile(saved / "bomb", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            content = old.read(name) if name != "0001/power.npy" else header.getvalue()
            new.writestr(name, content + bytes(2**20) * (name == "0001/power.npy"))
    (saved / "bomb").replace(saved / "spectra.npz")
    with pytest.raises(natstats.NatstatsError, match=r"0001/power: expected shape \(12, 5\) of"):
        natstats.Run.open(saved)
    # The right header before too much: the length tells.
    arrays = arrays_of(natstats.Run(layer_spectra([12])).save(saved.parent / "small", report=False))
    small = saved.parent / "small" / "spectra.npz"
    with zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as file:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array)
            file.writestr(f"{name}.npy", buffer.getvalue() + bytes(2**24) * (name[-5:] == "power"))
    with pytest.raises(natstats.NatstatsError, match=r"power: .*its length is not that of its"):
        natstats.Run.open(small.parent)


@pytest.mark.parametrize("what", ["folder", "pipe", "loop", "out"])
@pytest.mark.parametrize("name", ["run.json", "spectra.npz"])
def test_what_is_no_file_is_said_and_not_waited_for(saved, tmp_path, name, what):
    path = saved / name
    content = path.read_bytes()
    path.unlink()
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    else:
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(natstats.NatstatsError, match=f"run in .*{name}: .*(a folder|pipe|a link)"):
        natstats.Run.open(saved)
    store.is_series(saved.parent)  # nor does it wait


def test_a_link_within_the_run_is_followed(saved):
    (saved / "spectra.npz").rename(saved / "real.npz")
    (saved / "spectra.npz").symlink_to("real.npz")
    assert len(natstats.Run.open(saved).spectra) == 2


@pytest.mark.slow
def test_a_run_goes_through_json_and_back(run, saved):
    record = read_json(saved / "run.json")
    (saved / "run.json").write_text(to_json(record))
    again = used(saved)
    assert again.layers.equals(run.layers)
    assert again.info == {**INFO, "format": 3}
    path = again.save(saved.parent / "again", report=False)
    assert natstats.Run.open(path).control.layers.equals(run.control.layers)


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2, 3])
def test_runs_of_every_format_open(saved, version):
    """As natstats 0.1 and 0.2 wrote them: fields and arrays that came later are not there."""
    record = read_json(saved / "run.json") | {"format": version}
    del record["files"]
    later = {"layout": 3, "order": 2, "receptive_field": 2}
    for layer in record["layers"]:
        for name in [name for name, since in later.items() if since > version]:
            del layer[name]
    if version == 1:
        record["fit"] = {"band": [0.0, 0.5], "estimator": "octave", "level": 0.95}
        arrays = {k: v for k, v in arrays_of(saved).items() if "normalized" not in k}
        np.savez_compressed(saved / "spectra.npz", **arrays)
    (saved / "run.json").write_text(to_json(record))
    found = used(saved)
    assert found.spectra[1].layer.layout == "NCHW"
    if version == 1:
        with pytest.raises(natstats.UsageError, match="normalize: expected spectra measured by"):
            _ = found.refit(normalize=True).layers
    again = natstats.Run.open(found.save(saved.parent / "again", report=False))
    assert again.layers.equals(found.layers)


def test_a_run_that_lacks_normalised_power_is_damaged(saved):
    arrays = {k: v for k, v in arrays_of(saved).items() if "normalized" not in k}
    np.savez_compressed(saved / "spectra.npz", **arrays)
    with pytest.raises(natstats.NatstatsError, match="0000/normalized: expected an array; it is m"):
        natstats.Run.open(saved)


def test_members_are_plain_names_that_stay_in_their_folder(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "inner").mkdir()
    (tmp_path / "a" / "near").symlink_to("inner")
    (tmp_path / "a" / "far").symlink_to(tmp_path)
    (tmp_path / "a" / "itself").symlink_to("itself")
    for name in ("inner", "near", "new"):
        assert member(tmp_path / "a", name, "x") == tmp_path / "a" / name
    for name in ("../a", "/etc", "..", "", 3, None, "a\\b", "far", "itself"):
        with pytest.raises(natstats.NatstatsError, match="^x: expected (a plain n|something in)"):
            member(tmp_path / "a", name, "x")


def test_a_schema_says_what_it_wants():
    for schema, value, words in (
        (whole(1, 5), 6, "a whole number of at least 1 and at most 5; got 6"),
        (real(above=0), float("nan"), "a number that is above 0; got NaN"),
        (ListOf(whole(), 2, 2), [1], "a list of 2 items; got 1"),
        (ListOf(whole(), 2), [1], "a list of 2 items or more; got 1"),
        (Record({}), "x" * 100, 'a mapping; got "x{56}\\.\\.\\.'),
    ):
        with pytest.raises(natstats.NatstatsError, match=f"^f: expected {words}"):
            schema.check(value, "f")
