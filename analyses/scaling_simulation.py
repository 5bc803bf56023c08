"""What failures and slow machines cost a measurement that is shared, and how often to save it.

    python analyses/scaling_simulation.py
    python analyses/scaling_simulation.py --repeats 200

Two ways to share N images among P processes are simulated, event by event:

* torchrun: equal shares, all processes end when one dies and begin again from their last states;
* array: many small parts, taken one after the other by P processes; one that dies goes on with its
  part from its last state, and nobody waits for it.

A process fails at random moments (exponential, mean `mtbf`), is back after `restart` seconds, saves
every `every` seconds, which takes `cost` seconds, and is slower than the others by a factor of its
own: lognormal, and a share of stragglers at a third of the speed. Printed: the time that it takes
over the time of P equal processes that never fail, median and 95 % quantile, beside the formula

    slowest (1 + cost / every) / (1 - (P / mtbf) (restart + every / 2))        torchrun
    (1 + 1 / (2 parts)) (1 + cost / every) / (1 - (restart + every / 2) / mtbf)    array

where `slowest` is what the slowest of P lognormal speeds costs, stragglers left aside, and `parts`
the number of parts for each process, half of one of which is waited for in the end; and the
interval of saving at which the first is least, sqrt(2 cost mtbf / P).

Writes analyses/results/scaling_simulation.csv.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

RESULTS = Path(__file__).parent / "results" / "scaling_simulation.csv"

PARTS = 20
"""Parts of an array for each process."""


@dataclass(frozen=True)
class Case:
    """A measurement and the machines it runs on; times in seconds.

    Attributes:
        name: in words.
        processes: that share the images.
        work: time that one process would need for all images, over `processes`.
        mtbf: mean time between failures of one process.
        restart: until a process is back at work.
        every: between two times that a state is saved.
        cost: of saving.
        stragglers: share of the processes that have a third of the speed.
        spread: of the logarithm of the speeds of the others.
    """

    name: str
    processes: int
    work: float
    mtbf: float
    restart: float = 60.0
    every: float = 60.0
    cost: float = 0.1
    stragglers: float = 0.0
    spread: float = 0.02

    def speeds(self, generator: np.random.Generator) -> np.ndarray:
        """Of all processes, 1 for the usual one."""
        speeds = np.exp(generator.normal(0, self.spread, self.processes))
        n_slow = generator.binomial(self.processes, self.stragglers)
        speeds[:n_slow] /= 3
        return speeds

    def formula(self, together: bool) -> float:
        """What it costs by the formula, without stragglers; infinite where it never ends."""
        rate = (self.processes if together else 1) / self.mtbf
        rank = (self.processes - 0.375) / (self.processes + 0.25)
        slowest = float(np.exp(self.spread * stats.norm.ppf(rank)))
        waiting = slowest if together else 1 + 1 / (2 * PARTS)
        left = 1 - rate * (self.restart + self.every / 2)
        return waiting * (1 + self.cost / self.every) / left if left > 0 else np.inf

    def best_interval(self) -> float:
        """The interval of saving at which torchrun loses least."""
        return float(np.sqrt(2 * self.cost * self.mtbf / self.processes))


def torchrun(case: Case, generator: np.random.Generator) -> float:
    """Time of equal shares that all begin again when one process dies, over that without loss."""
    speed = case.speeds(generator) * case.every / (case.every + case.cost)
    left = np.full(case.processes, case.work)
    now = 0.0
    while True:
        needed = float((left / speed).max())
        failure = generator.exponential(case.mtbf / case.processes)
        if failure >= needed:
            return (now + needed) / case.work
        # Every process is somewhere between two of its own savings.
        since = generator.uniform(0, min(case.every, failure), case.processes)
        left = np.maximum(left - speed * np.maximum(failure - since, 0), 0)
        now += failure + case.restart


def array(case: Case, generator: np.random.Generator, parts: int = PARTS) -> float:
    """Time of `parts` small parts for each process, taken as they are free, over that without."""
    speed = case.speeds(generator) * case.every / (case.every + case.cost)
    size = case.work / parts
    free = [(0.0, number) for number in range(case.processes)]
    end = 0.0
    for _ in range(parts * case.processes):
        now, number = heappop(free)
        left = size
        while True:
            failure = generator.exponential(case.mtbf)
            if failure >= left / speed[number]:
                now += left / speed[number]
                break
            done = speed[number] * max(failure - generator.uniform(0, case.every), 0)
            left = max(left - done, 0)
            now += failure + case.restart
        end = max(end, now)
        heappush(free, (now, number))
    return end / case.work


HOUR, DAY = 3600.0, 86400.0
CASES = (
    Case("8 processes, 1 h", 8, HOUR, 30 * DAY),
    Case("64 processes, 6 h", 64, 6 * HOUR, 30 * DAY),
    Case("64 processes, 6 h, 2 % at a third of the speed", 64, 6 * HOUR, 30 * DAY, stragglers=0.02),
    Case("1,024 processes, 24 h", 1024, 24 * HOUR, 30 * DAY),
    Case("1,024 processes, 24 h, saved every 10 min", 1024, 24 * HOUR, 30 * DAY, every=600.0),
    Case("1,024 processes that are taken away every 4 h, 24 h", 1024, 24 * HOUR, 4 * HOUR),
)


def main() -> None:
    """Simulate, print and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=100)
    repeats = parser.parse_args().repeats
    rows = []
    for case in CASES:
        row: dict[str, object] = {"case": case.name, "best_interval": case.best_interval()}
        for name, way in (("torchrun", torchrun), ("array", array)):
            row[f"{name}_formula"] = case.formula(name == "torchrun")
            if name == "torchrun" and case.mtbf / case.processes < case.restart:
                row |= {f"{name}_median": np.nan, f"{name}_95": np.nan}  # it never ends
                continue
            generator = np.random.default_rng(0)
            found = [way(case, generator) for _ in range(repeats)]
            row |= {f"{name}_median": np.median(found), f"{name}_95": np.quantile(found, 0.95)}
        rows.append(row)
        print(pd.DataFrame(rows[-1:]).to_string(index=False, float_format="%.3f"), flush=True)
    pd.DataFrame(rows).to_csv(RESULTS, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
