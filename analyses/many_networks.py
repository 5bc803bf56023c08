"""What the depth law is worth: every trained network that can be had, beside random controls.

    OMP_NUM_THREADS=1 python analyses/many_networks.py --photos PHOTOGRAPHS --weights WEIGHTS \
        --trained runs/families/trained --cifar CIFAR10/val --work runs/many

measures each network of analyses/trained_networks.py on unscaled crops of photographs, and those
of CIFAR on images of CIFAR-10, too, each with three seeds of random weights. Runs are kept below
--work and used again, so that an interruption loses nothing. Writes
analyses/results/many_networks.json, from which figures/many_networks.py makes the tables and
figures of docs/law.md.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import statsmodels.api as sm
from study import circumstances
from trained_networks import Trained, networks

import natstats
from natstats.law.law import Law, fit_law
from natstats.law.meta_analysis import Pooled, pool
from natstats.law.specifications import CHOICES
from natstats.runs.many_networks import MetaAnalysis
from natstats.runs.store import to_json

RESULT = Path(__file__).parent / "results" / "many_networks.json"
N_IMAGES = 64
SEEDS = 3
BANDS: dict[str, Any] = {
    "whole": (0.0, 0.5),
    "without the top octave": (0.0, 0.25),
    "upper four fifths": (0.1, 0.5),
    "1 to 4 cycles per image": "1:4/image",
    "2 to 7 cycles per image": "2:7/image",
}
"""Bands in which all networks are taken together, cycles/pixel or cycles/image."""

FEWEST_IN_STAGE = 5
STRETCH = slice(3, 14)
"""The layers of DnCNN that law.md of the plan names: the 4th to the 14th convolution."""

Row = dict[str, Any]
Runs = dict[str, tuple[Trained, natstats.Run]]


def law_row(law: Law) -> Row:
    """What tables say of a law."""
    row: Row = {
        "n": law.n_layers,
        "slope": [law.slope, law.slope_low, law.slope_high],
        "p": law.trend_p,
        "rank_p": law.rank_p,
        "correlation": [law.correlation, law.correlation_low, law.correlation_high],
        "stage_share": law.stage_share,
        "verdict": law.verdict,
        "best_shape": law.best_shape,
    }
    if law.network is not None:
        own = law.network
        row["description"] = {
            "slope": [own.slope, own.slope_low, own.slope_high],
            "line_share": own.line_share,
            "shape_share": own.shape_share,
            "departures": [[one.layer, one.value] for one in own.departures[:3]],
        }
    return row


def part_law(run: natstats.Run, places: list[int]) -> Law:
    """The law of some of the layers."""
    table = run.layers.iloc[places]
    return fit_law(
        table.depth.to_numpy(float),
        run.fits.exponents[places],
        run.fits.deviations[:, places],
        [f"{h} x {w}" for h, w in zip(table.height, table.width, strict=True)],
        names=table.layer.tolist(),
    )


def network_row(one: Trained, run: natstats.Run) -> Row:
    """Everything that is said of one network."""
    verdict, found = run.verdict, run.verdict.specifications
    frame = found.frame
    table = run.layers.iloc[run.law_places]
    stages = []
    for size in dict.fromkeys(table.height):
        places = [place for place in run.law_places if run.layers.height[place] == size]
        stage = part_law(run, places)
        stages.append(
            {
                "side": int(size),
                "n": len(places),
                "mean": float(np.mean(run.fits.exponents[places])),
                "slope": [stage.slope, stage.slope_low, stage.slope_high],
            }
        )
    control, seeds = run.control, []
    for random in run.random_weights:
        own = natstats.Run(random.spectra, (), run.info, run.options)
        seeds.append(law_row(own.law))
    return {
        "network": one.name,
        "family": one.family,
        "training": one.training,
        "n_images": int(run.spectra[0].spectrum.n_images),
        "deepest": float(table.depth.max()),
        "n_few_rings": int((table.n_rings < 4).sum()),
        "law": law_row(verdict.law),
        "asked": run.law.verdict,
        "lines": verdict.lines(),
        "specifications": {
            "n": len(found.rows),
            "outcomes": dict(found.counts),
            "by_choice": {
                choice: {
                    str(value): dict(own.outcome.value_counts())
                    for value, own in frame.groupby(choice, sort=False)
                }
                for choice in CHOICES
            },
        },
        "influence": [[x.what, x.name, x.outcome] for x in verdict.changing],
        "stages": stages,
        "control": None
        if control is None
        else {
            "trained": control.slope_trained,
            "random": control.slope_random,
            "difference": [control.slope.value, control.slope.low, control.slope.high],
            "p": control.slope.p,
        },
        "random": seeds,
        "layers": [
            [row["layer"], row["kind"], row["depth"], row["height"], row["exponent"], row["law"]]
            for row in run.layers.to_dict("records")
        ],
    }


def pooled_row(found: Pooled) -> Row:
    """What tables say of a mean over networks."""
    return {
        "n": found.n,
        "mean": [found.mean.value, found.mean.low, found.mean.high],
        "p": found.mean.p,
        "next": [found.next_low, found.next_high],
        "tau": found.tau,
        "i2": found.i2,
        "q_p": found.q_p,
    }


def meta_row(found: MetaAnalysis) -> Row:
    """What tables say of a meta-analysis."""
    return {
        "sentences": list(found.sentences()),
        "verdict": found.verdict,
        "pooled": {unit: pooled_row(one) for unit, one in found.pooled.items()},
        "contrast": {unit: one.p for unit, one in found.contrast.items()},
        "trained": {unit: pooled_row(one) for unit, one in found.trained.items()},
        "shape": None
        if found.shape is None
        else {
            "p": found.shape.p,
            "terms": {name: pooled_row(one) for name, one in found.shape.terms.items()},
        },
        "subgroups": found.subgroups.to_dict("records"),
    }


def together(runs: Runs) -> Row:
    """The networks as the sample: by family, by training, families as the sample, by band."""
    plain = {name: run for name, (_, run) in runs.items()}
    labels = {
        "family": [one.family for one, _ in runs.values()],
        "training": [one.training for one, _ in runs.values()],
    }
    found = {by: natstats.meta_analysis(plain, by=own) for by, own in labels.items()}
    rows: Row = {by: meta_row(one) for by, one in found.items()}
    groups = found["family"].subgroups
    rows["families"] = {}
    for unit in ("depth", "whole"):
        own = groups[(groups.unit == unit) & groups.subgroup.isin(labels["family"])]
        # A family is one witness, of the mean of its members.
        rows["families"][unit] = pooled_row(
            pool(own["mean"], np.zeros(len(own)), [np.inf] * len(own))
        )
    rows["bands"] = {}
    rows["bands"] = {
        name: meta_row(natstats.meta_analysis(plain, band=band)) for name, band in BANDS.items()
    }
    rows["same_layers"] = {name: same_layers(plain, band) for name, band in BANDS.items()}
    return rows


def same_layers(plain: Mapping[str, natstats.Run], band: Any) -> Row:
    """The mean slope in the whole band, over the layers that have an exponent in another one.

    Small maps do not hold a narrow band: what leaving them out does must be told from what the
    band does.
    """
    laws, n_kept, n_all = [], 0, 0
    for run in plain.values():
        kept = set(run.refit(band=band).law_places)
        places = [place for place in run.law_places if place in kept]
        n_kept, n_all = n_kept + len(places), n_all + len(run.law_places)
        law = part_law(run, places)
        if np.isfinite(law.slope):
            laws.append(law)
    errors = [np.sqrt(law.covariance[1][1]) for law in laws]
    found = pool([law.slope for law in laws], errors, [law.dof for law in laws])
    return {**pooled_row(found), "layers": [n_kept, n_all]}


def two_trainings(runs: Runs) -> list[Row]:
    """Two trainings of one architecture: their slopes, and their exponents layer by layer."""
    rows = []
    for depth in (20, 32, 44, 56):
        names = f"ResNet-{depth}", f"ResNet-{depth}, b"
        if not all(name in runs for name in names):
            continue
        tables = []
        for name in names:
            run = runs[name][1]
            tables.append(run.layers.iloc[run.law_places].set_index("layer"))
        shared = tables[0].index.intersection(tables[1].index)
        first, second = (table.exponent[shared].to_numpy(float) for table in tables)
        laws = [runs[name][1].law for name in names]
        rows.append(
            {
                "depth": depth,
                "n": len(shared),
                "correlation": float(np.corrcoef(first, second)[0, 1]),
                "rms": float(np.sqrt(np.mean((first - second) ** 2))),
                "sd": float(np.std(first)),
                "slopes": [[law.slope, law.slope_low, law.slope_high] for law in laws],
            }
        )
    return rows


def depth_scaling(rows: list[Row]) -> Row:
    """Power of depth that the slope goes with, over four depths of three trainings.

    -1 is one rise for all depths, 0 one slope for all.
    """
    kept = [row for row in rows if re.match(r"ResNet-\d+(?!.*textures)", row["network"])]
    kept = [row for row in kept if row["law"]["slope"][0] > 0]
    suffix = [re.sub(r"ResNet-\d+", "", row["network"]) for row in kept]
    log_depth = np.log([row["deepest"] for row in kept])
    columns = [[float(own == one) for own in suffix] for one in dict.fromkeys(suffix)]
    design = np.column_stack([log_depth, *columns])
    fit = sm.OLS(np.log([row["law"]["slope"][0] for row in kept]), design).fit()
    low, high = fit.conf_int()[0]
    return {"n": len(kept), "power": [float(fit.params[0]), float(low), float(high)]}


def stretch(runs: Runs) -> list[Row]:
    """The stretch of DnCNN that rises as a line: in the whole band and in parts of it."""
    rows = []
    for name, (_, run) in runs.items():
        if not name.startswith("DnCNN"):
            continue
        for band in ((0.0, 0.5), "1:6/image", "3:24/image", "12:48/image"):
            again = run.refit(band=band)
            places = again.law_places[STRETCH]
            rows.append(
                {
                    "network": name,
                    "band": str(band),
                    "layers": [again.layers.layer[place] for place in (places[0], places[-1])],
                    **law_row(part_law(again, places)),
                }
            )
    return rows


def analysed(runs: Mapping[str, Runs]) -> Row:
    """Everything that docs/law.md says, by the images that were shown."""
    result: Row = {}
    for images, own in runs.items():
        if not own:
            continue
        rows = []
        for name, (one, run) in own.items():
            rows.append(network_row(one, run))
            print(images, name, rows[-1]["lines"][0], flush=True)
        result[images] = {
            "networks": rows,
            "together": together(own),
            "trainings": two_trainings(own),
            "scaling": depth_scaling(rows),
            "stretch": stretch(own),
        }
    return result


def measured(one: Trained, images: Path, folder: Path, args: argparse.Namespace) -> natstats.Run:
    """The run of a network: that which is kept, or a new one."""
    home = folder / re.sub(r"[^A-Za-z0-9]+", "-", one.name).strip("-").lower()
    if (home / "run.json").is_file():
        return natstats.Run.open(home)
    run = natstats.measure(
        one.load(),
        images,
        crop=one.crop,
        limit=args.limit,
        seed=0,
        control="random-weights",
        control_seeds=SEEDS,
    )
    run.info["name"] = one.name
    run.save(home, report=False)
    print(f"{home}: {run.info['timing']['seconds']:.0f} s", flush=True)
    return run


def main() -> None:
    """Measure what is missing, then analyse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--cifar", type=Path, help="a folder of images of CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/many"))
    parser.add_argument("--limit", type=int, default=N_IMAGES)
    parser.add_argument("--measure-only", action="store_true", help="do not analyse")
    args = parser.parse_args()
    runs: dict[str, Runs] = {"photographs": {}, "cifar10": {}}
    for one in networks(args.weights, args.trained):
        runs["photographs"][one.name] = (
            one,
            measured(one, args.photos, args.work / "photographs", args),
        )
        if one.training.startswith("CIFAR") and args.cifar is not None:
            runs["cifar10"][one.name] = one, measured(one, args.cifar, args.work / "cifar10", args)
    if args.measure_only:
        return
    record = {
        "command": "python analyses/many_networks.py --photos ... --weights ... --trained ... "
        f"--cifar ... --limit {args.limit}",
        **circumstances(),
        **analysed(runs),
    }
    RESULT.write_text(json.dumps(json.loads(to_json(record)), indent=0) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()
