"""Which runs make a sample of networks, from memory or from folders, and which are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import natstats
from natstats import Run, UsageError, meta_analysis
from natstats.runs.run_folders import find_runs, short_names


@pytest.fixture(scope="module")
def folder(made_networks, tmp_path_factory):
    """Three runs on disk."""
    home = tmp_path_factory.mktemp("sample")
    for k in range(3):
        made_networks.save(home / f"net{k}", seed=k, model=("resnet20", "vgg16", "vgg11")[k])
    return home


@pytest.fixture
def sample(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "sample"))


@pytest.mark.slow
def test_labels_are_in_the_order_of_runs_and_paths(six_networks, folder, tmp_path):
    mixed = [folder / "net1", six_networks["net3"], folder / "net0", six_networks["net4"]]
    found = meta_analysis(mixed, by=["a", "b", "a", "b"])
    of_run = found.networks.set_index("path").subgroup
    is_path = np.array([Path(path).is_dir() for path in of_run.index])
    assert set(of_run[is_path]) == {"a"}
    assert set(of_run[~is_path]) == {"b"}
    # Runs that were in no folder cannot be named in a call.
    page = (found.save(tmp_path / "law") / "report.html").read_text()
    assert "natstats.meta_analysis(\n    runs,\n" in page
    assert "<code>runs</code> stands for the runs that were passed" in page


def refused(runs, words, **fit):
    with pytest.raises(UsageError) as caught:
        meta_analysis(runs, **fit)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_makes_no_sample(made_networks, six_networks):
    make, first = made_networks.run, six_networks["net0"]
    refused([], ["expected two networks or more", "got none"])
    refused({"only": first}, ["expected two networks or more", "got 1 (only)"])
    refused({"a": first, "b": make(0)}, ["each network once", "in a and b are the same"])
    refused([first, 3], ["expected runs or their paths; got int"])
    refused({"a": first, "b": "path"}, ["expected runs or their paths; got str"])
    images = make(9, model="photos")
    images.info["model"] = None
    refused({"a": first, "i": images}, ["runs of networks; i is of images alone"])
    short = {k: make(20 + k, n_layers=3) for k in range(2)}
    refused(short, ["layers enough for a law; got 0 of 2", "0, 1"])
    refused({"a": first, "b": make(9, n_layers=3)}, ["got 1 of 2 (too few layers: b)"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("band", (0.1, 0.5), "--band"),
        ("estimator", "ols", "--estimator"),
        ("depth", "order", "--depth"),
        ("normalize", True, "--equal-power"),
        ("level", 0.9, "--level"),
        ("min_rings", 3, "--min-rings"),
    ],
)
def test_runs_that_were_fitted_in_other_ways(made_networks, six_networks, name, value, option):
    mixed = {"a": six_networks["net0"], "b": made_networks.run(9, fit={name: value})}
    refused(mixed, [f"{name}: expected the same", "in a and", "in b (", f"give {option} to fit"])
    assert meta_analysis(mixed, **{name: value}).mean.n == 2


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("layers", {"layers": "conv", "edges": "sine"}),
        ("layers", {"layers": ["weight", "act"], "edges": "sine"}),
        ("temporal", {"layers": "weight", "temporal": True}),
    ],
)
def test_runs_that_were_measured_in_other_ways(made_networks, six_networks, name, asked):
    other = made_networks.run(9, options=asked)
    refused(
        {"a": six_networks["net0"], "b": other},
        [f"{name}: expected the same", "measure one of them"],
    )


def test_one_selection_may_be_written_in_many_ways(made_networks):
    spelled = ["conv,linear", ["linear", "conv"], ("conv", "linear"), None]
    made = [made_networks.run(k, options={"layers": one}) for k, one in enumerate(spelled)]
    assert meta_analysis(made).mean.n == 4


def test_edges_are_compared(made_networks, six_networks):
    other = made_networks.run(9)
    for measured in other.spectra:
        object.__setattr__(measured.spectrum, "edges", "hann")
    refused(
        {"a": six_networks["net0"], "b": other}, ["edges: expected the same", "sine in a and hann"]
    )


@pytest.mark.slow
def test_what_is_told_and_not_refused(made_networks, six_networks):
    other = made_networks.run(9, images={"source": "more", "contents": "others"}, trained=False)
    found = meta_analysis({**six_networks, "x": other, "short": made_networks.run(10, n_layers=3)})
    told = " ".join(found.notes)
    assert "Too few layers for a law, and left out: short." in told
    assert "different images" in told
    assert "Trained networks and networks with random weights are in one mean" in told
    assert "in one mean" not in " ".join(
        meta_analysis({**six_networks, "x": other}, by="trained").notes
    )
    assert not meta_analysis(six_networks).notes


def test_runs_of_one_name_are_told_apart(made_networks):
    found = meta_analysis([made_networks.run(k) for k in range(3)])
    assert list(found.networks.network) == ["resnet20", "resnet20 (2)", "resnet20 (3)"]


@pytest.mark.slow
def test_paths_and_runs_give_the_same(sample):
    paths = sorted(sample.iterdir())
    whole = meta_analysis(sample)
    for given in (paths, [str(one) for one in paths], [Run.open(one) for one in paths]):
        again = meta_analysis(given)
        assert again.networks.slope.tolist() == whole.networks.slope.tolist()
    assert list(whole.networks.network) == ["net0", "net1", "net2"]


def test_folders_are_searched_and_runs_counted_once(sample, made_networks):
    made_networks.save(sample / "deeper/net3", seed=3, n_seeds=2)
    made_networks.save(sample / ".hidden/net4", seed=4)
    runs, notes = find_runs([sample, sample])
    assert [one.path.name for one in runs] == ["net3", "net0", "net1", "net2"]
    assert not notes
    assert len(find_runs([sample / "net0", sample])[0]) == 4
    # A run that is named twice is one network twice.
    refused([sample / "net0", sample / "net0"], ["the weights in", "are the same"])


def test_images_in_a_folder_are_passed_over(sample, made_networks):
    shutil.copytree(sample / "net0", sample / "photos")
    record = json.loads((sample / "photos/run.json").read_text())
    record["model"] = None
    (sample / "photos/run.json").write_text(json.dumps(record))
    found = meta_analysis(sample)
    assert found.mean.n == 3
    assert "photos is of images alone and left out" in found.notes[0]
    refused([sample, sample / "photos"], ["photos is of images alone"])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "nowhere is not there"),
        ("file", "file is a file"),
        ("empty", "holds no run.json"),
    ],
)
def test_paths_without_runs(tmp_path, place, words):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=words):
        find_runs([tmp_path / place])


def test_a_damaged_run_is_named(sample):
    (sample / "net1/spectra.npz").write_bytes(b"")
    with pytest.raises(natstats.NatstatsError, match="net1"):
        meta_analysis(sample)


@pytest.mark.slow
def test_of_a_series_the_last_checkpoint_counts(sample, made_networks, tmp_path, quick):
    from natstats.networks.checkpoint_files import CheckpointFile
    from natstats.runs.series import Series

    runs = [made_networks.run(80 + k, 0.01 * k) for k in range(3)]
    files = [CheckpointFile(f"epoch_{k}", k, Path(f"epoch_{k}.pth")) for k in range(3)]
    for run, file in zip(runs, files, strict=True):
        run.info["series"] = {"checkpoint": file.name, "digest": "0", "file": "x"}
    Series.of(runs, files).save(sample / "training")
    found = meta_analysis(sample)
    assert "training/epoch_2" in list(found.networks.network)
    assert "the last checkpoint counts, epoch_2" in found.notes[0]
    assert meta_analysis([sample / "training", sample / "net0"]).mean.n == 2
    (sample / "training/series.json").unlink()
    for table in sample.glob("training/*.*"):
        table.unlink()
    assert "is not finished and left out" in meta_analysis(sample).notes[0]


def test_short_names():
    paths = [Path("/r/a/x"), Path("/r/b/x"), Path("/s/b/x"), Path("/r/y")]
    assert short_names(paths, [1, 1, 1, 2]) == ["a/x", "r/b/x", "s/b/x", "r/y"]
    assert short_names([Path("/x"), Path("/x")], [1, 1]) == ["//x", "//x"]


def test_a_run_is_never_overwritten_by_a_law(law_of_six, sample):
    with pytest.raises(UsageError):
        law_of_six.save(sample / "net0", overwrite=True)
    assert (sample / "net0/run.json").is_file()
