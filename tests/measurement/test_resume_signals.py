"""A measurement that a signal stops saves what it has, says how to go on, and has its exit code."""

from __future__ import annotations

import contextlib
import signal

import pytest
from natstats_cli import output

import natstats
from natstats.measurement import network_pass
from natstats.runs.run import Run
from tests.measurement.cut_runs import N_PHOTOS

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_a_signal_saves_says_how_to_go_on_and_has_its_code(
    tmp_path, forty_photos, call, monkeypatch, number, code, assert_same
):
    command = ["images", forty_photos, "--size", 32, "--crop", 32, "--batch-size", 6, "--out"]

    @contextlib.contextmanager
    def progress_bar(quiet=False, within=""):
        yield lambda done, total: signal.raise_signal(number) if 12 <= done < 18 else None

    monkeypatch.setattr(output, "progress_bar", progress_bar)
    found = call(*command, tmp_path / "run", code=code)
    assert found.stderr.splitlines()[-1] == (
        f"Error: interrupted; {tmp_path}/run keeps what was measured of 12 of {N_PHOTOS} images, "
        f"and the same command, with --out {tmp_path}/run, goes on from there"
    )
    assert "not finished" in call("fit", tmp_path / "run", code=2).stderr
    call(*command, tmp_path / "run")
    natstats.measure_images(forty_photos, size=32, crop=32, batch_size=6, out=tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
@pytest.mark.parametrize("where", ["fits", "norms", "twice"])
def test_a_signal_that_cannot_wait_says_what_is_kept(
    tmp_path, forty_photos, call, monkeypatch, number, code, where
):
    """In the midst of fits, between two passes, and the second one in the midst of a batch."""
    command = ["images", forty_photos, "--size", 32, "--crop", 32, "--batch-size", 6]
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        if where == "twice":

            @contextlib.contextmanager
            def progress_bar(quiet=False, within=""):
                def twice(done, total):
                    for _ in range(2 if done == 12 else 0):
                        signal.raise_signal(number)

                yield twice

            patched.setattr(output, "progress_bar", progress_bar)
            command += ["--save-every", 0]
        elif where == "fits":
            patched.setattr(Run, "save", lambda *given, **named: signal.raise_signal(number))
        else:
            command[:2] = [
                "measure",
                "cifar_resnet20",
                "--weights",
                "none",
                "--images",
                forty_photos,
            ]
            command += ["--explain", "--counterfactual", "shuffle-kernels"]
            patched.setattr(
                network_pass, "estimate_norms", lambda *given: signal.raise_signal(number)
            )
        found = call(*command, "--out", out, code=code)
    assert found.stderr.splitlines()[-1] == (
        f"Error: interrupted; {out} keeps what was measured, and the same command, with --out "
        f"{out}, goes on from there"
    )
    if where == "fits":
        call("fit", out)
        assert (out / "run.json").exists()


def test_a_second_signal_does_not_wait(tmp_path, forty_photos):
    def progress(done: int, total: int) -> None:
        if done == 12:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        natstats.measure_images(forty_photos, batch_size=6, out=tmp_path / "run", progress=progress)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
