"""The script for machines with a GPU: all of it that a CPU can, and what it makes of failures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "analyses"))

import gpu_check  # noqa: E402
from gpu_checks_processes import counts, run_tests  # noqa: E402
from gpu_checks_setting import Setting, WrongResultError  # noqa: E402
from gpu_checks_worker import CHECKS, Check  # noqa: E402

SCRIPT = [sys.executable, str(ROOT / "analyses" / "gpu_check.py")]


def called(*arguments):
    return subprocess.run(
        [*SCRIPT, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=500
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all that a CPU can."""
    out = tmp_path_factory.mktemp("check") / "below" / "check.json"
    done = called("--device", "cpu", "--small", "--out", out)
    return done, json.loads(out.read_text())


@pytest.mark.slow
def test_on_a_cpu_nothing_fails(whole):
    done, record = whole
    assert record["failed"] == []
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert [check["name"] for check in record["checks"]] == [
        one.name for one in CHECKS if one.name not in gpu_check.ONLY_CUDA
    ]
    assert record["left_out"] == ["tests: needs CUDA", "compiled: needs CUDA"]
    for check in record["checks"]:
        assert check["cases"], check["name"]
        assert check["left_out"] == []
        assert all(case["seconds"] >= 0 for case in check["cases"])


@pytest.mark.slow
def test_the_record_says_what_was_seen_and_where(whole):
    _, record = whole
    assert record["device"]["type"] == "cpu"
    assert record["device"]["name"]
    assert {"natstats", "torch", "torchvision", "numpy", "python"} <= set(record["versions"])
    by_name = {check["name"]: {c["case"]: c for c in check["cases"]} for check in record["checks"]}
    for case in by_name["networks"].values():
        assert case["n_layers"] > 4
        assert 0 <= case["largest_ring_difference"] <= case["allowed_ring_difference"]
    assert by_name["networks"]["cifar_resnet8, bf16"]["largest_exponent_difference"] > 0
    for case in by_name["overhead"].values():
        assert set(case["ms"]) == {
            "plain", "bound", "natstats", "cufft_alone", "transforms_alone"
        }  # fmt: skip
        low, high = case["natstats_of_plain"]["quartiles"]
        assert 0 < low <= case["natstats_of_plain"]["median"] <= high
    for case in by_name["throughput"].values():
        assert case["measure_images_per_second"] > 0
        assert case["plain_images_per_second"] > 0
    assert "kd+spectral, float32" in by_name["training"]
    assert len(by_name["training"]) > 18
    (processes,) = by_name["processes"].values()
    assert (processes["backend"], processes["world"]) == ("gloo", 2)
    assert processes["losses"][0] == processes["losses"][1]


@pytest.mark.slow
def test_the_table_of_a_run(whole):
    """The page has one only where the run was on CUDA; its lines can be made of any."""
    sys.path.insert(0, str(ROOT / "figures"))
    import gpu_tables

    _, record = whole
    lines = gpu_tables.overhead_lines(record)
    assert lines[0].startswith("| network |")
    assert sum(line.startswith("| cifar_resnet8, float32 |") for line in lines) == 1
    assert any(record["device"]["name"] in line for line in lines)
    assert gpu_tables.checks_lines(record)[2].startswith("| networks |")


# -- failures -----------------------------------------------------------------------------------

MADE = """
import os, time
from gpu_checks_setting import WrongResultError

def good():
    return {"value": 1}

def wrong():
    raise WrongResultError("value: expected 1; got 2", {"value": 2})

def fails():
    raise ValueError("nothing\\nto see")

def dies():
    os._exit(9)

def breaks():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")

def waits():
    time.sleep(600)

def slow():
    time.sleep(0.5)
    return {}

def mixed(setting):
    return [(f.__name__, f) for f in (good, wrong, fails, breaks, dies, good_again)]

def good_again():
    return {"value": float("nan")}

def long(setting):
    return [(f"slow {n}", slow) for n in range(40)]

def hanging(setting):
    return [("good", good), ("waits", waits), ("good_again", good_again)]

def unset(setting):
    raise KeyError("no cases")
"""


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    (folder / "made_checks.py").write_text(MADE)
    sys.path.insert(0, str(folder))
    names = ("mixed", "long", "hanging", "unset")
    worker = gpu_check.Worker(
        {"device": "cpu", "small": True, "weights": None, "folder": folder,
         "checks": {name: f"made_checks:{name}" for name in names}}
    )  # fmt: skip
    yield worker
    worker.end()
    sys.path.remove(str(folder))


def run(worker, name, seconds, all_in=120.0):
    check = Check(name, name, 1, f"made_checks:{name}")
    return gpu_check.run_check(worker, check, seconds, time.monotonic() + all_in)


@pytest.mark.slow
def test_a_case_that_fails_kills_or_breaks_does_not_stop_the_rest(worker):
    record = run(worker, "mixed", 60)
    cases = {case["case"]: case for case in record["cases"]}
    assert list(cases) == ["good", "wrong", "fails", "breaks", "dies", "good_again"]
    assert cases["good"]["value"] == 1
    assert (cases["wrong"]["problem"], cases["wrong"]["value"]) == ("value: expected 1; got 2", 2)
    assert cases["fails"]["problem"] == "ValueError: nothing to see"
    assert cases["fails"]["traceback"][-2:] == ["ValueError: nothing", "to see"]
    assert "illegal memory access" in cases["breaks"]["problem"]
    assert cases["dies"]["problem"] == "the process ended with code 9"
    assert "problem" not in cases["good_again"]
    assert record["left_out"] == []
    assert run(worker, "unset", 30)["cases"][0]["problem"] == "KeyError: 'no cases'"
    assert json.dumps(gpu_check.plain(record), allow_nan=False)


@pytest.mark.slow
def test_no_case_begins_when_the_share_is_used_up(worker):
    worker.start(time.monotonic() + 60)  # its imports are not counted
    record = run(worker, "long", 3)
    n_done = len(record["cases"])
    assert 0 < n_done < 40
    assert record["left_out"] == [f"slow {n}" for n in range(n_done, 40)]
    assert record["seconds"] < 10


@pytest.mark.slow
def test_a_case_that_hangs_is_ended(worker, monkeypatch):
    worker.start(time.monotonic() + 60)  # its imports are not counted
    monkeypatch.setattr(gpu_check, "SLACK", 1.0)
    record = run(worker, "hanging", 2)
    assert [case["case"] for case in record["cases"]] == ["good", "waits"]
    assert record["cases"][1]["problem"].startswith("time: no end within")
    assert record["left_out"] == ["good_again"]
    assert record["seconds"] < 20


@pytest.mark.slow
def test_the_end_of_all_time_is_no_failure_of_a_case(worker):
    worker.start(time.monotonic() + 60)
    record = run(worker, "hanging", 60, all_in=3)
    assert [case["case"] for case in record["cases"]] == ["good"]
    assert record["left_out"] == ["waits", "good_again"]


@pytest.mark.slow
def test_a_device_that_is_not_there_is_refused(tmp_path):
    done = called("--device", "cuda:63", "--out", tmp_path / "check.json")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --device: expected one of this machine; got cuda:63")
    assert not (tmp_path / "check.json").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--minutes", "0"],
        ["--weights", "/no/such/folder"],
        ["--only", "spectra"],
        ["--out", "--device", "cpu"],
    ],
)
def test_arguments_are_checked(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        gpu_check.parse_arguments(arguments[arguments[0] == "--out" :])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


# -- tests of the project -----------------------------------------------------------------------


def test_tests_are_counted():
    assert counts("....\n2 failed, 3 passed, 1 warning in 0.12s") == {
        "failed": 2, "passed": 3, "warnings": 1
    }  # fmt: skip
    assert counts("== 1 passed, 2 skipped in 61.20s (0:01:01) ==") == {"passed": 1, "skipped": 2}
    assert counts("ImportError: no module in 3 files") == {}


@pytest.mark.slow
def test_tests_that_fail_are_a_failure(tmp_path):
    setting = Setting(None, True, None, tmp_path, patience_ends=time.monotonic() + 60)
    file = tmp_path / "test_made.py"
    file.write_text("def test_a(): pass\ndef test_b(): pass\n")
    assert run_tests([str(file)], (), setting)["passed"] == 2
    file.write_text("def test_a(): pass\ndef test_b(): assert 0\n")
    with pytest.raises(WrongResultError, match="expected all to pass") as wrong:
        run_tests([str(file)], (), setting)
    assert (wrong.value.record["failed"], wrong.value.record["passed"]) == (1, 1)
    file.write_text("import time\ndef test_a(): time.sleep(600)\n")
    setting.patience_ends = time.monotonic() + 3
    with pytest.raises(WrongResultError, match="expected an end within 3 s"):
        run_tests([str(file)], (), setting)
