"""Measuring the checkpoints of one training, each into a run, without ever losing a finished one.

With a directory to write to, every run is written as soon as it is finished. Runs that are there
already, and were made from the same files in the same way, are taken as they are. So a series that
was interrupted, or to which a longer training has added checkpoints, goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.files.ownership import is_reserved
from natstats.files.paths import expanded, is_plain_name, member
from natstats.fits.options import FitOptions
from natstats.measurement.image_loop import Progress, share_of
from natstats.measurement.options import (
    MeasureOptions,
    SeriesSettings,
    chosen_options,
    keywords_shown,
)
from natstats.measurement.place import SAVE_EVERY, Keeping
from natstats.measurement.preparation import ImageSource
from natstats.measurement.progress import shown_progress
from natstats.measurement.series_request import SeriesRequest
from natstats.networks.checkpoint_files import (
    CheckpointFile,
    find_checkpoints,
    number_checkpoints,
)
from natstats.networks.load import Network
from natstats.runs import store
from natstats.runs.run import Run
from natstats.runs.series import Series, StoredRuns, Summary, summarise

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["measure_series"]

_KNOWN = ("options", "fit", "device", "strict", *SeriesSettings.__annotations__)
"""What :func:`natstats.measure` takes that runs of a series have in common."""


@keywords_shown(SeriesSettings)
def measure_series(
    model: nn.Module | Network | str,
    checkpoints: str | Path | Iterable[str | Path],
    images: ImageSource,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    command: str | None = None,
    progress: Progress | bool | None = None,
    options: MeasureOptions | None = None,
    fit: FitOptions | None = None,
    device: torch.device | str | None = None,
    strict: bool | None = None,
    **settings: Unpack[SeriesSettings],
) -> Series:
    """Measure several checkpoints of one network on the same images.

    Args:
        model: the name of a network, or a module or ``Network``, which is copied and given the
            weights of one checkpoint after the other.
        checkpoints: a pattern such as ``runs/epoch_*.pth``, a folder, or paths; see
            :mod:`natstats.networks.checkpoint_files` for their order and steps.
        images: as for :func:`natstats.measure`.
        out: directory for the series. Each run is written there as it is finished; runs that are
            there, made from the same files in the same way, are taken as they are. Without it
            nothing is written, and all runs stay in memory.
        overwrite: replace runs in `out` that were made in another way.
        save_every: seconds between two saves of the state of a run; 0 to save after every batch.
        command: what was typed, for the reports.
        progress: a function that is called after each batch with the images done and those in all,
            of the runs that are to be measured; or whether to show a bar, see
            :func:`natstats.measure`.
        options: how to measure; its fields may be given by name instead.
        fit: how to fit.
        device: where to run, see :func:`natstats.measure`.
        strict: what is done about unreadable images, see :func:`natstats.measure`.
        **settings: what else :func:`natstats.measure` takes.

    Returns:
        The series, in the order of the steps.

    Raises:
        UsageError: an argument is out of range, there are fewer than two checkpoints, or `out`
            holds something else.
        NatstatsError: a checkpoint is damaged or does not fit (with `out` the others are measured
            first), or :func:`natstats.measure` fails. Finished runs stay in `out`.

    >>> import tempfile
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for epoch in (2, 10):
    ...         torch.save(model.state_dict(), f"{folder}/epoch_{epoch}.pth")
    ...     series = measure_series(model, f"{folder}/*.pth", torch.rand(8, 1, 16, 16))
    >>> series.change.mean.value, list(series.frame.step)
    (0.0, [2, 10])
    """
    for name in settings:
        checks.one_of("option", name, _KNOWN)
    loading, chosen = chosen_options("measure_series", options, settings, SeriesSettings)
    how = replace(fit or FitOptions(), stopped=False)
    request = SeriesRequest(model, images, loading, chosen, how, device, strict)
    members = _members(checkpoints)
    if isinstance(model, str):
        replace(loading, checkpoint=members[0].path).refuse_contradictions()
    digests = {one.name: one.digest() for one in members}
    home = None if out is None else expanded(out, "out")
    taken = {} if home is None else _taken(home, members, digests, request, overwrite)
    work = _Work(request, members, digests, home, taken, overwrite, command, save_every)
    with shown_progress(progress) as shown:
        series = work.joined(work.measured(shown))
    if home is not None:
        with store.add_files(home, store.SERIES) as folder:
            series.write_tables(folder)
    return series


def _members(checkpoints: str | Path | Iterable[str | Path]) -> list[CheckpointFile]:
    """The files of a series, in the order of their steps.

    Raises:
        UsageError: there are fewer than two, or the name of one cannot be that of a folder.
    """
    members = number_checkpoints(find_checkpoints(checkpoints))
    if len(members) < 2:
        raise UsageError(
            f"checkpoints: expected two or more for a series; got {len(members)} "
            "(natstats.measure takes one)"
        )
    for one in members:
        if not is_plain_name(one.name):
            raise UsageError(
                f"checkpoints: expected files whose names can be those of folders; got {one.path}"
            )
    return members


@dataclass(frozen=True, eq=False)
class _Measured:
    """What is known of the checkpoints that were measured, or whose runs were taken.

    Attributes:
        summaries: rows of the tables, by the name of the checkpoint.
        runs: the runs that are kept in memory.
        failed: errors of checkpoints that could not be measured.
        n_images: images of each run.
    """

    summaries: dict[str, Summary] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    failed: dict[str, NatstatsError] = field(default_factory=dict)
    n_images: dict[str, int] = field(default_factory=dict)

    @property
    def most_images(self) -> int:
        """Images of the run that has most."""
        return max(self.n_images.values(), default=0)


@dataclass(frozen=True, eq=False)
class _Work:
    """A series that is to be measured.

    Attributes:
        request: what every run is made from.
        members: the checkpoints, in the order of their steps.
        digests: digests of their files, by name.
        home: directory of the series; None to keep all runs in memory.
        taken: runs that are there already, by name.
        overwrite: replace runs that were made in another way.
        command: what was typed, for the reports.
        save_every: seconds between two saves of the state of a run.
    """

    request: SeriesRequest
    members: Sequence[CheckpointFile]
    digests: Mapping[str, str]
    home: Path | None
    taken: Mapping[str, Path]
    overwrite: bool
    command: str | None
    save_every: float

    def measured(self, progress: Progress | None) -> _Measured:
        """Measure every checkpoint whose run is not there, and write each run at once.

        Raises:
            NatstatsError: something is wrong with all checkpoints, or there is no `home` to keep
                the others in.
        """
        found = _Measured()
        todo = [one for one in self.members if one.name not in self.taken]
        for one in self.members:
            if one.name in self.taken:
                run = Run.open(self.taken[one.name])
            else:
                try:
                    run = self._run(one, share_of(progress, todo.index(one), len(todo)))
                except NatstatsError as error:
                    # An error of one checkpoint may not affect the next one; any other error
                    # would.
                    if self.home is None or not str(error).startswith("checkpoint:"):
                        kept = _kept(self.home, {*self.taken, *found.summaries})
                        raise type(error)(f"{error.args[0]}{kept}", *error.args[1:]) from error
                    found.failed[one.name] = error
                    continue
            self._note(found, one, run)
        if self.request.options.until is not None:
            self._even_out(found, share_of(progress, len(todo), len(todo) + 1))
        return found

    def _note(self, found: _Measured, one: CheckpointFile, run: Run) -> None:
        found.summaries[one.name] = summarise(run, one, self.digests[one.name])
        found.n_images[one.name] = run.info["images"]["n_images"]
        # The first and the last are compared; the others need no memory where they are on disk.
        if self.home is None or one in (self.members[0], self.members[-1]):
            found.runs[one.name] = run

    def _even_out(self, found: _Measured, progress: Progress | None) -> None:
        """Continue runs that needed fewer images, so that all see the same ones."""
        is_over = False
        while not is_over:
            is_over = True
            for one in self.members:
                before = found.n_images.get(one.name)
                if before is not None and before < found.most_images:
                    self._note(found, one, self._run(one, progress, found.most_images))
                    is_over = is_over and found.n_images[one.name] == before

    def _run(self, one: CheckpointFile, progress: Progress | None, least: int = 0) -> Run:
        """Measure one checkpoint into its folder, or continue its run."""
        out = None if self.home is None else self.home / one.name
        is_until = self.request.options.until is not None
        # A run that is continued for more images was made as asked for, so it is not overwritten.
        overwrite = self.overwrite and not least
        keeping = Keeping(out, overwrite, self.save_every, self.command, may_go_on=is_until)
        return self.request.measure(one, self.digests[one.name], keeping, progress, least)

    def joined(self, found: _Measured) -> Series:
        """The series of all checkpoints.

        Raises:
            NatstatsError: some could not be measured.
        """
        if found.failed:
            sentence, *below = _failure(found.failed, len(self.members))
            kept = _kept(self.home, {*self.taken, *found.summaries})
            raise NatstatsError(sentence + kept, *below)
        first, last = (found.runs[self.members[place].name] for place in (0, -1))
        all_runs = (
            list(found.runs.values())
            if self.home is None
            else StoredRuns([self.home / one.name for one in self.members])
        )
        return Series.joined(list(found.summaries.values()), first, last, all_runs)


def _taken(
    home: Path,
    members: Sequence[CheckpointFile],
    digests: Mapping[str, str],
    request: SeriesRequest,
    overwrite: bool,
) -> dict[str, Path]:
    """Runs in `home` that are as asked for, by the name of their checkpoint.

    Raises:
        UsageError: `home` is no place for a series, or holds runs made in another way.
    """
    store.restore(home)
    if not home.exists():
        store.check_target(home, overwrite, "series")
        return {}
    # What is hidden was left by a run that was killed while it was written.
    if home.is_dir() and all(e.name.startswith(".") or is_reserved(e) for e in home.iterdir()):
        return {}
    store.check_target(home, overwrite=True, kind="series", beside=True)
    if (home / store.SERIES).is_file() and not overwrite:
        before = {one.name for one in Series.open(home).checkpoints}
        missing = sorted(before - {one.name for one in members})
        if missing:
            raise UsageError(
                f"out: expected a series of these checkpoints, or of some of them; {home} also has "
                f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''} and is kept "
                "(--overwrite leaves them out of its tables)"
            )
    taken = {}
    for one in members:
        run = member(home, one.name, f"out: {home}")
        store.restore(run)
        if not os.path.lexists(run) or is_reserved(run):  # it is continued, or refused, later
            continue
        goes_on = False
        try:
            there = Run.open(run)
            why = request.difference(there, digests[one.name])
            goes_on = request.is_of_other_width(there)
        except NatstatsError as error:
            why = f"not a whole run ({error})"
        if why is None and not goes_on:
            taken[one.name] = run
        elif why is None and not overwrite:  # it is continued from its state
            continue
        elif not overwrite:
            raise UsageError(
                f"out: expected runs made in the same way; {run} was {why}, and is "
                "kept (--overwrite replaces it)"
            )
        else:  # refuse now, not after it has been measured
            store.check_target(run, overwrite)
    return taken


def _kept(home: Path | None, finished: Collection[str]) -> str:
    """What is kept after a failure, as the end of a sentence."""
    if home is None or not finished:
        return ""
    runs = "1 finished run is" if len(finished) == 1 else f"{len(finished)} finished runs are"
    return f"; {runs} kept in {home}, and measuring into it again goes on from there"


def _failure(failed: Mapping[str, NatstatsError], n_members: int) -> list[str]:
    names = list(failed)
    others = f" (and {', '.join(names[1:])})" if len(names) > 1 else ""
    first, *below = failed[names[0]].args
    return [
        f"checkpoint: expected {n_members} that can be measured; {len(names)} of them cannot be: "
        f"{names[0]}{others}: {first.removeprefix('checkpoint: ')}",
        *below,
    ]
