"""The claim of spectral distillation put to a test: teachers, weights, methods, variants, budgets.

    python analyses/distill_table.py --study textures --data DIR --work runs/studies

trains what the record of the study says (analyses/distill_studies.py), in parts that can be run one
by one (`--part`):

* teacher: the teachers, one of them without the held-out images where weights are chosen with it;
* weights: three candidates for the weight of every method, and more beyond an end that is best
  where the record says so; on the held-out images, with seeds that no other part has and as many
  epochs as the final trainings;
* main: every method with its chosen weight, on the test images after the last epoch;
* ablation: variants of the spectral terms and other terms beside kd, each with a grid of its own,
  all on the held-out images;
* budget: some methods with fewer and more epochs.

Trainings are ordered seed by seed, so that a study that was cut is balanced; what is finished is
taken as it is. Every training adds a row to distill_STUDY_rows.csv and its curve to
distill_STUDY_curves.csv, in --work and in --results. `--report` writes tables and figures from the
rows that there are, and trains nothing::

    python analyses/distill_table.py --study textures --report
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from distill_jobs import Outcome, Workers
from distill_parts import PARTS, Planned, Work, available
from distill_report import write_report
from distill_rows import Rows
from distill_studies import STUDIES, Arm, Setting, Study, arms_of, at_budgets, digest

from natstats.distill.training.distillation import WEIGHTS

ROOT = Path(__file__).parents[1]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Spectral distillation put to a test.")
    parser.add_argument("--study", required=True, choices=list(STUDIES))
    parser.add_argument("--data", help="folder with train/CLASS and val/CLASS")
    parser.add_argument("--work", type=Path, help="the runs go below")
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--settings", nargs="+", help="of the study; all by default")
    parser.add_argument("--arms", nargs="+", help="of the study; all by default")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--minutes", type=float, help="begin no training after this time")
    parser.add_argument("--weights", type=Path, help="folder of published weights")
    parser.add_argument(
        "--teacher-checkpoint", nargs="+", default=[], metavar="TEACHER=FILE",
        help="weights of a trained teacher, in place of part teacher",
    )  # fmt: skip
    parser.add_argument("--no-cache", action="store_true", help="run the teacher at every step")
    parser.add_argument("--results", type=Path, default=ROOT / "analyses" / "results")
    parser.add_argument("--figures", type=Path, default=ROOT / "docs" / "distillation")
    parser.add_argument("--report", action="store_true", help="write tables and figures only")
    args = parser.parse_args(arguments)
    if not args.report and (args.data is None or args.work is None):
        parser.error("expected --data and --work, or --report")
    return args


class Runner:
    """Trains the parts of a study, and keeps their rows.

    Args:
        work: where and how.
        rows: of the study.
        args: of the command line.
        workers: the processes that train.
    """

    def __init__(self, work: Work, rows: Rows, args: argparse.Namespace, workers: Workers) -> None:
        self.work, self.rows, self.args, self.workers = work, rows, args, workers
        self.study = work.study
        self.deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
        self._skipped: set[str] = set()

    def run(self, part: str) -> None:
        """Train a part, as far as the time goes."""
        {
            "teacher": self._teachers, "weights": self._weights, "main": self._main,
            "ablation": self._ablation, "budget": self._budget,
        }[part]()  # fmt: skip

    def _teachers(self) -> None:
        self._train(self.work.teachers())

    def _weights(self) -> None:
        for setting in self._settings():
            self._choose(setting, self._arms(setting), "weights")

    def _main(self) -> None:
        for setting in self._settings():
            arms = self._arms(setting)
            chosen = self._chosen(setting, arms, "weights")
            self._train(self.work.final(setting, arms, chosen, range(setting.seeds), "main"))

    def _ablation(self) -> None:
        study = self.study
        if not study.ablation_setting:
            return
        setting = study.setting(study.ablation_setting)
        arms = self._known(study.ablation)
        self._choose(setting, arms, "ablation")
        chosen = self._chosen(setting, arms, "ablation")
        self._train(
            self.work.final(setting, arms, chosen, study.ablation_seeds, "ablation", study.holdout)
        )

    def _budget(self) -> None:
        study = self.study
        if not study.budget_setting:
            return
        setting = study.setting(study.budget_setting)
        arms = [arm for arm in self._arms(setting) if arm.name in study.budget_arms]
        chosen = self._chosen(setting, self._arms(setting), "weights")
        for each in at_budgets(setting, study.budgets):
            self._train(self.work.final(each, arms, chosen, range(study.budget_seeds), "budget"))

    def _settings(self) -> list[Setting]:
        asked = self.args.settings or [setting.name for setting in self.study.settings]
        unknown = set(asked) - {setting.name for setting in self.study.settings}
        if unknown:
            listed = ", ".join(setting.name for setting in self.study.settings)
            raise SystemExit(f"--settings: expected some of {listed}; got {', '.join(unknown)}")
        return [self.study.setting(name) for name in asked]

    def _arms(self, setting: Setting) -> list[Arm]:
        return self._known(arms_of(self.study, setting))

    def _known(self, arms: Sequence[Arm]) -> list[Arm]:
        """Those that were asked for and can be trained; others are told once."""
        asked = set(self.args.arms or [arm.name for arm in arms])
        # What others stand beside is chosen with them.
        asked |= {arm.beside for arm in arms if arm.name in asked and arm.beside}
        found = []
        for arm in arms:
            reason = available(arm)
            if reason and arm.name not in self._skipped:
                self._skipped.add(arm.name)
                print(f"{arm.name} is left out: {reason}", flush=True)
            if not reason and arm.name in asked:
                found.append(arm)
        return found

    def _choose(self, setting: Setting, arms: Sequence[Arm], part: str) -> None:
        """The grids, first of the arms that others stand beside."""
        for wave in ([a for a in arms if not a.beside], [a for a in arms if a.beside]):
            is_longer = True
            while is_longer:  # by what the candidates so far came to
                rows = self.rows.rows
                chosen, _ = self.work.chosen(setting, arms, rows, part)
                ready = [arm for arm in wave if not arm.beside or arm.beside in chosen]
                is_longer = self._train(self.work.choosing(setting, ready, chosen, rows, part))

    def _chosen(
        self, setting: Setting, arms: Sequence[Arm], part: str
    ) -> Mapping[str, dict[str, Any]]:
        chosen, _ = self.work.chosen(setting, arms, self.rows.rows, part)
        missing = [arm.name for arm in arms if arm.name not in chosen]
        if missing:
            print(
                f"{setting.name}: left out until their weights are chosen "
                f"(--part {part}): {', '.join(missing)}",
                flush=True,
            )
        return chosen

    def _train(self, planned: Sequence[Planned]) -> bool:
        """Train what has no row yet, teachers first; whether there was any."""
        waiting = [
            one for one in planned
            if not self.rows.has(one.setting, one.job.key, one.job.seed)
            or (one.part == "teacher" and not one.job.is_done)
        ]  # fmt: skip
        needed = {one.job.teacher_weights for one in waiting}
        teachers = [
            one for one in self.work.teachers()
            if one.job.out / WEIGHTS in needed
            and not (one.job.is_done and self.rows.has(one.setting, one.job.key, one.job.seed))
        ]  # fmt: skip
        if teachers:
            self._train(teachers)
        if not waiting:
            return False
        self.work.need_starts(one for one in waiting if one.part == "teacher")
        first = waiting[0]
        began = time.monotonic()
        n = 0

        def done(place: int, outcome: Outcome) -> None:
            nonlocal n
            n += 1
            one = waiting[place]
            self.rows.add(one.facts(), outcome)
            minutes = (time.monotonic() - began) / 60
            left = minutes / n * (len(waiting) - n)
            said = f"{100 * outcome.accuracy:.2f} %" if not outcome.error else outcome.error
            print(
                f"{one.part} {one.setting} {one.arm} seed {one.job.seed}: {said} ({n} of "
                f"{len(waiting)}, {minutes:.1f} min, about {left:.0f} left)",
                flush=True,
            )

        print(f"{first.part} {first.setting}: {len(waiting)} trainings", flush=True)
        jobs = [one.job for one in waiting]
        if not self.workers.run(jobs, done, self.deadline):
            raise SystemExit(
                f"{first.part}: {len(waiting) - n} trainings are left; the same command goes on"
            )
        return True


def checkpoints(study: Study, given: Sequence[str]) -> dict[str, Path]:
    """Teachers that are there, from TEACHER=FILE."""
    found = {}
    for text in given:
        name, _, file = text.partition("=")
        if name not in study.teachers or not Path(file).is_file():
            raise SystemExit(
                f"--teacher-checkpoint: expected TEACHER=FILE with one of "
                f"{', '.join(study.teachers)} and a file that is there; got {text!r}"
            )
        found[name] = Path(file)
    return found


def fix_plan(study: Study, path: Path) -> None:
    """Write what is tested before it is trained; a plan that was changed later is seen."""
    plans = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    planned = study.planned()
    if not plans or plans[-1]["digest"] != digest(planned):
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        plans.append({"digest": digest(planned), "fixed": when, **planned})
        path.write_text(json.dumps(plans, indent=1) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the parts, or report what there is."""
    args = parse_arguments(arguments)
    study = STUDIES[args.study]
    folder = (args.work or args.results) / ("" if args.work is None else study.name)
    rows = Rows(folder, study.name, args.results)
    work = Work(
        study, f"imagefolder:{args.data}", folder, args.weights,
        checkpoints(study, args.teacher_checkpoint), not args.no_cache,
    )  # fmt: skip
    if args.report:
        write_report(work, rows, args.results, args.figures)
        return
    args.results.mkdir(parents=True, exist_ok=True)
    fix_plan(study, args.results / f"distill_{study.name}_plan.json")
    with Workers(args.processes, ["python", *sys.argv]) as workers:
        runner = Runner(work, rows, args, workers)
        for part in args.part:
            runner.run(part)
    shown = rows.rows[np.isfinite(rows.rows.accuracy)]
    print(f"{study.name}: {len(shown)} rows; --report writes the tables", flush=True)


if __name__ == "__main__":
    main()
