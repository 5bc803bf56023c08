"""What the runs of a series are made from, and whether a run that is there was made from it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from natstats._version import __version__
from natstats.fits.options import FitOptions
from natstats.images.sources import Framing, open_images
from natstats.images.streams import ImageStream
from natstats.measurement.image_loop import Progress
from natstats.measurement.keeping import difference
from natstats.measurement.one_run import measured
from natstats.measurement.options import MeasureOptions
from natstats.measurement.place import Keeping
from natstats.measurement.preparation import ImageSource
from natstats.networks.checkpoint_files import CheckpointFile
from natstats.networks.load import Network, with_checkpoint
from natstats.networks.load_options import LoadOptions
from natstats.runs.run import Run

__all__ = ["SeriesRequest"]

_SAME_NUMBERS = ("device", "batch_size", "workers")
"""Options that do not change the results, so that runs may differ in them."""


@dataclass(frozen=True, eq=False)
class SeriesRequest:
    """What every run of the series is made from, but for the checkpoint.

    Attributes:
        model: the network, or its name.
        images: see :func:`natstats.measure`, as for the others.
        loading: which weights a named network has; the checkpoint aside.
        options: how to measure.
        fit: how to fit.
        device: where to run.
        strict: what is done about unreadable images.
    """

    model: nn.Module | Network | str
    images: ImageSource
    loading: LoadOptions
    options: MeasureOptions
    fit: FitOptions
    device: torch.device | str | None
    strict: bool | None

    def measure(
        self,
        one: CheckpointFile,
        digest: str,
        keeping: Keeping,
        progress: Progress | None,
        least: int = 0,
    ) -> Run:
        """The run of one checkpoint, which says for which series it was measured.

        Args:
            one: the checkpoint.
            digest: of its file.
            keeping: where the run goes.
            progress: called after each batch.
            least: fewest images to measure, even if intervals are narrow enough before.
        """
        model: nn.Module | Network | str = self.model
        loading, weights = self.loading, ""
        notes: tuple[str, ...] = ()
        if isinstance(model, str):
            loading = LoadOptions(**{**vars(loading), "checkpoint": one.path})
        elif isinstance(model, Network):
            model = with_checkpoint(model, one.path)
        else:  # a bare module may still be moved to a device, and given a size
            network = with_checkpoint(Network(model, type(model).__name__, ""), one.path)
            model, notes, weights = network.model, network.notes, network.weights

        record = self.record(one, digest)
        return measured(
            model,
            self.images,
            loading,
            self.options,
            self.fit,
            replace(keeping, series=record, weights=weights, notes=notes),
            device=self.device,
            strict=self.strict,
            progress=progress,
            least=least,
        )

    def record(self, one: CheckpointFile, digest: str) -> dict[str, Any]:
        """What identifies a run when the series is resumed."""
        return {
            "checkpoint": one.name,
            "file": str(one.path),
            "digest": digest,
            "asked": self.asked(),
        }

    def asked(self) -> dict[str, Any]:
        """What was asked for, as plain values and with the defaults."""
        chosen = {
            **vars(self.loading), **vars(self.options), "strict": self.strict
        }  # fmt: skip
        for name in ("checkpoint", *_SAME_NUMBERS):
            chosen.pop(name, None)
        plain = (str, int, float, bool, list, tuple, type(None))
        values = {k: v if isinstance(v, plain) else str(v) for k, v in chosen.items()}
        return {"model": self._model_name(), **values}

    def _model_name(self) -> str:
        """The network without its weights, which come from the checkpoints."""
        model = self.model
        if isinstance(model, str):
            return model
        module = model.model if isinstance(model, Network) else model
        way = repr(model.preprocessing) if isinstance(model, Network) else ""
        digest = hashlib.sha256(f"{module}{way}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        return f"{model.name if isinstance(model, Network) else type(model).__name__} {digest}"

    def difference(self, run: Run, digest: str) -> str | None:
        """What in a run is not as asked for, in words; None when it can be taken, or continued.

        A run that ended when its intervals had a given width may be continued to another width.
        """
        record = run.info.get("series")
        if not isinstance(record, dict):
            return "not measured for a series"
        if record.get("digest") != digest:
            return "made from another checkpoint file"
        before, now = record.get("asked") or {}, self.asked()
        if before.get("until") is not None and now["until"] is not None:
            before = {**before, "until": now["until"]}
        version = (run.info.get("versions") or {}).get("natstats")
        # Compared separately: `normalize` is of pixels in the first, and of power in the second.
        for then, asked in (
            (before, now),
            # `stopped` is found out by a measurement, and not asked for.
            (replace(run.options, stopped=False).to_dict(), self.fit.to_dict()),
            ({"natstats": version}, {"natstats": __version__}),
        ):
            why = difference(_one_spelling(then), _one_spelling(asked))
            if why is not None:
                return f"made {why}"
        return self._difference_of_images(run)

    def is_of_other_width(self, run: Run) -> bool:
        """Whether a run was measured until its intervals had another width than is asked for."""
        width = self.options.until
        return width is not None and (run.info.get("options") or {}).get("until") != width

    def _difference_of_images(self, run: Run) -> str | None:
        """How the images that are there now, framed as in the run, differ from those of the run."""
        facts = run.info.get("images") or {}
        framing = None
        if facts.get("size") is not None:
            ways = {} if facts.get("resize") is None else {"interpolation": facts["interpolation"]}
            framing = Framing(facts["size"], facts.get("resize"), **ways)
        images = open_images(
            self.images, framing, self.options.limit, self.options.seed, self.options.frames
        )
        if isinstance(images, ImageStream):  # whose contents are not read for this
            is_same = facts.get("listing") == images.listing()
            return None if is_same else "made from other images"
        if facts.get("digest") == images.digest():
            return None
        if images.listing() not in (facts.get("listing"), facts.get("digest")):
            return "made from other images"
        if "listing" in facts:
            return "made from images of the same names and sizes with other contents"
        return "made by a natstats that did not tell images of equal size apart by their contents"


def _one_spelling(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options that mean the same, written in one way.

    >>> _one_spelling({"layers": ["conv", "linear"], "layouts": None, "control_seeds": 3})
    {'layers': 'conv,linear', 'layouts': '{}'}
    """
    found = dict(values)
    if "layers" in found:
        layers = found["layers"]
        names = layers.split(",") if isinstance(layers, str) else list(layers)
        found["layers"] = ",".join(name.strip() for name in names)
    if "layouts" in found:
        # In the record of a run the mapping is a text.
        found["layouts"] = str(found["layouts"] or {})
    if not found.get("control"):
        found.pop("control_seeds", None)
    return found
