"""Options of long commands in sections of their help, by what they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

__all__ = ["MEASURING", "Sectioned"]

MEASURING: Mapping[str, Sequence[str]] = {
    "Network": (
        "checkpoint", "checkpoint_key", "weights", "model_args", "takes", "strict", "device", "amp",
    ),
    "Images": (
        "images", "limit", "until", "seed", "size", "crop", "frames", "no_normalize", "batch_size",
        "workers",
    ),
    "Layers and spectra": ("layers", "layouts", "no_probe", "temporal", "edges", "n_groups"),
    "Fit and law": (
        "band", "estimator", "level", "min_rings", "normalize", "interval", "resamples", "depth",
        "law_layers",
    ),
    "What else is measured": ("control", "control_seeds", "explain", "counterfactual"),
    "Where it goes": ("out", "overwrite", "save_every", "shard"),
    "What is printed": ("show_all", "as_json", "quiet", "debug"),
}  # fmt: skip
"""Sections of a measurement, and the parameters in them; a section without any is not shown."""


class Sectioned(click.Command):
    """A command whose help has its options in the sections of :data:`MEASURING`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list of options for every section; those in none come last."""
        records = {
            str(parameter.name): record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(ctx)) is not None
        }
        last = list(MEASURING)[-1]
        for title, names in MEASURING.items():
            rows = [records.pop(name) for name in names if name in records]
            if title == last:  # those in no section, such as --help
                rows += records.values()
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
