"""Views of a run: in words, as a table, as figures, in a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from natstats import checks
from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.fits.records import Fits
from natstats.law.law import Law
from natstats.law.verdict import Verdict
from natstats.numbers import change, counted, estimate
from natstats.report.records import AccountReport, RunReport
from natstats.runs import tables
from natstats.runs.accounts import Explanation
from natstats.runs.control import Control
from natstats.runs.layer_result import LayerResult
from natstats.spectra.records import LayerSpectrum, SkippedLayer
from natstats.text import few, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["RunViews"]


class RunViews:
    """The texts, tables and figures of :class:`natstats.Run`, which has the numbers."""

    if TYPE_CHECKING:
        info: dict[str, Any]
        options: FitOptions
        path: Path | None
        spectra: list[LayerSpectrum]
        skipped_layers: list[SkippedLayer]

        @property
        def name(self) -> str:
            """See :class:`natstats.Run`, as all that follow."""

        @property
        def unit(self) -> str: ...  # noqa: D102
        @property
        def fits(self) -> Fits: ...  # noqa: D102
        @property
        def layers(self) -> pd.DataFrame: ...  # noqa: D102
        @property
        def sensitivity(self) -> pd.DataFrame: ...  # noqa: D102
        @property
        def forms(self) -> pd.DataFrame: ...  # noqa: D102
        @property
        def image_exponents(self) -> pd.DataFrame: ...  # noqa: D102
        @property
        def law(self) -> Law: ...  # noqa: D102
        @property
        def verdict(self) -> Verdict: ...  # noqa: D102
        @property
        def control(self) -> Control | None: ...  # noqa: D102
        @property
        def explanation(self) -> Explanation | None: ...  # noqa: D102
        def forms_sentence(self) -> str: ...  # noqa: D102
        def band_sentence(self) -> str: ...  # noqa: D102
        def report(self) -> RunReport: ...  # noqa: D102

    @property
    def is_of_network(self) -> bool:
        """Whether layers of a network were measured, not images alone."""
        return bool(self.info.get("model")) or any(
            one.layer.kind != "input" for one in self.spectra
        )

    def sentences(self) -> list[str]:
        """The result in words: verdict, what training did, where the exponents come from.

        At most three sentences are of the verdict; the others are there where a control or an
        account was measured.
        """
        found = self.verdict.lines() if self.is_of_network else []
        if self.control is not None:
            found.append(self.control.sentence())
        if self.explanation is not None:
            found += self.explanation.sentences()
        return found

    @property
    def has_exponents(self) -> bool:
        """Whether any layer has an exponent."""
        return any(np.isfinite(fit.exponent) for fit in self.fits.layers)

    def hindrances(self) -> str:
        """Why layers have no exponent, the commonest reasons first; empty where all have one."""
        lacking = [fit for fit in self.fits.layers if not np.isfinite(fit.exponent)]
        reasons = Counter(flag for fit in lacking for flag in fit.flags)
        return "; ".join(reason for reason, _ in reasons.most_common(3))

    def table(self, rows: int | None = None, width: int | None = None, how: str = "") -> str:
        """The main columns of all layers as text, see :func:`natstats.runs.tables.text_table`."""
        return tables.text_table(self.layers, rows, width, how)

    @property
    def notes(self) -> list[str]:
        """What changes how the numbers are to be read, a clause each, without a full stop."""
        images = self.info.get("images") or {}
        account = "" if self.explanation is None else self.explanation.account.spectra.note
        forms = self.forms_sentence() if self.is_of_network else ""
        found = [forms.removesuffix(".")] if forms.startswith("Another") else []
        found += [*self.info.get("warnings", []), *filter(None, [self.band_sentence(), account])]
        # The warnings already name images that are too small.
        unreadable = (images.get("n_unreadable") or 0) - (images.get("n_too_small") or 0)
        if unreadable:
            them = "it" if unreadable == 1 else "them"
            first = self._first_unreadable(images)
            said = f"{counted(unreadable, 'image')} could not be read{first}"
            found.append(f"{said}; {self._file('run.json')} lists {them}")
        if self.skipped_layers:
            left = counted(len(self.skipped_layers), "layer was", "layers were")
            names = few([one.name for one in self.skipped_layers])
            found.append(f"{left} not measured ({names}); {self._file('skipped.csv')} says why")
        return found

    def _file(self, name: str) -> str:
        """A file of the run, with its folder where it has one."""
        return name if self.path is None else printable(self.path / name)

    def _first_unreadable(self, images: Mapping[str, Any]) -> str:
        """The first image that could not be read, in brackets; empty where it is not known."""
        # Images that are too small are in the same list, and were not told apart in it.
        listed = [] if images.get("n_too_small") else images.get("unreadable") or []
        return f" (the first: {printable(str(listed[0]))[:200]})" if listed else ""

    def layer(self, name: str) -> LayerResult:
        """Everything about one layer.

        Args:
            name: as in the column ``layer`` of :attr:`natstats.Run.layers`.

        Raises:
            UsageError: there is no such layer; near names are told.

        >>> import natstats
        >>> fields = natstats.power_law_fields(32, 16, 16, alpha=2.0)[:, None]
        >>> natstats.measure_images(fields).layer("inputs")
        Traceback (most recent call last):
        natstats.errors.UsageError: layer: expected one of input; got 'inputs' (did you mean input?)
        """
        names = [one.layer.name for one in self.spectra]
        given: object = name
        if not isinstance(given, str):
            number = given if isinstance(given, int) else 0
            raise UsageError(
                f"layer: expected a name, such as {names[-1]!r}; got {given!r} (by its place in "
                f"the table: run.layer(run.layers.layer.iloc[{number}]))"
            )
        place = names.index(checks.one_of("layer", name, names))
        measured, row = self.spectra[place], self.layers.iloc[place]
        control = self.control
        return LayerResult(
            measured=measured,
            fit=self.fits.layers[place],
            form=_row_of(self.forms, name),
            flags=tuple(filter(None, str(row["flags"]).split("; "))),
            law=str(row["law"]),
            images=_row_of(self.image_exponents, name),
            sensitivity=self.sensitivity[self.sensitivity.layer == name].reset_index(drop=True),
            control={} if control is None else _row_of(control.layers, name),
            unit=self.unit,
            options=self.options,
        )

    def plot_spectrum(self, layer: str, ax: Axes | None = None) -> Axes:
        """Draw the spectrum of one layer with its fit, and below it what the fit leaves.

        Shaded are the intervals that the page of the run shows: how the shape of the spectrum, and
        what the fit leaves, would move with other images.

        Args:
            layer: its name.
            ax: where to draw the spectrum alone; by default both are drawn in a new figure, the
                ``figure`` of the axes returned.

        Raises:
            UsageError: there is no such layer; near names are told.
        """
        return self.layer(layer).plot(ax)

    def __repr__(self) -> str:
        images = int(self.layers.n_images.max()) if len(self.layers) else 0
        told = counted(images, "image")
        inner = self.layers[self.layers.kind != "input"]
        if not self.is_of_network:
            rows = [row for row in self.layers.to_dict("records") if np.isfinite(row["exponent"])]
            found = ", ".join(
                estimate(row["exponent"], row["exponent_low"], row["exponent_high"])
                for row in rows[:1]
            )
            return f"<Run of {printable(self.name)}: {told}, exponent {found or 'not known'}>"
        law = self.law
        what = f"{counted(len(inner), 'layer')} on {told}"
        if not np.isfinite(law.slope):
            return f"<Run of {printable(self.name)}: {what}, {law.verdict}>"
        slope = change(law.slope, law.slope_low, law.slope_high)
        per = DEPTH_AXES[law.depth].briefly
        return f"<Run of {printable(self.name)}: {what}, slope {slope} {per}>"

    def _repr_html_(self) -> str:
        from natstats.report.notebook import run_html

        return run_html(self.report(), self.notes)

    def plot_law(self, ax: Axes | None = None) -> Axes:
        """Draw exponent against depth with the law, see :mod:`natstats.report.figures.law`."""
        from natstats.report.figures.law import plot_law

        return plot_law(self.layers, self.verdict.law, ax=ax)

    def plot_specifications(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw the specification curve, see :mod:`natstats.report.figures.specifications`."""
        from natstats.report.figures.specifications import plot_specifications

        return plot_specifications(self.verdict.specifications, axes)

    def plot_spectra(self, ax: Axes | None = None) -> Axes:
        """Draw the spectra with their fits, see :mod:`natstats.report.figures.spectra`."""
        from natstats.report.figures.spectra import plot_spectra

        return plot_spectra(self.spectra, self.fits, ax=ax)

    def plot_images(self, ax: Axes | None = None) -> Axes:
        """Draw the spread between images, see :mod:`natstats.report.figures.image_spread`."""
        from natstats.report.figures.image_spread import plot_spread

        return plot_spread(self.spectra, self.fits, ax=ax)

    def plot_sensitivity(self, figure: Figure | None = None) -> Figure:
        """Draw exponent against band: :mod:`natstats.report.figures.band_sensitivity`."""
        from natstats.report.figures.band_sensitivity import plot_run_sensitivity

        return plot_run_sensitivity(
            self.sensitivity, self.spectra, self.options.band, self.unit, figure
        )

    def plot_account(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw where the exponents come from, see :mod:`natstats.report.figures.account`.

        Raises:
            UsageError: the run was measured without an account.
        """
        from natstats.report.figures.account import plot_account

        return plot_account(self._account_report(), axes)

    def plot_kernels(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw what kernels alone would do, see :mod:`natstats.report.figures.kernels`.

        Raises:
            UsageError: the run was measured without an account.
        """
        from natstats.report.figures.kernels import plot_kernels

        return plot_kernels(self._account_report(), axes)

    def _account_report(self) -> AccountReport:
        if self.explanation is None:
            raise UsageError("run: expected one that was measured with an account (explain)")
        return self.explanation.report()


def _row_of(frame: pd.DataFrame, name: str) -> dict[str, Any]:
    """The row of a layer as plain values; empty where it has none."""
    rows = frame[frame.layer == name].to_dict("records") if len(frame) else []
    return {str(key): value for key, value in rows[0].items()} if rows else {}
