"""The law of many networks: a meta-analysis of the slopes of their laws.

However many layers it has, one network is one observation. Here networks are the sample, each with
the slope of its law, once per unit of depth and once over the whole depth of the network. These are
two hypotheses: the exponent may rise by the same in every layer, or by the same from end to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from natstats.law.differences import Estimate
from natstats.law.law import Law
from natstats.law.meta_analysis import Contrast, Pooled, compare_groups, pool
from natstats.law.shape_agreement import shapes_agree
from natstats.report.records import ALL, CONTROL, DIFFERENCE
from natstats.runs.network_groups import COLUMNS, By, labels_of
from natstats.runs.network_sample import Member, Sample, error_of, gather
from natstats.runs.networks_result import VERDICTS, MetaAnalysis
from natstats.runs.run import Run
from natstats.text import few, printable

__all__ = ["VERDICTS", "MetaAnalysis", "meta_analysis"]


def meta_analysis(
    runs: Iterable[Run | str | Path] | Mapping[str, Run], by: By = None, **fit: Any
) -> MetaAnalysis:
    """Take the laws of many networks together: mean slope, the next network, how they differ.

    Args:
        runs: runs, or paths of runs, of series (whose last checkpoint counts) and of folders that
            hold them; or runs by name. Two networks or more, each once.
        by: makes subgroups: one of ``family``, ``model``, ``weights``, ``trained`` and ``images``;
            patterns of names by the name of a subgroup, such as ``{"cifar": "*cifar*"}``; or a
            label for each run.
        **fit: fields of :class:`natstats.fits.options.FitOptions`, to fit all runs alike.

    Returns:
        Mean slope per unit of depth and over the whole depth, each with its interval, the range
        for the next network, and how different networks are; see
        :mod:`natstats.law.meta_analysis`.

    Raises:
        UsageError: the runs do not make a sample: fewer than two with enough layers, one network
            twice, measured or fitted in different ways, or of images alone.
        NatstatsError: a run is damaged.

    >>> import numpy as np, torch, natstats
    >>> images = np.float32(natstats.power_law_fields(32, 32, 32, alpha=2.0, seed=0)[:, None])
    >>> def network(seed):
    ...     torch.manual_seed(seed)
    ...     return torch.nn.Sequential(*(torch.nn.Conv2d(1 if k == 0 else 4, 4, 3, padding=1)
    ...                                  for k in range(6)))
    >>> found = meta_analysis({f"seed {k}": natstats.measure(network(k), images) for k in range(3)})
    >>> found.mean.n, found.verdict in VERDICTS
    (3, True)
    """
    sample = gather(runs, fit)
    by_name, labels = labels_of(sample, by)
    members = sample.members
    level = members[0].options.level
    networks = _networks_frame(members, labels, by is not None)
    pooled, contrast, trained, rows = {}, {}, {}, []
    for unit, end in (("depth", ""), ("whole", "_whole")):
        value, error = (networks[f"slope{end}{x}"].to_numpy() for x in ("", "_error"))
        dof = networks.dof.to_numpy()
        pooled[unit] = pool(value, error, dof, level)
        networks[f"weight{end}"] = pooled[unit].weights
        rows.append(_row(unit, ALL, pooled[unit]))
        contrast[unit] = Contrast() if by is None else compare_groups(value, error, labels)
        for label in dict.fromkeys(labels) if by is not None else ():
            own = [place for place, other in enumerate(labels) if other == label]
            rows.append(_row(unit, label, pool(value[own], error[own], dof[own], level)))
        for name, one in _control(members, unit, level).items():
            rows.append(_row(unit, f"{CONTROL}{name}", one))
            if name == DIFFERENCE:
                trained[unit] = one
    shapes = [one.shape for one in members if one.shape is not None]
    return MetaAnalysis(
        networks=_in_order(networks),
        subgroups=pd.DataFrame(rows),
        by=by_name,
        pooled=pooled,
        contrast=contrast,
        trained=trained,
        shape=shapes_agree(shapes, level) if shapes else None,
        options=members[0].options,
        notes=(*sample.notes, *_notes(sample, by_name, labels)),
    )


def _networks_frame(
    members: Sequence[Member], labels: Sequence[str], is_grouped: bool
) -> pd.DataFrame:
    """A row for each network, without weights; see :attr:`MetaAnalysis.networks`."""
    rows = []
    for one, label in zip(members, labels, strict=True):
        law = one.law
        row: dict[str, Any] = {
            "network": one.name,
            "path": one.path,
            **{name: one.column(name) for name in COLUMNS},
            "subgroup": label if is_grouped else "",
            "verdict": law.verdict,
            "n_layers": law.n_layers,
            "deepest": one.deepest,
            "dof": law.dof,
        }
        for end, factor in (("", one.unit_factor), ("_whole", one.whole_factor)):
            row |= {
                f"slope{end}": factor * law.slope,
                f"slope{end}_low": factor * law.slope_low,
                f"slope{end}_high": factor * law.slope_high,
                f"slope{end}_error": factor * _error(law),
                f"weight{end}": np.nan,
            }
        row["n_seeds"] = one.n_seeds
        for end, factor in (("", one.unit_factor), ("_whole", one.whole_factor)):
            random, difference = one.random or Estimate(), one.difference or Estimate()
            row |= {
                f"random_slope{end}": factor * random.value,
                f"difference{end}": factor * difference.value,
                f"difference{end}_low": factor * difference.low,
                f"difference{end}_high": factor * difference.high,
            }
        row["digest"] = one.model.get("digest") or ""
        rows.append(row)
    return pd.DataFrame(rows)


def _error(law: Law) -> float:
    """Standard error of the slope."""
    return float(np.sqrt(max(law.covariance[1][1], 0.0)))


def _row(unit: str, name: str, found: Pooled) -> dict[str, Any]:
    """A row of :attr:`MetaAnalysis.subgroups`."""
    return {
        "unit": unit,
        "subgroup": name,
        "n": found.n,
        "mean": found.mean.value,
        "low": found.mean.low,
        "high": found.mean.high,
        "p": found.mean.p,
        "next_low": found.next_low,
        "next_high": found.next_high,
        "tau": found.tau,
        "i2": found.i2,
        "q": found.q,
        "q_p": found.q_p,
    }


def _with_control(members: Sequence[Member]) -> list[Member]:
    """Networks whose weights are not random themselves, measured beside random weights."""
    return [
        one
        for one in members
        if one.random is not None
        and one.difference is not None
        and np.isfinite([one.difference.value, one.difference.low]).all()
        and one.model.get("trained") is not False
    ]


def _control(members: Sequence[Member], unit: str, level: float) -> dict[str, Pooled]:
    """Networks with a control: trained, with random weights, and the difference within networks."""
    paired = _with_control(members)
    if len(paired) < 2:
        return {}
    factors = [one.whole_factor if unit == "whole" else one.unit_factor for one in paired]
    kinds: dict[str, list[tuple[float, float, float]]] = {
        "trained": [(one.law.slope, _error(one.law), one.law.dof) for one in paired],
        "random weights": [_numbers(one.random, level) for one in paired],
        DIFFERENCE: [_numbers(one.difference, level) for one in paired],
    }
    return {
        name: pool(
            [factor * value for factor, (value, _, _) in zip(factors, rows, strict=True)],
            [factor * error for factor, (_, error, _) in zip(factors, rows, strict=True)],
            [dof for _, _, dof in rows],
            level,
        )
        for name, rows in kinds.items()
    }


def _numbers(estimate: Estimate | None, level: float) -> tuple[float, float, float]:
    """Value, standard error and degrees of freedom."""
    assert estimate is not None
    dof = estimate.dof if np.isfinite(estimate.dof) else np.inf
    return estimate.value, error_of(estimate, level), dof


def _in_order(networks: pd.DataFrame) -> pd.DataFrame:
    """Networks of one subgroup beside each other, in the order in which subgroups first appear."""
    order = {label: place for place, label in enumerate(dict.fromkeys(networks.subgroup))}
    places = networks.subgroup.map(order).argsort(kind="stable")
    return networks.iloc[places].reset_index(drop=True)


def _notes(sample: Sample, by: str | None, labels: Sequence[str]) -> list[str]:
    """What to know of the networks and their subgroups, in sentences."""
    notes, members = [], sample.members
    trained = {one.model.get("trained") for one in members}
    if by is None and {True, False} <= trained:
        notes.append(
            "Trained networks and networks with random weights are in one mean; --by trained tells "
            "them apart."
        )
    if by is not None and len(set(labels)) == 1:
        notes.append(f"All networks are in one subgroup, {printable(labels[0])}.")
    elif by is not None:
        single = [label for label in dict.fromkeys(labels) if labels.count(label) == 1]
        if single:
            notes.append(f"One network makes no interval of a mean: {few(single)}.")
    n = len(_with_control(members))
    if n and n < len(members):
        networks = "1 network has" if n == 1 else f"{n} of {len(members)} networks have"
        notes.append(f"{networks} a control with random weights to compare with.")
    return notes
