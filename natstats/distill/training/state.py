"""The saved state from which an interrupted training resumes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from natstats.distill.older_arguments import completed
from natstats.distill.run_folders import RECORD, STATE
from natstats.distill.training.recipes import Recipe
from natstats.errors import NatstatsError, UsageError
from natstats.files.torch_files import load_plain
from natstats.files.whole_files import sync
from natstats.text import printable

__all__ = ["TrainingState", "refuse_other_settings"]


class TrainingState:
    """The file in which a training keeps its state, written whole or not at all.

    Args:
        folder: folder of the run.
        identity: everything that the result depends on, as plain values; a state of another
            training is refused.
        begins_again: True ignores a state that is there; it stays until a new one is written.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], *, begins_again: bool = False
    ) -> None:
        self.path = folder / STATE
        self.identity = dict(identity)
        self.begins_again = begins_again

    @property
    def is_kept(self) -> bool:
        """Whether there is a state to resume from."""
        return self.path.exists() and not self.begins_again

    def write(self, values: Mapping[str, Any]) -> None:
        """Put `values` in place of what was kept.

        Raises:
            NatstatsError: the file cannot be written; what was kept before still is.
        """
        partial = self.path.with_name(f"{STATE}.partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # What has this name may be a link, or a pipe that would block.
            partial.unlink(missing_ok=True)
            with partial.open("xb") as file:
                torch.save({"identity": self.identity, **values}, file)
                file.flush()
                sync(file.fileno())
            # Else a run that is being replaced would count as finished beside the new state.
            self.path.with_name(RECORD).unlink(missing_ok=True)
            partial.replace(self.path)
            self.begins_again = False
        except (OSError, RuntimeError) as error:
            raise NatstatsError(f"out: expected a place for {self.path}; {error}") from error
        finally:  # an interruption leaves nothing behind either
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def read(self, device: torch.device) -> dict[str, Any] | None:
        """What was kept, on `device`; None where nothing was.

        Raises:
            UsageError: it was kept by a training with other settings; they are named.
            NatstatsError: the file cannot be read, or is damaged.
        """
        if not self.is_kept:
            return None
        try:
            values = load_plain(self.path, device)
            kept = values.pop("identity")
        except (OSError, MemoryError, torch.OutOfMemoryError) as error:
            raise NatstatsError(
                f"out: expected to read the state of a training in {self.path}; "
                f"{printable(str(error) or type(error).__name__)}"
            ) from error
        except Exception as error:  # a damaged file raises nearly anything
            reason = printable(" ".join(str(error).split()))[:160]
            raise NatstatsError(
                f"out: expected the whole state of a training in {self.path}; {reason} "
                "(--overwrite begins again)"
            ) from None
        refuse_other_settings(kept, self.identity, f"was begun in {self.path.parent}")
        assert isinstance(values, dict)
        return values

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


def refuse_other_settings(kept: Any, now: Mapping[str, Any], which: str) -> None:
    """Raise unless two trainings have the same settings.

    Args:
        kept: all that the result of a training depended on, as it was kept.
        now: the same of the training that is asked for.
        which: what the first training did, such as "was begun in FOLDER".

    Raises:
        UsageError: they differ; the settings are named.

    >>> refuse_other_settings({"seed": 0}, {"seed": 1}, "is in runs/kd")
    Traceback (most recent call last):
    natstats.errors.UsageError: out: expected the training that is in runs/kd, which had other \
settings: seed was 0, is 1 (--overwrite begins again)
    """
    if isinstance(kept, Mapping) and "images" in now and "images" not in kept:
        # Before 0.5.0 the digest of the data was without the contents of its files.
        older = {**kept, "images": kept.get("data"), "data": now.get("data")}
        if not _differences(older, now):
            raise UsageError(
                f"out: expected the training that {which}, which did not note the contents of its "
                "images: whether these are still the same cannot be told (--overwrite begins again)"
            )
    kept = _with_later_fields(kept, now)
    if isinstance(kept, Mapping) and "built_with" in now:  # before 0.9.0 it was not noted
        kept = {"built_with": now["built_with"], **kept}
    if isinstance(kept, Mapping) and _are_arguments(kept.get("arguments")):
        kept = {**kept, "arguments": completed(kept["arguments"])}
    differing = _differences(kept, now)
    if differing:
        raise UsageError(
            f"out: expected the training that {which}, which had other settings: "
            f"{'; '.join(differing[:4])} (--overwrite begins again)"
        )


def _are_arguments(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, Mapping) for one in value.values())


def _with_later_fields(kept: Any, now: Mapping[str, Any]) -> Any:
    """Settings of an older version, with the recipe fields that were introduced after it.

    Older versions did what the defaults of these fields do, but flipped images of digits too.
    """
    if not (isinstance(kept, Mapping) and isinstance(kept.get("recipe"), Mapping)):
        return kept
    recipe, own = dict(kept["recipe"]), now.get("recipe")
    if not isinstance(own, Mapping):
        return kept
    flipped = recipe.get("augmentation") != "none"
    later = {
        **Recipe().to_dict(),
        "flip": True if flipped and own.get("flip") is False else own.get("flip"),
    }
    recipe.update({name: later[name] for name in own if name not in recipe and name in later})
    return {**kept, "recipe": recipe}


def _differences(kept: Any, now: Any, name: str = "") -> list[str]:
    """Where two trees of plain values differ, in words."""
    if isinstance(kept, Mapping) and isinstance(now, Mapping):
        keys = [*kept, *(key for key in now if key not in kept)]
        return [
            line
            for key in keys
            for line in _differences(kept.get(key), now.get(key), f"{name}.{key}".lstrip("."))
        ]
    if isinstance(kept, list | tuple) and isinstance(now, list | tuple):
        kept, now = list(kept), list(now)
    return [] if kept == now else [f"{name} was {str(kept)[:60]}, is {str(now)[:60]}"]
