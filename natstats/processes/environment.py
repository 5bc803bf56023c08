"""What ``torchrun``, or another launcher, tells each process in its environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from natstats.checks import finite
from natstats.errors import UsageError
from natstats.text import printable

__all__ = ["Place", "place_of", "seconds_to_join"]

_MOST = 65_536
"""Most processes: a larger number is a mistake in a script."""

_MOST_PORT = 65_535

_SECONDS_TO_JOIN = 120.0


@dataclass(frozen=True)
class Place:
    """The place of this process among those that work together.

    Attributes:
        rank: its number, from 0.
        world: how many processes there are.
        local_rank: its number among those of its machine; 0 where it is not set.
        address: host of the process with rank 0.
        port: port of that host at which the processes meet.
        keeper: whether torchrun's agent hosts the store that the processes share; else rank 0 does.
        attempt: text that tells this start of the processes from every other.
    """

    rank: int
    world: int
    local_rank: int = 0
    address: str = ""
    port: int = 0
    keeper: bool = False
    attempt: str = ""


def place_of(environment: Mapping[str, str] | None = None) -> Place | None:
    """Read the place of this process; None where it is not one of several.

    Args:
        environment: variables to read in place of those of the process.

    Raises:
        UsageError: a variable is missing or invalid; the error names it.

    >>> place_of({"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"})
    Place(rank=1, world=2, local_rank=0, address='node7', port=29500, keeper=False, attempt='')
    >>> place_of({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"})
    Traceback (most recent call last):
    natstats.errors.UsageError: RANK: expected a whole number from 0 to 1, as WORLD_SIZE is 2; got \
'2'
    """
    given = os.environ if environment is None else environment
    if "WORLD_SIZE" not in given:
        if "RANK" not in given:
            return None
        raise UsageError(
            f"WORLD_SIZE: expected the number of processes beside RANK={_shown(given['RANK'])}; it "
            "is not set"
        )
    world = _whole(given, "WORLD_SIZE", 1, _MOST)
    if "RANK" not in given:
        if world == 1:
            return None
        raise UsageError(
            f"RANK: expected the number of this process beside WORLD_SIZE={world}; it is not set"
        )
    rank = _whole(given, "RANK", 0, world - 1, f", as WORLD_SIZE is {world}")
    on_machine, why = world, ""
    if "LOCAL_WORLD_SIZE" in given:
        on_machine = _whole(given, "LOCAL_WORLD_SIZE", 1, world, f", as WORLD_SIZE is {world}")
        why = f", as LOCAL_WORLD_SIZE is {on_machine}"
    local_rank = 0
    if "LOCAL_RANK" in given:
        local_rank = _whole(given, "LOCAL_RANK", 0, on_machine - 1, why)
    if world == 1:
        return None
    address = given.get("MASTER_ADDR")
    if address is None or not re.fullmatch(r"[\w.:%-]{1,255}", address, re.ASCII):
        raise UsageError(
            f"MASTER_ADDR: expected the name or address of the host of rank 0; {_came(address)}"
        )
    port = _whole(given, "MASTER_PORT", 1, _MOST_PORT)
    parts = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID")
    return Place(
        rank,
        world,
        local_rank,
        address,
        port,
        given.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        "/".join(given[part] for part in parts if part in given),
    )


def seconds_to_join(limit: float | None = None) -> float:
    """Seconds within which all processes must have joined.

    Args:
        limit: seconds that the caller asks for; None for the variable NATSTATS_JOIN_SECONDS, or 120
            where it is not set.

    Raises:
        UsageError: `limit` or the variable is no number of seconds above 0.

    >>> seconds_to_join(3)
    3.0
    """
    if limit is not None:
        return finite("limit", limit, above=0)
    text = os.environ.get("NATSTATS_JOIN_SECONDS")
    try:
        seconds = _SECONDS_TO_JOIN if text is None else float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise UsageError(
            f"NATSTATS_JOIN_SECONDS: expected a number of seconds above 0; {_came(text)}"
        )
    return seconds


def _whole(given: Mapping[str, str], name: str, low: int, high: int, why: str = "") -> int:
    text = given.get(name)
    # Not int() alone, which takes underscores and the digits of other scripts.
    number = int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text.strip()) else -1
    if not low <= number <= high:
        raise UsageError(
            f"{name}: expected a whole number from {low} to {high}{why}; {_came(text)}"
        )
    return number


def _came(text: str | None) -> str:
    return "it is not set" if text is None else f"got {_shown(text)}"


def _shown(text: str) -> str:
    return repr(printable(text)[:60])
