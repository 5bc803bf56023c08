"""Tables and sentences of a study from the rows that there are, finished or not.

Not a study by itself: ``analyses/distill_table.py --report`` calls it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distill_cells import LEVEL, Accuracies, ends_of, first_reach, gain, spread, with_ends
from distill_figures import draw
from distill_parts import Planned, Work, available
from distill_rows import Rows
from distill_studies import Arm, Setting, arms_of, at_budgets, digest
from study import circumstances

from natstats.distill.comparison.contrasts import contrast_frame, contrast_rows, with_verdicts
from natstats.distill.comparison.pooled import pooled_difference, pooled_variance
from natstats.distill.report.contrast_tables import (
    CONTRAST_HEADS,
    contrast_cells,
    contrast_sentences,
)
from natstats.distill.report.method_tables import markdown
from natstats.files.csv_files import write_csv
from natstats.numbers import count
from natstats.runs.store import to_json

__all__ = ["Report", "write_report"]

RIVALS = ("kd", "at", "ofd", "dkd", "kd+ofd", "kd+fitnets", "kd+spatial")
"""The arms of the goal are to be above the first, and no worse than the others. The last three
stand for other features that are compared through a connector beside kd."""

MOST_SAID = 8
"""Most contrasts that are said one by one; of more it is counted what came out."""


class Report:
    """What the rows of a study say.

    Args:
        work: the study; where it was trained does not matter.
        rows: its rows and curves.
    """

    def __init__(self, work: Work, rows: Rows) -> None:
        self.work, self.study = work, work.study
        self.rows, self.curves = rows.rows, rows.curves
        self.frames: list[pd.DataFrame] = []
        self.sentences: list[str] = []
        self.chosen: list[dict[str, Any]] = []
        self.goals: list[dict[str, Any]] = []

    def parts(self) -> list[str]:
        """Markdown, part by part."""
        texts = [f"### {self.study.title}", *self._teachers(), *filter(None, [self.study.note])]
        for setting in self.study.settings:
            texts += self._setting(setting)
        return [*texts, *self._ablation(), *self._budget()]

    # Rows.

    def accuracies(self, planned: Sequence[Planned], arms: Sequence[Arm] = ()) -> Accuracies:
        """Accuracy of every arm by seed, of the trainings that came to an end.

        Args:
            planned: the trainings.
            arms: of which some may have none yet; they count as planned all the same.
        """
        found: Accuracies = {name: {} for name in _names(planned, arms)}
        known = self._by_key(planned)
        for one in planned:
            row = known.get((one.job.key, one.job.seed))
            if row is not None and np.isfinite(row["accuracy"]):
                found[one.arm][one.job.seed] = float(row["accuracy"])
        return found

    def _by_key(self, planned: Sequence[Planned]) -> dict[tuple[str, int], dict[Any, Any]]:
        settings = {one.setting for one in planned}
        own = self.rows[self.rows.setting.isin(settings)]
        return {(row["key"], row["seed"]): row for row in own.to_dict("records")}

    def n_images(self, planned: Sequence[Planned]) -> int | None:
        """How many images all these trainings were evaluated on; None where that is not one."""
        found = {row["n_eval"] for row in self._by_key(planned).values()}
        found = {int(n) for n in found if n is not None and np.isfinite(n)}
        return found.pop() if len(found) == 1 else None

    def main(self, setting: Setting) -> list[Planned]:
        """The final trainings of a setting."""
        arms = [arm for arm in arms_of(self.study, setting) if not available(arm)]
        chosen, tried = self.work.chosen(setting, arms, self.rows, "weights")
        self.chosen += [one for one in tried if one["held_out"] is not None]
        return self.work.final(setting, arms, chosen, range(setting.seeds), "main")

    # Parts.

    def _teachers(self) -> list[str]:
        own = self.rows[(self.rows.part == "teacher") & (self.rows.arm == "whole")]
        if not len(own):
            return []
        said = [
            f"{row['setting']} ({self.study.teachers[row['setting']].network.name}) "
            f"{100 * row['accuracy']:.1f} % of {row['n_eval']:.0f} test images"
            for row in own.drop_duplicates("setting", keep="last").to_dict("records")
            if row["setting"] in self.study.teachers
        ]
        return [f"Teachers: {', '.join(said)}."]

    def _setting(self, setting: Setting) -> list[str]:
        planned = self.main(setting)
        arms = [arm for arm in arms_of(self.study, setting) if not available(arm)]
        found = self.accuracies(planned, arms)
        known = {name: own for name, own in found.items() if own}
        if not known:
            return []
        head = (
            f"#### {setting.name}: {setting.student.name} from "
            f"{self.study.teachers[setting.teacher].network.name}, "
            f"{_limit(setting)} training images, {setting.epochs} epochs"
        )
        rows = self.rows[self.rows.setting == setting.name]
        state = _unfinished(found, len(arms) * setting.seeds, set(rows.arm))
        failed = self._failed(planned)
        # What was planned for a setting counts, with arms that this natstats cannot train.
        every = {arm.name: found.get(arm.name, {}) for arm in arms_of(self.study, setting)}
        contrasts = self._contrasts(
            setting.name, found | every, self.study.contrasts, self.n_images(planned)
        )
        return [
            head,
            *filter(None, [state, failed]),
            self._accuracy_table(known, planned),
            *contrasts,
            *self._goal(known, planned),
        ]

    def _goal(self, known: Accuracies, planned: Sequence[Planned]) -> list[str]:
        """How the methods of the goal stand to those that they were to reach."""
        pool = pooled_variance(known, self.n_images(planned))
        texts = []
        for name in filter(known.__contains__, self.study.goal):
            others = [*RIVALS, *self.study.goal[: self.study.goal.index(name)]]
            others = [other for other in others if other in known]
            gains = [f"over {other} {gain(known, name, other, pool)}" for other in others]
            for other in others:
                found = pooled_difference(known, name, other, pool, LEVEL)
                self.goals.append({
                    "setting": planned[0].setting, "arm": name, "over": other,
                    "difference": found.value, "low": found.low, "high": found.high,
                })  # fmt: skip
            if gains:
                texts.append(f"Not planned and not corrected: {name} {', '.join(gains)} points.")
        return texts

    def _failed(self, planned: Sequence[Planned]) -> str:
        known = self._by_key(planned)
        broken = [
            f"{one.arm} (seed {one.job.seed})"
            for one in planned
            if (row := known.get((one.job.key, one.job.seed))) is not None and row["error"]
        ]
        return f"Broke down and are left out: {', '.join(broken)}." if broken else ""

    def _accuracy_table(self, known: Accuracies, planned: Sequence[Planned]) -> str:
        """Accuracy with its interval, gains over ce and over kd, images to reach ce.

        No seconds: the trainings of a study share a machine, with each other and with others.
        """
        pool = pooled_variance(known, self.n_images(planned))
        costs = self.reached(planned, known)
        order = sorted(known, key=lambda name: -float(np.mean(list(known[name].values()))))
        cells = []
        for name in order:
            values = np.array(list(known[name].values()))
            gains = [
                gain(known, name, other, pool) if other in known else "–" for other in ("ce", "kd")
            ]
            first = next(one for one in planned if one.arm == name)
            arguments = with_ends(first.job.arguments, self._grid_ends(first))
            cells.append(
                [
                    name, str(len(values)), f"{100 * values.mean():.1f}", spread(values), *gains,
                    costs.get(name, "–"), arguments,
                ]
            )  # fmt: skip
        heads = [
            "method", "seeds", "accuracy, %", f"{100 * LEVEL:g} % interval", "over ce", "over kd",
            "images to reach ce", "arguments",
        ]  # fmt: skip
        return markdown(heads, cells, [0, 7])

    def _grid_ends(self, one: Planned) -> dict[str, dict[float, str]]:
        """The ends of the grid of each argument that was chosen for an arm."""
        part = "ablation" if one.part == "ablation" else "weights"
        arms = {
            arm.name: arm
            for arm in (self.study.ablation if part == "ablation" else self.study.arms)
        }
        own = arms[one.arm]
        return {
            arm.tuned: ends_of({
                tried["arguments"][arm.tuned]: tried["held_out"]
                for tried in self.chosen
                if (tried["setting"], tried["part"], tried["arm"]) == (one.setting, part, arm.name)
            })
            for arm in (own, arms.get(own.beside))
            if arm is not None
        }  # fmt: skip

    def reached(self, planned: Sequence[Planned], known: Accuracies) -> dict[str, str]:
        """Images until the curve of a method is where ce ends: the median over seeds."""
        if "ce" not in known:
            return {}
        aim = float(np.mean(list(known["ce"].values())))
        rows, found = self._by_key(planned), {}
        for name in known:
            images = []
            for one in (each for each in planned if each.arm == name):
                row = rows.get((one.job.key, one.job.seed))
                if row is not None and np.isfinite(row["accuracy"]):
                    images.append(first_reach(self.curve(one), aim) * row["n_train"])
            reached = [n for n in images if np.isfinite(n)]
            few = f" ({len(reached)} of {len(images)})" if len(reached) < len(images) else ""
            if images:
                found[name] = f"{count(round(np.median(reached)))}{few}" if reached else "never"
        return found

    def curve(self, one: Planned) -> pd.DataFrame:
        """Epochs and accuracies of a training."""
        own = self.curves
        own = own[(own.setting == one.setting) & (own.key == one.job.key)]
        return own[own.seed == one.job.seed].sort_values("epoch")

    def _contrasts(
        self,
        name: str,
        found: Accuracies,
        pairs: Sequence[tuple[str, str]],
        n_images: int | None,
    ) -> list[str]:
        """The planned contrasts of what is there, with the controls."""
        own = [pair for pair in pairs if set(pair) <= set(found)]
        controls = [pair for pair in self.study.controls if set(pair) <= set(found)]
        controls = [pair for pair in controls if pair not in own]
        also = [pair for pair in own if pair in self.study.controls]
        if not own:
            return []
        rows = contrast_rows(found, own, LEVEL, n_images)
        beside = contrast_rows(found, controls, LEVEL, n_images)
        seen = [row for row in rows if (row["label"], row["reference_label"]) in also]
        judged = with_verdicts(rows, [*beside, *seen])[: len(rows) + len(beside)]
        frame = contrast_frame(judged)
        self.frames.append(frame.assign(study=self.study.name, setting=name))
        texts = contrast_sentences(frame) if len(own) <= MOST_SAID else [_counts(frame)]
        self.sentences += [f"{self.study.name} {name}: {text}" for text in texts]
        return [
            markdown(CONTRAST_HEADS, contrast_cells(frame.to_dict("records")), [0, 3, 6]),
            " ".join(texts),
        ]

    def _ablation(self) -> list[str]:
        study = self.study
        if not study.ablation_setting:
            return []
        setting = study.setting(study.ablation_setting)
        arms = [arm for arm in study.ablation if not available(arm)]
        chosen, tried = self.work.chosen(setting, arms, self.rows, "ablation")
        self.chosen += [one for one in tried if one["held_out"] is not None]
        planned = self.work.final(
            setting, arms, chosen, study.ablation_seeds, "ablation", study.holdout
        )
        found = self.accuracies(planned, arms)
        known = {name: own for name, own in found.items() if own}
        if not known:
            return []
        return [
            f"#### Variants, on the held-out images of {setting.name}",
            self._accuracy_table(known, planned),
            *self._contrasts("ablation", found, study.ablation_contrasts, self.n_images(planned)),
        ]

    def _budget(self) -> list[str]:
        study = self.study
        if not study.budget_setting:
            return []
        setting = study.setting(study.budget_setting)
        arms = [arm for arm in arms_of(study, setting) if not available(arm)]
        chosen, _ = self.work.chosen(setting, arms, self.rows, "weights")
        own = [arm for arm in arms if arm.name in study.budget_arms]
        cells: list[list[str]] = []
        for each in at_budgets(setting, study.budgets):
            found = self.accuracies(
                self.work.final(each, own, chosen, range(study.budget_seeds), "budget")
            )
            known = {name: values for name, values in found.items() if values}
            cells += self._budget_rows(each.epochs, known)
        # The epochs of the final trainings alone say nothing about budgets.
        if len({row[0] for row in cells}) < 2:
            return []
        heads = ["epochs", "method", "seeds", "accuracy, %", "over ce", "over kd"]
        return [
            f"#### Budgets, {setting.name}: weights as chosen with {setting.epochs} epochs",
            markdown(heads, cells, [1]),
        ]

    def _budget_rows(self, epochs: int, known: Accuracies) -> list[list[str]]:
        pool = pooled_variance(known)
        return [
            [
                str(epochs), name, str(len(values)),
                f"{100 * np.mean(list(values.values())):.1f}",
                *(gain(known, name, other, pool) if other in known else "–"
                  for other in ("ce", "kd")),
            ]
            for name, values in known.items()
        ]  # fmt: skip


def _names(planned: Sequence[Planned], arms: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys([*(arm.name for arm in arms), *(one.arm for one in planned)]))


def _limit(setting: Setting) -> str:
    """The number of training images in words."""
    return "all" if setting.limit is None else count(setting.limit)


def _unfinished(found: Accuracies, n: int, begun: set[str]) -> str:
    """How far a setting is, and the methods that it has nothing of; empty if all `n` are there."""
    n_ended = sum(map(len, found.values()))
    if n_ended >= n:
        return ""
    none = [name for name, own in found.items() if not own]
    parts = [f"{n_ended} of {n} trainings of the record are finished."]
    for said, names in (
        ("Not trained here", [name for name in none if name not in begun]),
        ("Begun, but the weight is not chosen yet", [name for name in none if name in begun]),
    ):
        parts += [f"{said}: {', '.join(names)}."] if names else []
    return " ".join(parts)


def _counts(contrasts: pd.DataFrame) -> str:
    """How many of the planned contrasts came out how."""
    own = contrasts[~contrasts.control]
    better, above = (own.verdict == "better").sum(), (own.low > 0).sum()
    return (
        f"Of {len(own)} contrasts {better} are better after Holm's correction. Without it, the "
        f"intervals of {above} are above zero."
    )


def write_report(work: Work, rows: Rows, results: Path, figures: Path) -> None:
    """Write Markdown, contrasts, choices and figures of a study."""
    study = work.study
    report = Report(work, rows)
    parts = report.parts()
    results.mkdir(parents=True, exist_ok=True)
    (results / f"distill_{study.name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    frame = pd.concat(report.frames) if report.frames else contrast_frame([])
    write_csv(frame, results / f"distill_{study.name}_contrasts.csv")
    plan = results / f"distill_{study.name}_plan.json"
    record = {
        "study": study.name,
        "record": digest(study),
        "planned": digest(study.planned()),
        "plans": json.loads(plan.read_text(encoding="utf-8")) if plan.is_file() else [],
        "chosen": report.chosen,
        "sentences": report.sentences,
        "goals": report.goals,
        **circumstances(),
    }
    (results / f"distill_{study.name}.json").write_text(to_json(record), encoding="utf-8")
    draw(report, figures, LEVEL)
    print("\n\n".join(parts))
