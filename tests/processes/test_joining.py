"""Several processes join, lose one and miss one: however they end, one of them says why."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from natstats.errors import NatstatsError, UsageError
from natstats.processes.environment import place_of, seconds_to_join
from natstats.processes.group import says_lost
from natstats.processes.joining import Processes, joined

# It imports torch once and forks the processes of every case: importing takes longer than they do.
FORKS = """
import json, os, signal, sys, tempfile, time, traceback
import torch, torch.distributed as dist
from natstats.errors import NatstatsError, UsageError
from natstats.processes.joining import joined


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt(number, frame):
    raise KeyboardInterrupt


def work(case):
    torch.set_num_threads(1)
    is_victim = int(os.environ["RANK"]) in case["victims"]
    what, how = case["what"], case["how"]
    if is_victim and how == "never comes":
        return
    with joined(limit=case["limit"]) as together:
        if what == "exchange":
            mine = {"rank": together.rank, "third": 1 / 3, "nan": [None, "ä"]}
            found = [
                [one.decode() for one in together.gather(b"x" * together.rank)],
                together.gather_values(mine),
                together.share(mine),
                together.total(torch.full((2,), 0.1, dtype=torch.float64)).tolist(),
            ]
            together.wait()
            print(json.dumps([together.rank, together.world, *found]))
        for step in range(5 if what != "exchange" else 0):
            if step == 2 and (is_victim or how == "all fail"):
                if how == "is killed":
                    kill()
                elif how == "is interrupted":
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    raise {"fails": NatstatsError, "has a defect": ZeroDivisionError,
                           "all fail": UsageError}[how]("image 7 cannot be read")
            if what == "sum":
                together.total(torch.ones(1000))
            elif what == "gather":
                together.gather(b"x" * 100_000)
            elif what == "wait" or step < 2:
                together.wait()
            else:  # what == "compute", far from the others
                time.sleep(5)


def child(case):
    code = 0
    try:
        signal.signal(signal.SIGTERM, interrupt)
        work(case)
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt:
        code = 128 + signal.SIGTERM
        print("interrupted", file=sys.stderr)
    except BaseException as error:
        code = getattr(error, "exit_code", 1)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(case):
    files, pids = [], []
    for environment in case["environments"]:
        out, err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        files.append((out, err))
        pids.append(os.fork())
        if not pids[-1]:
            os.environ.update(environment)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            child(case)
    began, codes = time.monotonic(), {}
    signalled = not case.get("signal_after")
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if not signalled and passed > case["signal_after"]:
            signalled = True
            for pid in pids:
                os.kill(pid, signal.SIGTERM)
        if passed > 60:
            for pid in set(pids) - set(codes):
                os.kill(pid, signal.SIGKILL)
                codes[pid] = "it did not end"
                os.waitpid(pid, 0)
        time.sleep(0.02)

    def read(file):
        file.seek(0)
        return file.read()

    return [[codes[pid], *map(read, both)] for pid, both in zip(pids, files)]


for line in sys.stdin:
    print(json.dumps(run(json.loads(line))), flush=True)
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def forks():
    clean = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    process = subprocess.Popen(
        [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**clean, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"},
    )  # fmt: skip
    with process:
        yield process
        process.stdin.close()


@pytest.fixture
def run(forks):
    """Codes and what is said on stdout and stderr, of processes that work together."""

    def ran(world, what="wait", how="", victims=(), *, limit=30.0, worlds=None, ranks=None, **more):
        port = str(free_port())
        environments = [
            {"RANK": str(rank), "WORLD_SIZE": str(one), "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": port}
            for rank, one in zip(ranks or range(world), worlds or [world] * world, strict=True)
        ]  # fmt: skip
        case = {"environments": environments, "what": what, "how": how, "victims": list(victims),
                "limit": limit, **more}  # fmt: skip
        forks.stdin.write(f"{json.dumps(case)}\n")
        forks.stdin.flush()
        codes, out, err = zip(*json.loads(forks.stdout.readline()), strict=True)
        return list(codes), list(out), list(err)

    return ran


def the_one(err):
    """What the one process says that speaks."""
    (said,) = [text for text in err if text]
    (line,) = said.splitlines()
    return line


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_processes_exchange_what_they_have(run, world):
    codes, out, err = run(world, "exchange")
    assert codes == [0] * world, err
    mine = [{"rank": rank, "third": 1 / 3, "nan": [None, "ä"]} for rank in range(world)]
    total = [pytest.approx(0.1 * world, rel=1e-15)] * 2
    for rank, text in enumerate(out):
        gathered = [["x" * other for other in range(world)], mine] if rank == 0 else [[], []]
        assert json.loads(text) == [rank, world, *gathered, mine[0], total]


def test_a_single_process_has_what_it_gives():
    with joined() as alone:
        assert (alone.rank, alone.world, alone.is_first) == (0, 1, True)
        value = {"images": (1, 2)}
        assert alone.share(value) is value
        assert alone.gather_values(value) == [value]
        alone.wait()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sum", "wait", "gather", "compute"])
@pytest.mark.parametrize(("world", "victim"), [(2, 0), (2, 1), (3, 0), (3, 2)])
def test_a_killed_process_ends_all_and_one_says_so(run, what, world, victim):
    codes, _, err = run(world, what, "is killed", [victim])
    assert codes == [-9 if rank == victim else 1 for rank in range(world)]
    said = the_one(err)
    assert f"NatstatsError: processes: expected all {world} processes to go on; " in said
    assert f"rank {victim} (process " in said
    assert "was killed, perhaps for lack of memory" in said
    if victim > 0:
        assert err[0], "the first speaks where it lives"


@pytest.mark.slow
def test_all_but_one_are_killed(run):
    codes, _, err = run(3, "sum", "is killed", [0, 1])
    assert codes == [-9, -9, 1]
    assert "rank 0 (process " in the_one(err)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fails", "has a defect"])
@pytest.mark.parametrize("what", ["sum", "compute"])
@pytest.mark.parametrize("victim", [0, 1])
def test_an_error_of_one_is_told_by_that_one(run, how, what, victim):
    codes, _, err = run(3, what, how, [victim])
    assert codes == [1, 1, 1]
    assert the_one(err).endswith("Error: image 7 cannot be read")
    assert err[victim]


@pytest.mark.slow
def test_an_error_of_all_is_told_once(run):
    codes, _, err = run(3, "wait", "all fail")
    assert codes == [2, 2, 2]
    assert the_one(err) == "UsageError: image 7 cannot be read"


@pytest.mark.slow
def test_an_interruption_of_all_is_told_by_the_first(run):
    codes, _, err = run(3, "compute", signal_after=4.0)
    assert codes == [143, 143, 143]
    assert err == ["interrupted\n", "", ""]


@pytest.mark.slow
def test_an_interruption_of_one_ends_all(run):
    codes, _, err = run(2, "compute", "is interrupted", [1])
    assert codes == [1, 143]
    assert "rank 1 (process " in err[0]
    assert "was interrupted" in the_one(err)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [[1], [0], [0, 2], [1, 2]])
def test_who_never_comes_is_missed(run, victims):
    began = time.monotonic()
    codes, _, err = run(3, "wait", "never comes", victims, limit=1.5)
    assert time.monotonic() - began < 30
    assert codes == [0 if rank in victims else 1 for rank in range(3)]
    said = the_one(err)
    assert "processes: expected 3 processes within 1.5 s; " in said
    if 0 in victims:
        assert "rank 0 is missing: nobody answers at 127.0.0.1:" in said
    elif victims == [1]:
        assert "2 came, and rank 1 is missing" in said
    else:
        assert "1 came, and ranks 1, 2 are missing" in said


@pytest.mark.slow
def test_processes_that_contradict_each_other_are_refused(run):
    codes, _, err = run(2, worlds=[2, 3], limit=3.0)
    assert codes[0] in (1, 2)
    assert "WORLD_SIZE: expected the same number in all processes" in "".join(err)
    codes, _, err = run(3, ranks=[0, 1, 1], limit=1.5)
    assert "RANK: expected a number that no other process has; 1 came twice" in "".join(err)
    assert not any("defect" in text for text in err)


WELL = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("RANK", "two", "a whole number from 0 to 1, as WORLD_SIZE is 2; got 'two'"),
        ("RANK", "2", "a whole number from 0 to 1, as WORLD_SIZE is 2; got '2'"),
        ("RANK", "-1", "a whole number from 0 to 1, as WORLD_SIZE is 2; got '-1'"),
        ("RANK", "", "a whole number from 0 to 1, as WORLD_SIZE is 2; got ''"),
        ("RANK", None, "the number of this process beside WORLD_SIZE=2; it is not set"),
        ("WORLD_SIZE", "0", "a whole number from 1 to 65536; got '0'"),
        ("WORLD_SIZE", "2.0", "a whole number from 1 to 65536; got '2.0'"),
        ("WORLD_SIZE", "1_0", "a whole number from 1 to 65536; got '1_0'"),
        ("WORLD_SIZE", "9" * 5000, f"a whole number from 1 to 65536; got '{'9' * 60}'"),
        ("WORLD_SIZE", None, "the number of processes beside RANK='1'; it is not set"),
        ("LOCAL_RANK", "2", "a whole number from 0 to 1; got '2'"),
        ("LOCAL_WORLD_SIZE", "3", "a whole number from 1 to 2, as WORLD_SIZE is 2; got '3'"),
        ("MASTER_ADDR", None, "the name or address of the host of rank 0; it is not set"),
        ("MASTER_ADDR", "a b", "the name or address of the host of rank 0; got 'a b'"),
        ("MASTER_PORT", "0", "a whole number from 1 to 65535; got '0'"),
        ("MASTER_PORT", "http", "a whole number from 1 to 65535; got 'http'"),
        ("MASTER_PORT", None, "a whole number from 1 to 65535; it is not set"),
    ],
)
def test_a_malformed_environment_is_refused_by_name(name, value, expected):
    given = {k: v for k, v in {**WELL, name: value}.items() if v is not None}
    with pytest.raises(UsageError) as e:
        place_of(given)
    assert str(e.value) == f"{name}: expected {expected}"


def test_one_process_needs_no_environment():
    assert place_of({}) is None
    assert place_of({"WORLD_SIZE": "1"}) is None
    assert place_of({"RANK": "0", "WORLD_SIZE": "1"}) is None
    with pytest.raises(UsageError):
        place_of({"RANK": "x", "WORLD_SIZE": "1"})


NAMES = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]


@given(st.dictionaries(st.sampled_from(NAMES), st.text("0123456789-_. \n\x00é٣", max_size=7)))
def test_any_environment_is_a_place_or_refused_in_one_line(given):
    place, refused = None, ""
    try:
        place = place_of(given)
    except UsageError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
        assert refused.split(":")[0] in NAMES
    else:
        assert place is None or 0 <= place.rank < place.world == int(given["WORLD_SIZE"])


@pytest.mark.parametrize("value", ["", "soon", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_refused(monkeypatch, value):
    monkeypatch.setenv("NATSTATS_JOIN_SECONDS", value)
    with pytest.raises(UsageError, match="NATSTATS_JOIN_SECONDS: expected a number of seconds"):
        seconds_to_join()


# What gloo, its store and NCCL said where another process had been killed.
@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [::1]:3"),
        RuntimeError("Application timeout caused pair closure: Connection reset by peer"),
        torch.distributed.DistNetworkError("failed to recv, got 0 bytes"),
        torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0"),
    ],
)
def test_what_is_said_of_a_lost_process_is_known(error):
    assert says_lost(error)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("shapes differ"), NatstatsError("timed out"), BrokenPipeError(32, "Broken pipe")],
)
def test_an_error_of_its_own_is_not_taken_for_a_lost_process(error):
    assert not says_lost(error)


def test_a_group_of_the_caller_is_taken(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        with joined() as together:
            assert together == Processes(0, 1, torch.device("cpu"))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_the_command_is_a_module_too():
    done = subprocess.run(
        [sys.executable, "-m", "natstats_cli", "--version"], capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("natstats, version ")


UNDER_AN_AGENT = """
import os, signal, sys, time
import natstats.processes.joining


def interrupt(number, frame):
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, interrupt)
try:
    with natstats.processes.joining.joined() as together:
        together.wait()
        if together.rank == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(30)
except natstats.NatstatsError as error:
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(error.exit_code)
except KeyboardInterrupt:
    print("Error: interrupted", file=sys.stderr)
    sys.exit(143)
"""


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_under_an_agent_one_says_why(tmp_path, victim):
    script = tmp_path / "work.py"
    script.write_text(UNDER_AN_AGENT)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3",
         str(script), str(victim)],
        capture_output=True, text=True, timeout=180, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert f"rank {victim} (process " in said
    assert f"exitcode  : -{signal.SIGKILL:d} " in done.stderr
    assert done.stderr.count("exitcode  : 143 ") == 2
