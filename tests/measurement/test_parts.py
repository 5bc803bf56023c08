"""Parts of a measurement add up to the whole: shards, several sets of images, several processes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.runs.run import Run
from natstats.spectra.accumulator import SpectrumAccumulator
from tests.measurement.cut_runs import CutError, cut_after, network
from tests.measurement.processes import torchrun

pytestmark = pytest.mark.usefixtures("quick")

SETTINGS = {"size": 32, "crop": 32, "batch_size": 5, "n_groups": 16}


def write_photos(folder: Path, n_images: int, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    for number in range(n_images):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = write_photos(tmp_path / "photos", 41)
    (folder / "05.png").write_bytes(b"no image")
    return folder


def assert_close(first: Run, second: Run, of: str = "all") -> None:
    """Equal sums to 1e-12, but for the float32 of transforms of batches that were cut otherwise."""
    assert [one.layer for one in first.spectra] == [one.layer for one in second.spectra]
    for one, other in zip(first.spectra, second.spectra, strict=True):
        mine, theirs = one.spectrum, other.spectrum
        np.testing.assert_array_equal(mine.count, theirs.count)
        for name in ("power", "normalized", "offset"):
            np.testing.assert_allclose(
                getattr(mine, name), getattr(theirs, name), rtol=3e-6, err_msg=name
            )
        np.testing.assert_allclose(mine.image_power, theirs.image_power, rtol=3e-6)
    if of == "all":
        for name in ("model", "options"):
            assert first.info[name] == second.info[name]
        ours, others = ({**run.info["images"]} for run in (first, second))
        assert ours == others
    np.testing.assert_allclose(first.layers.exponent, second.layers.exponent, rtol=1e-4)


@pytest.mark.parametrize("control", [{}, {"control": "random-weights", "control_seeds": 2}])
def test_shards_give_the_run_of_one_process(tmp_path, photos, control):
    settings = {**SETTINGS, **control}
    whole = natstats.measure(network(), photos, **settings)
    for number in (3, 1, 2):
        out = tmp_path / f"part_{number}"
        natstats.measure(network(), photos, shard=f"{number}/3", out=out, **settings)
    merged = natstats.merge_parts(sorted(tmp_path.glob("part_*")), tmp_path / "run")
    assert_close(merged, whole)
    assert merged.info["warnings"] == whole.info["warnings"]
    assert len(merged.random_weights) == len(whole.random_weights)
    assert Run.open(tmp_path / "run").info["parts"] == {"n": 3, "n_sets": 1}


def assert_same_account(found, expected) -> None:
    assert len(found.states) == len(expected.states)
    for one, other in zip(found.states, expected.states, strict=True):
        np.testing.assert_array_equal(one.count, other.count)
        np.testing.assert_allclose(one.power, other.power, rtol=1e-4, atol=1e-12)
    for step, own in zip(found.steps, expected.steps, strict=True):
        assert (step.name, step.kind, step.predictions) == (own.name, own.kind, own.predictions)
        assert (step.gaussian is None) == (own.gaussian is None)
        if step.gaussian is not None:
            np.testing.assert_array_equal(step.gaussian.count, own.gaussian.count)
            for name in ("before", "after"):
                mine, theirs = (getattr(one.gaussian, name) for one in (step, own))
                np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    assert (found.every, found.note) == (expected.every, expected.note)


class Network(nn.Sequential):
    """With functions that have parameters, an addition, and a norm."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = nn.functional.leaky_relu(self[0](images), 0.2)
        return self[2](nn.functional.hardtanh(maps + self[1](maps), -0.5, 0.7))


def rich_network() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, padding=1)
    block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU())
    return Network(first, block, nn.Conv2d(4, 4, 3, stride=2)).eval()


@pytest.mark.slow
@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("control", [{}, {"control": "random-weights", "control_seeds": 2}])
def test_the_accounts_of_shards_are_put_together(tmp_path, photos, control, is_cut):
    """Without the network; each part may have been gone on with."""
    settings = {**SETTINGS, **control, "explain": True}
    model = rich_network()
    whole = natstats.measure(model, photos, **settings)

    for number in (3, 1, 2):
        given = {**settings, "shard": f"{number}/3", "out": tmp_path / f"part_{number}"}
        if is_cut:
            with pytest.raises(CutError):
                natstats.measure(model, photos, progress=cut_after(8), save_every=0.0, **given)
        part = natstats.measure(model, photos, save_every=0.0, **given)
        assert part.account is not None
    del model
    merged = natstats.merge_parts(sorted(tmp_path.glob("part_*")), tmp_path / "run")
    assert_close(merged, whole)
    assert merged.info["warnings"] == whole.info["warnings"]
    assert_same_account(merged.account_spectra, whole.account_spectra)
    assert len(merged.random_weights) == len(whole.random_weights)
    for one, other in zip(merged.random_weights, whole.random_weights, strict=True):
        assert_same_account(one.account, other.account)
    opened = Run.open(tmp_path / "run")
    for mine, theirs in ((merged, whole), (opened, whole)):
        for column in ("share", "low", "high"):
            np.testing.assert_allclose(
                mine.account.frame[column], theirs.account.frame[column], atol=1e-3, err_msg=column
            )
        assert mine.explanation is not None


@pytest.mark.slow
def test_accounts_that_cannot_be_put_together_are_refused(tmp_path, photos):
    settings = {**SETTINGS, "explain": True}
    model = network()
    with pytest.raises(natstats.UsageError, match="counterfactual: expected without shard, as"):
        natstats.measure(
            model, photos, counterfactual="shuffle-kernels", shard="1/2", out=tmp_path / "no",
            **settings,
        )  # fmt: skip
    assert not (tmp_path / "no").exists()
    other = write_photos(tmp_path / "other", 12, 3)
    natstats.measure(model, photos, shard="1/2", out=tmp_path / "first", **settings)
    natstats.measure(model, other, shard="1/1", out=tmp_path / "second", **settings)
    with pytest.raises(natstats.UsageError, match="parts: expected parts of one set .*second"):
        natstats.merge_parts([tmp_path / "first", tmp_path / "second"])
    natstats.measure(model, photos, shard="2/2", out=tmp_path / "plain", **SETTINGS)
    with pytest.raises(natstats.UsageError, match="parts: .*explain"):
        natstats.merge_parts([tmp_path / "first", tmp_path / "plain"])


def test_batches_of_one_give_the_same_bits_but_for_the_order_of_sums(tmp_path, photos):
    settings = {**SETTINGS, "batch_size": 1}
    whole = natstats.measure_images(photos, **settings)
    for number in range(1, 5):
        out = tmp_path / f"part_{number}"
        natstats.measure_images(photos, shard=f"{number}/4", out=out, **settings)
    merged = natstats.merge_parts(tmp_path.glob("part_*"))
    for one, other in zip(merged.spectra, whole.spectra, strict=True):
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=1e-12)


def test_sets_of_images_are_put_together(tmp_path):
    folders = [write_photos(tmp_path / name, n, n) for name, n in (("a", 20), ("b", 13))]
    both = tmp_path / "both"
    both.mkdir()
    for folder in folders:
        for file in folder.iterdir():
            (both / f"{folder.name}{file.name}").write_bytes(file.read_bytes())
        out = tmp_path / f"part_{folder.name}"
        natstats.measure_images(folder, shard="1/1", out=out, **SETTINGS)
    merged = natstats.merge_parts([tmp_path / "part_a", tmp_path / "part_b"])
    whole = natstats.measure_images(both, **SETTINGS)
    assert merged.info["images"]["n_images"] == 33
    for one, other in zip(merged.spectra, whole.spectra, strict=True):
        np.testing.assert_allclose(
            one.spectrum.power.sum(0), other.spectrum.power.sum(0), rtol=1e-5
        )


@pytest.mark.parametrize(
    "order", ["a1 b1 b2 a2", "b2 a1 a2 b1", "a1 a2 b1 b2 c1", "c1 b1 a2 b2 a1"]
)
def test_shares_of_several_sets_come_in_any_order(tmp_path, order):
    """A set has more images than groups; another has one image twice."""
    sets = {
        "a": write_photos(tmp_path / "a", 20),
        "b": write_photos(tmp_path / "b", 9, 1),
        "c": write_photos(tmp_path / "c", 3, 2),
    }
    (sets["b"] / "08.png").write_bytes((sets["b"] / "00.png").read_bytes())
    names, total = order.split(), 0.0
    for name in names:
        images, number = sets[name[0]], name[1]
        shard = f"{number}/{sum(name[0] == other[0] for other in names)}"
        run = natstats.measure_images(
            images, shard=shard, out=tmp_path / "parts" / name, **SETTINGS
        )
        total += run.spectra[0].spectrum.power.sum(0)
    parts = [tmp_path / "parts" / name for name in names]
    merged = natstats.merge_parts(parts)
    np.testing.assert_allclose(merged.spectra[0].spectrum.power.sum(0), total, rtol=1e-12)
    assert merged.info["parts"] == {"n": len(names), "n_sets": len({one[0] for one in names})}
    with pytest.raises(
        natstats.UsageError, match=rf"images of .*{names[1]} are in .*{names[1]}, t"
    ):
        natstats.merge_parts([*parts, parts[1]])


def test_a_record_and_sums_of_other_images_are_no_part(tmp_path):
    for name, n_images in (("a", 6), ("b", 7)):
        images = write_photos(tmp_path / name, n_images)
        natstats.measure_images(images, shard="1/1", out=tmp_path / f"part_{name}", **SETTINGS)
    (tmp_path / "part_a" / "part.json").replace(tmp_path / "part_b" / "part.json")
    with pytest.raises(natstats.NatstatsError, match="whole part in .*part_b; .*different images"):
        natstats.merge_parts([tmp_path / "part_b"])


def test_what_overlaps_or_differs_is_refused(tmp_path, photos):
    def part(name: str, shard: str, images: Path = photos, **settings) -> Path:
        natstats.measure_images(
            images, shard=shard, out=tmp_path / name, **{**SETTINGS, **settings}
        )
        return tmp_path / name

    first, half = part("first", "1/3"), part("half", "1/2")
    copy = write_photos(tmp_path / "copy", 41)
    (copy / "40.png").unlink()
    for other, words in (
        (first, "13 images of .*first are in .*first"),
        (half, "13 images of .*half are in .*first"),
        (part("other", "2/3", edges="hann"), "edges 'hann' in place of 'sine'"),
        (part("again", "1/1", images=copy), "have the contents of images"),
        (photos, "expected folders of natstats measure --shard"),
        (tmp_path / "missing", "expected folders of natstats measure --shard"),
    ):
        with pytest.raises(natstats.UsageError, match=rf"parts: .*{words}"):
            natstats.merge_parts([first, other])
    part("second", "2/3")
    run = natstats.merge_parts([first, tmp_path / "second"])
    assert "27 of 41 images are in the 2 parts that this run was made of" in run.info["warnings"]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/100", "", "1/3/4"])
def test_a_shard_that_is_none_is_refused(tmp_path, photos, shard):
    with pytest.raises(natstats.UsageError, match="shard: expected"):
        natstats.measure_images(photos, shard=shard, out=tmp_path / "part", **SETTINGS)
    assert not (tmp_path / "part").exists()


def test_a_damaged_part_is_named(tmp_path, photos):
    for number in (1, 2):
        out = tmp_path / f"part_{number}"
        natstats.measure_images(photos, shard=f"{number}/2", out=out, **SETTINGS)
    file = tmp_path / "part_2" / "images.safetensors"
    content = file.read_bytes()
    for damaged in (b"", content[:100], content[:-1], content[:8] + b"x" * 50 + content[58:]):
        file.write_bytes(damaged)
        with pytest.raises(natstats.NatstatsError, match="part_2"):
            natstats.merge_parts([tmp_path / "part_1", tmp_path / "part_2"])


def test_an_accumulator_is_not_added_twice():
    first, second = SpectrumAccumulator(16, 16), SpectrumAccumulator(16, 16)
    first.update(torch.randn(40, 1, 16, 16))
    second.update(torch.randn(23, 1, 16, 16), torch.arange(40, 63))
    first.merge(second)
    with pytest.raises(natstats.UsageError, match=r"other: .* 23 of its numbers, the first 40"):
        first.merge(second)
    assert first.n_images == 63


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3])
def test_several_processes_give_the_run_of_one(tmp_path, photos, n):
    settings = ["--size", "32", "--crop", "32", "--batch-size", "5", "--groups", "16"]
    out = tmp_path / "run"
    done = torchrun(n, "-m", "natstats_cli", "images", str(photos), *settings, "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Run: ") == 1
    assert_close(Run.open(out), natstats.measure_images(photos, **SETTINGS))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run"]


WORKER = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
import torch, natstats
import natstats.report.pages.run as pages
from tests.measurement.cut_runs import network
from tests.measurement.test_parts import SETTINGS

pages.write_report = lambda folder, report: (folder / "report.html").touch()
torch.set_num_threads(1)
rank = int(os.environ["RANK"])
is_again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
lost = os.environ.get("LOST") == str(rank) and not is_again
hooked = torch.nn.Module.__call__
n_batches = 0

def progress(done, total):
    pass

class Network(torch.nn.Sequential):
    def forward(self, images):
        global n_batches
        n_batches += len(images) > 1
        if lost and n_batches == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)

model = Network(*network()).eval()
options = {"explain": True} if "EXPLAIN" in os.environ else {}
run = natstats.measure(model, sys.argv[2], out=sys.argv[3], save_every=0.0, **SETTINGS, **options)
# In one piece, as the others print, too.
os.write(1, f"rank {rank} {run.info['images']['n_images']}\\n".encode())
"""


def work_together(
    tmp_path: Path, photos: Path, n: int, *options: str, **given
) -> subprocess.CompletedProcess:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = str(Path(__file__).parents[2])
    return torchrun(n, *options, str(script), root, str(photos), str(tmp_path / "run"), **given)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_all_and_its_images_are_measured_again(tmp_path, photos):
    done = work_together(tmp_path, photos, 2, LOST="1")
    assert done.returncode != 0
    assert "rank" not in done.stdout
    assert not (tmp_path / "run" / "run.json").exists()
    # With another number of processes, too.
    again = work_together(tmp_path, photos, 3)
    assert again.returncode == 0, again.stderr[-2000:]
    assert sorted(again.stdout.split()) == sorted(
        ["rank", "0", "40", "rank", "1", "40", "rank", "2", "40"]
    )
    whole = natstats.measure(network(), photos, **SETTINGS)
    found = Run.open(tmp_path / "run")
    found.info["model"]["name"] = whole.info["model"]["name"]
    assert_close(found, whole, of="numbers")
    assert found.info["images"] == whole.info["images"]


@pytest.mark.slow
def test_those_that_torchrun_starts_again_give_the_run_of_one(tmp_path, photos):
    done = work_together(tmp_path, photos, 2, "--max-restarts=1", LOST="0")
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.split()) == ["0", "1", "40", "40", "rank", "rank"]
    found = Run.open(tmp_path / "run")
    whole = natstats.measure(network(), photos, **SETTINGS)
    found.info["model"]["name"] = whole.info["model"]["name"]
    assert_close(found, whole, of="numbers")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run", "worker.py"]


@pytest.mark.slow
def test_several_processes_give_one_account(tmp_path, photos):
    done = work_together(tmp_path, photos, 2, EXPLAIN="1")
    assert done.returncode == 0, done.stderr[-2000:]
    whole = natstats.measure(network(), photos, explain=True, **SETTINGS)
    found, expected = Run.open(tmp_path / "run").account, whole.account
    assert found is not None
    assert expected is not None
    for one, other in zip(found.spectra.states, expected.spectra.states, strict=True):
        np.testing.assert_allclose(one.power, other.power, rtol=1e-4, atol=1e-12)
