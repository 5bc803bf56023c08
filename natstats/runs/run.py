"""A run: what one measurement produced, fitted, ready to be read, drawn, refitted and saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import expanded
from natstats.files.state_files import write_state
from natstats.fits.band_sensitivity import sensitivity_frame
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.exponents import fit_layers
from natstats.fits.form_comparison import Forms, compare_forms, forms_frame, forms_sentence
from natstats.fits.held_bands import band_sentence
from natstats.fits.image_spread import image_exponents_frame
from natstats.fits.options import FitOptions, refuse_resamples_unused
from natstats.fits.records import Fits
from natstats.law.differences import depths_of
from natstats.law.law import Law, fit_law
from natstats.law.law_layers import asked_for
from natstats.law.verdict import Verdict, judge
from natstats.numbers import map_size
from natstats.report.records import RunReport
from natstats.runs import store
from natstats.runs.account_files import read_account, write_account
from natstats.runs.accounts import Explanation
from natstats.runs.control import Control, compare_with_random
from natstats.runs.counterfactual import ShuffledWeights, read_shuffled, write_shuffled
from natstats.runs.derived_files import write_derived
from natstats.runs.random_weights import (
    RandomWeights,
    read_random_weights,
    write_random_weights,
)
from natstats.runs.run_views import RunViews
from natstats.runs.tables import in_law, law_frame, layers_frame, skipped_frame, with_control
from natstats.spectra.records import LayerSpectrum, SkippedLayer
from natstats.theory.account import Account, fit_account
from natstats.theory.account_spectra import AccountSpectra

__all__ = ["STATES", "Run"]

STATES = "state"
"""Folder in a run for the states from which its measurement can be continued."""


class Run(RunViews):
    """The spectra of the layers of one network, their exponents and the law.

    Args:
        spectra: spectra of every layer, the input images first.
        skipped: layers that were selected and not measured.
        info: facts about the measurement: model, images, options, versions, timing.
        options: how to fit.
        random_weights: the same network with random weights, measured on the same images.
        account_spectra: what was measured for the account; None where it was not asked for.
        shuffled: the same network with shuffled kernels, measured on the same images.

    >>> import numpy as np, torch, natstats
    >>> fields = natstats.power_law_fields(32, 32, 32, alpha=2.0, seed=0)
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1))
    >>> run = natstats.measure(model, np.float32(fields[:, None]))
    >>> bool(abs(run.layers.exponent.iloc[-1] - 2.0) < 0.15)
    True
    """

    def __init__(
        self,
        spectra: Sequence[LayerSpectrum],
        skipped: Sequence[SkippedLayer] = (),
        info: dict[str, Any] | None = None,
        options: FitOptions | None = None,
        random_weights: Sequence[RandomWeights] = (),
        account_spectra: AccountSpectra | None = None,
        shuffled: ShuffledWeights | None = None,
    ) -> None:
        self.spectra = list(spectra)
        self.skipped_layers = list(skipped)
        self.info = dict(info or {})
        self.options = options or FitOptions()
        self.random_weights = list(random_weights)
        self.account_spectra = account_spectra
        self.shuffled = shuffled
        self.path: Path | None = None
        """Where it was saved last, or read from; None for nowhere."""

    @cached_property
    def fits(self) -> Fits:
        """The fit of every layer."""
        return fit_layers(self.spectra, self.options)

    @cached_property
    def layers(self) -> pd.DataFrame:
        """One row per layer, see :func:`natstats.runs.tables.layers_frame`.

        With a control, it also has the columns of :func:`natstats.runs.tables.with_control`.
        """
        found = layers_frame(self.spectra, self.fits, self.forms)
        return found if self.control is None else with_control(found, self.control.layers)

    @cached_property
    def forms(self) -> pd.DataFrame:
        """Other forms than the power law, see :mod:`natstats.fits.form_comparison`."""
        return forms_frame(self.spectra, self.options, self._form_fits)

    @cached_property
    def _form_fits(self) -> list[Forms]:
        """The comparison of forms for every layer."""
        return [compare_forms(one.spectrum, self.options, one.span) for one in self.spectra]

    @cached_property
    def sensitivity(self) -> pd.DataFrame:
        """Exponents in narrower bands, see :mod:`natstats.fits.band_sensitivity`."""
        return sensitivity_frame(self.spectra, self.fits)

    @cached_property
    def image_exponents(self) -> pd.DataFrame:
        """Spread of single images, see :func:`natstats.fits.image_spread.image_exponents_frame`."""
        return image_exponents_frame(self.spectra, self.fits)

    @property
    def skipped(self) -> pd.DataFrame:
        """One row per layer that was selected and not measured, with the reason."""
        return skipped_frame(self.skipped_layers)

    @cached_property
    def law(self) -> Law:
        """The relation of exponent to depth, over the layers that the options ask for.

        The column ``law`` of :attr:`layers` says which these are, and why others are left out.
        """
        layers = [self.spectra[place].layer for place in self.law_places]
        return fit_law(
            depths_of(self.spectra, self.options.depth)[self.law_places],
            self.fits.exponents[self.law_places],
            self.fits.deviations[:, self.law_places],
            [map_size(layer.height, layer.width) for layer in layers],
            self.options.level,
            self.options.depth,
            [layer.name for layer in layers],
        )

    @cached_property
    def law_places(self) -> list[int]:
        """Places of the layers that are in the law."""
        places: list[int] = np.flatnonzero(in_law(self.spectra, self.fits)).tolist()
        return places

    @cached_property
    def verdict(self) -> Verdict:
        """The law tried under other reasonable choices, and without some layers.

        Its ``law`` is :attr:`law`, except that its verdict is the one of all specifications.
        """
        table = law_frame(self.spectra, self.fits)
        return judge(
            self.law,
            [self.spectra[place] for place in self.law_places],
            table.iloc[self.law_places].reset_index(drop=True),
            self.fits.deviations[:, self.law_places],
            self.options,
            # The deepest layer, for shares of it, is that of all layers, in the law or not.
            {name: axis.values(table)[self.law_places] for name, axis in DEPTH_AXES.items()},
        )

    @cached_property
    def control(self) -> Control | None:
        """What training did to the exponents; None where no random weights were measured."""
        if not self.random_weights:
            return None
        return compare_with_random(self.spectra, self.fits, self.random_weights)

    @cached_property
    def account(self) -> Account | None:
        """Where the exponents come from; None where that was not measured (``explain``)."""
        return fit_account(self.account_spectra, self.options)

    @cached_property
    def explanation(self) -> Explanation | None:
        """What follows from the account: see :class:`natstats.runs.accounts.Explanation`."""
        if self.account is None:
            return None
        depths = depths_of(self.spectra, self.options.depth)
        layers = {self.spectra[n].layer.name: float(depths[n]) for n in self.law_places}
        return Explanation(self.account, layers, self.random_weights, self.shuffled)

    def forms_sentence(self) -> str:
        """In how many layers another form is clearly better than a power law, in words."""
        return forms_sentence(self.forms[(self.layers.kind != "input").to_numpy()])

    def band_sentence(self) -> str:
        """How many layers do not hold the band that was asked for; empty where all do."""
        return band_sentence(self.spectra, self.options.band, self.unit)

    @property
    def name(self) -> str:
        """What the run is called in plots: the model's name, or where the images come from."""
        return str(self.info.get("name", "run"))

    @property
    def unit(self) -> str:
        """What frequencies are counted in, cycles per ``pixel`` of the map or per ``frame``."""
        return "frame" if self.info.get("options", {}).get("temporal") else "pixel"

    def refit(self, **changes: Any) -> Run:
        """Fit the same spectra in another way; options that are not given stay as they were.

        Args:
            **changes: fields of :class:`natstats.fits.options.FitOptions` with their new values.

        Raises:
            UsageError: a value is out of range, there is no such option, or a part of `law_layers`
                matches no layer.
        """
        for name in changes:
            checks.one_of("option", name, self.options.to_dict())
        options = replace(self.options, **changes)
        refuse_resamples_unused(changes, options)
        _check_law_layers(self.spectra, options)  # now, and not when the law is asked for
        again = Run(
            self.spectra,
            self.skipped_layers,
            self.info,
            options,
            self.random_weights,
            self.account_spectra,
            self.shuffled,
        )
        again.info["refit"] = True
        return again

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        report: bool = True,
        states: Mapping[str, dict[str, Any]] | None = None,
    ) -> Path:
        """Write the run directory, whole or not at all, and return its path.

        Args:
            path: of the directory.
            overwrite: replace the run that is there.
            report: write its page and figures, too.
            states: states from which the measurement can be continued, by the name of the pass.

        Raises:
            UsageError: something is at `path`, and it is not a run or `overwrite` is not set.
            NatstatsError: it cannot be written.
        """
        path = expanded(path, "out")
        with store.write_directory(path, overwrite) as folder:
            info = {**self.info, "fit": self.options.to_dict()}
            store.write_run(folder, info, self.spectra, self.skipped_layers)
            write_derived(self, folder)
            if self.control is not None:
                write_random_weights(folder, self.random_weights)
            if self.account_spectra is not None and self.explanation is not None:
                write_account(folder, self.account_spectra)
                self.explanation.save(folder)
            if self.shuffled is not None:
                write_shuffled(folder, self.shuffled)
            for name, state in (states or {}).items():
                (folder / STATES).mkdir(exist_ok=True)
                write_state(folder / STATES / f"{name}.safetensors", state)
            if report:
                from natstats.report.pages.run import write_report

                write_report(folder, self.report())
        self.path = path
        return path

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """Read a run directory.

        Raises:
            UsageError: `path` is not a run.
            NatstatsError: the run is damaged or of a newer format.
        """
        path = expanded(path, "run")
        info, spectra, skipped = store.read_run(path)
        try:
            options = FitOptions.from_dict(info.pop("fit", {}))
            _check_law_layers(spectra, options)
        except UsageError as error:
            raise NatstatsError(
                f"run: expected a whole run in {path}; run.json, fit.{error}"
            ) from error
        n_groups = len(spectra[0].spectrum.count)
        random = read_random_weights(path, n_groups)
        explained = read_account(path, n_groups), read_shuffled(path, n_groups)
        run = cls(spectra, skipped, info, options, random, *explained)
        run.path = path
        return run

    def report(self) -> RunReport:
        """Everything that its figures and its page show."""
        return RunReport(
            name=self.name,
            info=self.info,
            options=self.options,
            unit=self.unit,
            spectra=self.spectra,
            fits=self.fits,
            layers=self.layers,
            verdict=self.verdict,
            forms=self._form_fits,
            forms_sentence=self.forms_sentence(),
            sensitivity=self.sensitivity,
            image_exponents=self.image_exponents,
            skipped=self.skipped,
            control=None if self.control is None else self.control.report(),
            account=None if self.explanation is None else self.explanation.report(),
        )


def _check_law_layers(spectra: Sequence[LayerSpectrum], options: FitOptions) -> None:
    """Refuse a selection of layers for the law if a part of it matches none of these layers.

    Raises:
        UsageError: a part matches none.
    """
    inner = [measured.layer for measured in spectra if measured.layer.kind != "input"]
    if inner:
        names, kinds = [layer.name for layer in inner], [layer.kind for layer in inner]
        asked_for(options.law_layers, names, kinds, [False] * len(inner))
