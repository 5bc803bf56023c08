"""Finishing a run from the states of its passes, without its network and its images.

This is for a run whose images were all measured, but which could not be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.files.claims import claimed
from natstats.files.state_files import read_state
from natstats.fits.options import FitOptions
from natstats.measurement.options import MeasureOptions
from natstats.measurement.pass_sums import PassSums
from natstats.measurement.place import amend, keeps_states
from natstats.measurement.state_schema import ABOUT
from natstats.measurement.until import Until
from natstats.numbers import counted
from natstats.runs.run import Run
from natstats.text import printable

__all__ = ["finish_run"]


def finish_run(path: Path, fit: Mapping[str, Any] | None = None) -> Run:
    """Make and write the run of a folder that keeps the states of all of its passes.

    Args:
        path: the folder.
        fit: options of the fit that differ from those that were asked for when it was measured.

    Returns:
        The run.

    Raises:
        UsageError: not all images were measured yet, or they are a part (``--shard``).
        NatstatsError: a state is damaged, or the run cannot be written.
    """
    with claimed(path) as folder:
        is_alone = (folder / "images.safetensors").exists()
        first = "images" if is_alone else "trained"
        sums, state = _whole(path, folder, first)
        states, about = {first: state}, dict(state["about"])
        options = MeasureOptions.from_dict(sums.facts.options)
        chosen = FitOptions.from_dict({**about.get("fit", {}), **(fit or {})})
        run = sums.run(chosen)
        n_seeds = options.control_seeds if options.control is not None else 0
        for seed in range(options.seed, options.seed + n_seeds):
            name = f"seed-{seed}"
            own, states[name] = _whole(path, folder, name)
            run.random_weights.append(own.as_control(seed))
        if options.counterfactual is not None:
            own, _ = _whole(path, folder, "shuffled")
            run.shuffled = own.as_shuffled(options.counterfactual, options.seed)
        if options.until is not None:
            Until(options.until, chosen).note_in(run)
        amend(run, about)
        run.save(path, states=states if keeps_states(run) else {})
    return run


def _whole(path: Path, folder: Path, name: str) -> tuple[PassSums, dict[str, Any]]:
    """A finished pass, and its state."""
    try:
        state = read_state(folder / f"{name}.safetensors")
        sums = PassSums.from_state(state)
        done, n_images = len(sums.reading.numbers), sums.reading.facts.n_images
        is_whole = sums.is_whole
        ABOUT.check(state.get("about"), "state, about")
    except FileNotFoundError:
        done, n_images, is_whole, state = 0, None, False, {}
    except NatstatsError as error:
        raise NatstatsError(
            f"run: expected the state of a measurement in {path}; {name}: {error}"
        ) from error
    if not is_whole:
        how_far = (
            f"{counted(done, 'image')}" if n_images is None else f"{done} of {n_images} images"
        )
        how_far = how_far if done else "nothing of a part"
        raise UsageError(
            f"run: expected a measurement of all images; {path} is not finished, and keeps "
            f"{how_far} (the command that began it goes on from there)"
        )
    identity = state.get("identity")
    shard = identity.get("shard") if isinstance(identity, dict) else None
    if shard is not None:
        raise UsageError(
            f"run: expected a measurement of all images; {path} keeps the part "
            f"{printable(shard)[:30]} (the command that began it finishes it)"
        )
    return sums, state
