"""Parts of a measurement, each over one share of the images: saved, and put together later."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from natstats._version import __version__
from natstats.checks import LARGEST
from natstats.errors import NatstatsError, UsageError
from natstats.files.folders import write_directory
from natstats.files.json_files import read_json, to_json
from natstats.files.ownership import KINDS, read_record, what_is
from natstats.files.paths import expanded, member
from natstats.files.schema import Field, ListOf, Record, whole
from natstats.files.state_files import read_state, write_state
from natstats.fits.options import FitOptions
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import ImageSet
from natstats.images.stream_numbers import StreamPart
from natstats.measurement.keeping import difference
from natstats.measurement.pass_sums import PassSums
from natstats.measurement.shares import wanted_images
from natstats.measurement.state_schema import ABOUT, PASS_NAME
from natstats.numbers import counted
from natstats.runs.reading import Reading
from natstats.runs.run import Run
from natstats.runs.run_schema import check_format
from natstats.text import printable

__all__ = ["PART", "Shard", "merge_parts", "refuse_empty", "save_part"]

PART = KINDS["part"].record

FORMAT = 1
"""Number of the format of a part."""

_RECORD = Record(
    {
        "identity": Record({"n_groups": whole(1, LARGEST["n_groups"])}),
        "about": ABOUT,
        "passes": ListOf(
            Field("a pass", lambda v: isinstance(v, str) and PASS_NAME.fullmatch(v) is not None), 1
        ),
    }
)

_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})")


@dataclass(frozen=True)
class Shard:
    """One of some shares of the images.

    Attributes:
        number: of the share, from 1.
        n_shards: how many there are.
    """

    number: int
    n_shards: int

    @classmethod
    def parsed(cls, text: str) -> Shard:
        """The shard that a text such as ``3/16`` names.

        Raises:
            UsageError: the text has another form, or there is no such share.

        >>> Shard.parsed("3/16")
        Shard(number=3, n_shards=16)
        """
        found = _SHARD.fullmatch(text) if isinstance(text, str) else None
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"shard: expected a number and how many there are, such as 3/16; got {text!r:.60}"
            )
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.n_shards}"

    def images(self, source: ImageSet) -> ImageNumbers | StreamPart:
        """The images of this share.

        Raises:
            UsageError: there are fewer images than shares.
        """
        return wanted_images(source, self.number - 1, self.n_shards)


def refuse_empty(shard: Shard | None, sums: PassSums) -> None:
    """Raise where a share of a stream has no image, which is known only once it has been read.

    Raises:
        UsageError: it has none.
    """
    facts = sums.reading.facts
    if shard is None or len(sums.reading.numbers):
        return
    raise UsageError(
        f"shard: expected a share with images; {shard} of {printable(facts.description)} has none, "
        f"as the stream has few images for so many shares, or shards without any ({facts.n_shards} "
        "shards). Nothing is missing from the other parts: `natstats merge` takes them without "
        "this one"
    )


def save_part(
    path: Path,
    overwrite: bool,
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    passes: Mapping[str, PassSums],
) -> None:
    """Write the folder of a part.

    Args:
        path: of the folder.
        overwrite: a part may be there already.
        identity: what was measured, and how.
        about: what was typed, and how to fit.
        passes: what was measured, by the name of the pass.

    Raises:
        NatstatsError: it cannot be written.
    """
    with write_directory(path, overwrite, "part") as folder:
        for name, sums in passes.items():
            write_state(folder / f"{name}.safetensors", sums.state())
        record = {
            "format": FORMAT,
            "kind": "part",
            "natstats": __version__,
            "identity": dict(identity),
            "about": dict(about),
            "passes": list(passes),
        }
        (folder / PART).write_text(to_json(record), encoding="utf-8")


def merge_parts(
    parts: Iterable[str | Path],
    out: str | Path | None = None,
    *,
    overwrite: bool = False,
    fit: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Run:
    """Put the parts of a measurement together, as if it had been one.

    The shares of one set of images give the run that one process would have given. Parts of several
    sets, each measured with ``shard="1/1"`` or in shares, give the run of all of their images.

    Args:
        parts: their folders, one or more.
        out: where the run is saved; None for nowhere.
        overwrite: replace the run that is there.
        fit: options of the fit that differ from those that were asked for with the first part.
        command: what was typed, for the report.

    Returns:
        The run of all images of the parts.

    Raises:
        UsageError: a folder is not a part, parts differ in what was measured or how, or an image is
            in two of them.
        NatstatsError: a part is damaged, or the run cannot be written.
    """
    paths = [expanded(one, "parts") for one in parts]
    if not paths:
        raise UsageError("parts: expected one or more folders; got none")
    whole: _Parts | None = None
    # One set after the other: only when all of its parts are there is it known which numbers are
    # free for the images of the next set.
    for group in _by_set(paths):
        of_set: _Parts | None = None
        for path in group:
            part = _Parts.read(path)
            if whole is not None:
                whole.refuse_same_contents(part)
            of_set = part if of_set is None else of_set.with_part(part)
        assert of_set is not None
        whole = of_set if whole is None else whole.with_set(of_set)
    assert whole is not None
    run = whole.run(fit or {})
    if command is not None:
        run.info["command"] = command
    if out is not None:
        run.save(out, overwrite=overwrite)
    return run


def _by_set(paths: Sequence[Path]) -> list[list[Path]]:
    """The folders of parts, those of one set of images together, in the order of their firsts."""
    sets: dict[str, list[Path]] = {}
    for path in paths:
        identity = (read_record(path, "part") or {}).get("identity")
        listing = identity.get("images") if isinstance(identity, dict) else None
        sets.setdefault(str(listing), []).append(path)
    return list(sets.values())


@dataclass(eq=False)
class _Parts:
    """A part, or several that were put together.

    Attributes:
        path: of the first.
        identity: what was measured, and how.
        about: what was typed, and how to fit.
        passes: what was measured, by the name of the pass.
        owners: the parts, with the numbers that the images of each have here.
        n_sets: how many sets of images they are of.
    """

    path: Path
    identity: dict[str, Any]
    about: dict[str, Any]
    passes: dict[str, PassSums]
    owners: list[tuple[Path, ImageNumbers]]
    n_sets: int = 1

    @classmethod
    def read(cls, path: Path) -> _Parts:
        record = read_record(path, "part")
        if record is None:
            raise UsageError(
                "parts: expected folders of natstats measure --shard; "
                f"{what_is(path, KINDS['part'].record)}"
            )
        try:
            record = read_json(member(path, PART, PART))
            check_format(record, FORMAT, PART)
            _RECORD.check(record, f"{PART}, ")
            identity, about = dict(record["identity"]), dict(record["about"])
            passes = {
                name: PassSums.from_state(read_state(member(path, f"{name}.safetensors", name)))
                for name in record["passes"]
            }
            reading = next(iter(passes.values())).reading
            if reading.facts.listing != identity.get("images"):
                raise NatstatsError(f"{PART} and the sums are of different images")
        except (OSError, ValueError, NatstatsError) as error:
            raise NatstatsError(f"parts: expected a whole part in {path}; {error}") from error
        return cls(path, identity, about, passes, [(path, reading.numbers)])

    @property
    def _reading(self) -> Reading:
        """What was found out about the images."""
        return next(iter(self.passes.values())).reading

    def refuse_same_contents(self, part: _Parts) -> None:
        """Raise where a part of another set has an image that is here already.

        Within a set two files may have the same contents.

        Raises:
            UsageError: it has.
        """
        twice = self._reading.shared_with(part._reading)
        if twice:
            raise UsageError(
                f"parts: expected parts without an image in common; {counted(twice, 'image')} of "
                f"{part.path} have the contents of images in the parts before it"
            )

    def with_part(self, part: _Parts) -> _Parts:
        """These and another part of the same set of images.

        Raises:
            UsageError: it is a part of something else, or has an image that is here already.
        """
        self._refuse_other_way(part)
        ((path, numbers),) = part.owners
        for own_path, own in self.owners:
            twice = len(own & numbers)
            if twice:
                raise UsageError(
                    "parts: expected parts without an image in common; "
                    f"{counted(twice, 'image')} of {path} are in {own_path}, too"
                )
        self._merge(part)
        return replace(self, owners=[*self.owners, *part.owners])

    def with_set(self, other: _Parts) -> _Parts:
        """These and the parts of another set of images, whose images get numbers of their own.

        Raises:
            UsageError: they are parts of something else, or have an account.
        """
        self._refuse_other_way(other)
        if any(sums.account_sums is not None for sums in self.passes.values()):
            raise UsageError(
                "parts: expected parts of one set of images where they have an account "
                "(--explain), whose products are taken about the first image of the set; "
                f"{other.path} is of another than {self.path} (measured without it they add)"
            )
        # A multiple of the number of groups, so that every image stays in its group.
        n_groups = int(self.identity["n_groups"])
        by = -(-self._reading.numbers.end // n_groups) * n_groups
        for sums in other.passes.values():
            sums.renumber(by)
        self._merge(other)
        owners = [(path, numbers.shifted(by)) for path, numbers in other.owners]
        return replace(self, owners=[*self.owners, *owners], n_sets=self.n_sets + other.n_sets)

    def _refuse_other_way(self, other: _Parts) -> None:
        """Raise where others were measured in another way.

        Raises:
            UsageError: they were.
        """
        aside = ("images", "shard")
        one, two = (
            {name: value for name, value in parts.identity.items() if name not in aside}
            for parts in (self, other)
        )
        why = difference(two, one)
        if why is not None or self.passes.keys() != other.passes.keys():
            raise UsageError(
                f"parts: expected parts that were measured in the same way; {other.path} was "
                f"measured {why or 'with other controls'}, unlike {self.path}"
            )

    def _merge(self, other: _Parts) -> None:
        """Add the sums of others, whose images have other numbers."""
        try:
            for name, sums in other.passes.items():
                self.passes[name].merge(sums)
        except UsageError as error:
            raise UsageError(f"parts: {error}, in {other.path}") from error

    def run(self, fit: Mapping[str, Any]) -> Run:
        """The run of all that was measured."""
        sums = next(iter(self.passes.values()))
        run = sums.run(FitOptions.from_dict({**self.about.get("fit", {}), **fit}))
        n_all = sums.reading.n_images
        n_parts = len(self.owners)
        if n_all is not None and self.n_sets == 1 and len(sums.reading.numbers) < n_all:
            run.info["warnings"].append(
                f"{len(sums.reading.numbers)} of {n_all} images are in the "
                f"{'part' if n_parts == 1 else f'{n_parts} parts'} that this run was made of"
            )
        run.info["parts"] = {"n": n_parts, "n_sets": self.n_sets}
        for other, own_sums in self.passes.items():
            if other.startswith("seed-"):
                run.random_weights.append(own_sums.as_control(int(other.removeprefix("seed-"))))
        return run
