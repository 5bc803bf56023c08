"""A small study, workers that train in this process or answer at once, and its rows."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

import distill_table
from distill_jobs import Outcome, train
from distill_rows import Rows
from distill_studies import ARMS, CONTRASTS, STUDIES, Network, Setting, Study, Teacher

RESNET8 = Network("cifar_resnet8")
TINY = Study(
    name="tiny",
    title="tiny",
    size=16,
    recipe={"batch_size": 8, "learning_rate": 0.05, "augmentation_seed": 0, "draws": 2},
    teachers={"r": Teacher(RESNET8, 1)},
    settings=(Setting("a", RESNET8, "r", None, 1, 2, ("ce", "kd", "kd+spectral")),),
    arms=ARMS,
    contrasts=CONTRASTS,
    budget_setting="a",
    budgets=(1, 2),
    budget_seeds=1,
)


class InOne:
    """Trains in this process, in place of workers."""

    def __init__(self, *_, most=10**6):
        self.most, self.trained = most, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def run(self, jobs, done, deadline=None):
        for place, job in enumerate(jobs):
            if len(self.trained) >= self.most:
                return False
            self.trained.append(job)
            done(place, self.outcome(job))
        return True

    def outcome(self, job):
        return train(job)


class Made(InOne):
    """Answers without a training; kd is better than ce, and spectral adds nothing."""

    def outcome(self, job):
        rng = np.random.default_rng([job.seed, len(job.method)])
        job.out.mkdir(parents=True, exist_ok=True)
        (job.out / "distill.json").touch()
        weight = job.arguments.get("kd.weight", 0.9)
        accuracy = 0.6 + 0.1 * job.method.startswith("kd") - 0.1 * (weight != 0.9)
        accuracy += 0.05 * np.sin(job.seed) + 0.002 * rng.normal()
        facts = {"epochs": 4, "n_train": 100, "n_eval": 50, "seconds": 8.0, "split": "test"}
        return Outcome(accuracy, facts, ((2, accuracy - 0.1), (4, accuracy)))


WIDER = replace(TINY, settings=(replace(TINY.settings[0], is_wider=True),))


class Peaked(Made):
    """Answers without a training; one weight of kd is best, and above another it breaks down."""

    def __init__(self, best, breaks, slope=0.1, **settings):
        super().__init__(**settings)
        self.best, self.breaks, self.slope = best, breaks, slope

    def outcome(self, job):
        weight = job.arguments.get("kd.weight", 1.0)
        if weight > self.breaks:
            return Outcome(float("nan"), error="kd is not finite")
        apart = abs(np.log10(weight / self.best))
        return replace(super().outcome(job), accuracy=0.8 - self.slope * apart)


def runner(tmp_path, monkeypatch):
    """A function that runs the command on the tiny study with workers of this process."""
    monkeypatch.setitem(STUDIES, "tiny", TINY)

    def call(*arguments, workers=None, study=TINY, data="data"):
        monkeypatch.setitem(STUDIES, "tiny", study)
        workers = Made() if workers is None else workers
        monkeypatch.setattr(distill_table, "Workers", lambda *_: workers)
        places = ["--results", tmp_path / "results", "--figures", tmp_path / "figures"]
        own = ["--study", "tiny", "--data", data, "--work", tmp_path / "work", *places]
        (tmp_path / "results").mkdir(exist_ok=True)
        distill_table.main([str(one) for one in (*own, *arguments)])
        return workers.trained

    return call


def rows_in(folder):
    return Rows(folder, "tiny")
