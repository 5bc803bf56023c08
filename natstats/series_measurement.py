"""Measuring the checkpoints of one training, each into a run, without ever losing a finished one.

With a directory to write to, every run is written as soon as it is finished. What is there already
and was made from the same files in the same way is taken as it is, so that a series which was
interrupted, or to which a longer training has added checkpoints, goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from natstats import checks
from natstats._version import __version__
from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import expanded, is_plain_name, member
from natstats.fits.options import FitOptions
from natstats.images.sources import Framing, open_images
from natstats.measurement import Progress, measure
from natstats.networks.checkpoint_files import CheckpointFile, find_checkpoints, number_checkpoints
from natstats.networks.load import Network, with_checkpoint
from natstats.preparation import ImageSource
from natstats.runs import store
from natstats.runs.run import Run
from natstats.runs.series import Series, StoredRuns, Summary, summarise

__all__ = ["measure_series"]

_OWN = ("model", "images", "checkpoint", "progress", "fit")
"""What :func:`natstats.measure` takes that is not an option of the series' runs."""

_SAME_NUMBERS = ("device", "batch_size", "workers")
"""Options on which the numbers do not depend, so that runs may differ in them."""


def measure_series(
    model: nn.Module | Network | str,
    checkpoints: str | Path | Iterable[str | Path],
    images: ImageSource,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
    **options: Any,
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
        command: what was typed, to be told in the reports.
        progress: called after each batch, with the images of all runs still to be measured.
        **options: what :func:`natstats.measure` takes.

    Returns:
        The series, in the order of the steps.

    Raises:
        UsageError: an argument is out of range, there are fewer than two checkpoints, or `out`
            holds something else.
        NatstatsError: a checkpoint is damaged or does not fit (the others are measured first when
            they are written), or :func:`natstats.measure` fails. Finished runs stay in `out`.

    >>> import tempfile, torch
    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for epoch in (2, 10):
    ...         torch.save(model.state_dict(), f"{folder}/epoch_{epoch}.pth")
    ...     series = measure_series(model, f"{folder}/*.pth", torch.rand(8, 1, 16, 16))
    >>> series.change.mean.value, list(series.frame.step)
    (0.0, [2, 10])
    """
    known = inspect.signature(measure).parameters
    for name in options:
        checks.one_of("option", name, [one for one in known if one not in _OWN or one == "fit"])
    fit = options.pop("fit", None) or FitOptions()
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
    digests = {one.name: one.digest() for one in members}
    request = _Request(model, images, fit, options, _asked(model, options))
    home = None if out is None else expanded(out, "out")
    taken = {} if home is None else _taken(home, members, digests, request, overwrite)
    todo = [one for one in members if one.name not in taken]
    summaries: dict[str, Summary] = {}
    runs: dict[str, Run] = {}
    failed: dict[str, NatstatsError] = {}
    for one in members:
        if one.name in taken:
            run = Run.open(taken[one.name])
        else:
            try:
                run = request.measure(one, _part(progress, todo.index(one), len(todo)))
            except NatstatsError as error:
                # What is wrong with one checkpoint need not be wrong with the next; all else is.
                if home is None or not str(error).startswith("checkpoint:"):
                    kept = _kept(home, {*taken, *summaries})
                    raise type(error)(f"{error.args[0]}{kept}", *error.args[1:]) from error
                failed[one.name] = error
                continue
            run.info |= {"series": request.record(one, digests[one.name])}
            run.info |= {} if command is None else {"command": command}
            if home is not None:
                run.save(home / one.name, overwrite=overwrite)
        summaries[one.name] = summarise(run, one, digests[one.name])
        # The first and the last are compared; of the others, runs on disk need no memory.
        if home is None or one in (members[0], members[-1]):
            runs[one.name] = run
    if failed:
        sentence, *below = _failure(failed, len(members))
        raise NatstatsError(sentence + _kept(home, {*taken, *summaries}), *below)
    first, last = runs[members[0].name], runs[members[-1].name]
    all_runs = (
        list(runs.values()) if home is None else StoredRuns([home / one.name for one in members])
    )
    series = Series.joined(list(summaries.values()), first, last, all_runs)
    if home is not None:
        with store.add_files(home, store.SERIES) as folder:
            series.write_tables(folder)
    return series


@dataclass(frozen=True, eq=False)
class _Request:
    """What every run of the series is made from, but for the checkpoint."""

    model: nn.Module | Network | str
    images: ImageSource
    fit: FitOptions
    options: Mapping[str, Any]
    asked: Mapping[str, Any]

    def measure(self, one: CheckpointFile, progress: Progress | None) -> Run:
        model, own = self.model, {**self.options, "fit": self.fit, "progress": progress}
        if isinstance(model, str):
            return measure(model, self.images, checkpoint=one.path, **own)
        if isinstance(model, Network):
            return measure(with_checkpoint(model, one.path), self.images, **own)
        # A bare module may still be moved to a device, and given a size.
        network = with_checkpoint(Network(model, type(model).__name__, ""), one.path)
        run = measure(network.model, self.images, **own)
        run.info["model"]["weights"] = network.weights
        run.info["warnings"] = [*network.notes, *run.info["warnings"]]
        return run

    def record(self, one: CheckpointFile, digest: str) -> dict[str, Any]:
        """What a run keeps to be known again."""
        return {
            "checkpoint": one.name,
            "file": str(one.path),
            "digest": digest,
            "asked": self.asked,
        }

    def difference(self, run: Run, digest: str) -> str | None:
        """What in a run is not as asked for, in words; None when it can be taken as it is."""
        record = run.info.get("series")
        if not isinstance(record, dict):
            return "not measured for a series"
        if record.get("digest") != digest:
            return "made from another checkpoint file"
        before = {**(record.get("asked") or {}), **run.options.to_dict()}
        now = json.loads(store.to_json({**self.asked, **self.fit.to_dict()}))
        before = json.loads(store.to_json(before))
        before["natstats"] = (run.info.get("versions") or {}).get("natstats")
        now["natstats"] = __version__
        for name in dict.fromkeys([*now, *before]):
            if before.get(name) != now.get(name):
                return f"made with {name} {before.get(name)!r} in place of {now.get(name)!r}"
        return self._difference_of_images(run)

    def _difference_of_images(self, run: Run) -> str | None:
        """Whether the images that are there now, brought to size as the run did, are the run's."""
        facts = run.info.get("images") or {}
        framing = None
        if facts.get("size") is not None:
            ways = {} if facts.get("resize") is None else {"interpolation": facts["interpolation"]}
            framing = Framing(facts["size"], facts.get("resize"), **ways)
        limit, seed = self.options.get("limit"), self.options.get("seed", 0)
        images = open_images(self.images, framing, limit, seed)
        if facts.get("digest") == images.digest():
            return None
        if images.listing() not in (facts.get("listing"), facts.get("digest")):
            return "made from other images"
        if "listing" in facts:
            return "made from images of the same names and sizes with other contents"
        return "made by a natstats that did not tell images of equal size apart by their contents"


def _asked(model: nn.Module | Network | str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, as plain values and with the defaults."""
    parameters = inspect.signature(measure).parameters
    usual = {k: p.default for k, p in parameters.items() if k not in (*_OWN, *_SAME_NUMBERS)}
    given = {k: v for k, v in options.items() if k not in _SAME_NUMBERS}
    if isinstance(model, str):
        name = model
    else:
        # The weights come from the checkpoints, so the modules are what is left to tell.
        module = model.model if isinstance(model, Network) else model
        way = repr(model.preprocessing) if isinstance(model, Network) else ""
        digest = hashlib.sha256(f"{module}{way}".encode()).hexdigest()[:16]
        name = f"{model.name if isinstance(model, Network) else type(model).__name__} {digest}"
    plain = (str, int, float, bool, list, tuple, type(None))
    chosen = {k: v if isinstance(v, plain) else str(v) for k, v in {**usual, **given}.items()}
    return {"model": name, **chosen}


def _taken(
    home: Path,
    members: list[CheckpointFile],
    digests: Mapping[str, str],
    request: _Request,
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
    if home.is_dir() and all(entry.name.startswith(".") for entry in home.iterdir()):
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
        if not os.path.lexists(run):
            continue
        try:
            why = request.difference(Run.open(run), digests[one.name])
        except NatstatsError as error:
            why = f"not a whole run ({error})"
        if why is None:
            taken[one.name] = run
        elif not overwrite:
            raise UsageError(
                f"out: expected runs made in the same way; {run} was {why}, and is "
                "kept (--overwrite replaces it)"
            )
        else:  # now, not after it has been measured
            store.check_target(run, overwrite)
    return taken


def _part(progress: Progress | None, number: int, n_runs: int) -> Progress | None:
    """The progress of one run as a part of that of all runs."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, n_runs * total)


def _kept(home: Path | None, finished: Collection[str]) -> str:
    """What is left after a failure, as the end of a sentence."""
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
