"""Measure every network of torchvision and many of timm: what is found, measured, left out, why.

    python analyses/zoo_coverage.py                          # all of them, an hour on two cores
    python analyses/zoo_coverage.py --models 'swin*' vit_b_16 'timm:hiera*'

Every network runs in a process of its own with one thread, two at a time: random weights, a batch,
at the smallest input at which its last maps are large enough where that can be had (torchvision) or
its own (timm). The probe of the layouts runs by itself before, so that its time can be told beside
that of a plain pass of one image. Writes analyses/results/zoo_coverage.csv; `python figures/zoo.py`
makes the tables of docs/networks.md from it.
"""

from __future__ import annotations

import argparse
import fnmatch
import multiprocessing
import re
import resource
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd

RESULT = Path(__file__).parent / "results" / "zoo_coverage.csv"

# Side of the images by name pattern, the first that fits. A stride of 32 leaves 5 x 5 pixels of
# 160; some networks are built for one size; pyramids go down to a stride of 64 or 128.
SIDES = {
    "vit_*": 224,
    "maxvit_t": 224,
    "mvit_*": 224,
    "alexnet": 224,
    "*inception_v3": 224,
    "raft_*": 128,
    "retinanet_*": 640,
    "fcos_*": 640,
    "*rcnn_*": 320,
    "ssd300_*": 300,
    "ssdlite320_*": 320,
    "s3d": 224,
    "r3d_18": 80,
    "mc3_18": 80,
    "r2plus1d_18": 80,
    "*": 160,
}
# One network of timm for each way of ordering tokens, cutting windows or attending, and a few
# convolutional ones of every generation; small ones, as only the forms matter.
TIMM = (
    "beit_base_patch16_224", "beitv2_base_patch16_224", "bat_resnext26ts", "botnet26t_256",
    "cait_xxs24_224", "coat_lite_tiny", "coat_tiny", "coatnet_nano_rw_224", "convit_tiny",
    "convmixer_768_32", "convnextv2_atto", "crossvit_tiny_240", "cs3darknet_s",
    "davit_tiny", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224", "densenet121",
    "dla34", "dpn48b", "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0",
    "efficientvit_b0", "efficientvit_m0", "eva02_tiny_patch14_224", "fasternet_t0", "fastvit_t8",
    "focalnet_tiny_srf", "gcvit_xxtiny", "gernet_s", "ghostnet_050", "gmlp_ti16_224",
    "halonet26t", "hardcorenas_a", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small",
    "inception_next_atto", "lambda_resnet26t", "levit_128s", "mambaout_femto",
    "maxvit_rmlp_pico_rw_256", "mixer_s32_224", "mixnet_s", "mobilenetv4_conv_small",
    "mobileone_s0", "mobilevit_xxs", "mobilevitv2_050", "mvitv2_tiny", "nest_tiny",
    "nextvit_small", "nf_resnet26", "pit_ti_distilled_224", "poolformer_s12", "pvt_v2_b0",
    "pvt_v2_b2_li", "rdnet_tiny", "regnety_002", "repghostnet_050", "repvit_m0_9",
    "res2net50d", "resmlp_12_224", "resnest14d", "resnetv2_50", "rexnet_100",
    "samvit_base_patch16_224", "selecsls42",
    "sequencer2d_s", "skresnet18", "starnet_s1", "swiftformer_xs",
    "swin_s3_tiny_224", "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224",
    "swinv2_tiny_window8_256", "tf_efficientnet_cc_b0_4e", "tiny_vit_5m_224",
    "tnt_s_patch16_224", "twins_pcpvt_small", "twins_svt_small", "visformer_tiny",
    "vit_base_patch16_rope_reg1_gap_256", "vit_relpos_small_patch16_224",
    "vit_small_patch14_reg4_dinov2", "vit_small_r26_s32_224", "vit_tiny_patch16_224",
    "vitamin_small_224", "volo_d1_224", "vovnet39a", "xception41", "xcit_nano_12_p16_224",
)  # fmt: skip
ONE_IMAGE = ("regnet_y_128gf", "vit_h_14", "vit_l_*", "retinanet_*", "fcos_*", "*rcnn_resnet*")


def one(name: str) -> dict[str, object]:
    """Build and measure a network in this process."""
    import torch

    import natstats
    from natstats.activations.hooks import undisturbed
    from natstats.activations.trace import trace_calls
    from natstats.networks.load import load_network

    started = time.perf_counter()
    network = load_network(name, weights="none")
    model = network.model
    if name.startswith("timm:"):
        side = network.preprocessing.framing.size
    else:
        side = next(side for key, side in SIDES.items() if fnmatch.fnmatch(name, key))
    if network.takes == "list" and "ssd" not in name:  # those have one fixed size
        model.transform.min_size, model.transform.max_size = (side,), side
    n_images = 1 if any(fnmatch.fnmatch(name, key) for key in ONE_IMAGE) else 2
    images = torch.rand(n_images, 3, side, side, generator=torch.Generator().manual_seed(0))
    with undisturbed(model), torch.inference_mode():
        plain = timed(lambda: model(*network.arguments(images[:1])))
        built = time.perf_counter()
        trace = trace_calls(model, network.arguments(images[:1]))
        collector = natstats.Collector(model, trace=trace)
        before = time.perf_counter()
        collector.prove_layouts()
        probing = time.perf_counter() - before
        with collector:
            model(*network.arguments(images))
    seconds = time.perf_counter() - built
    measured, skipped, probed = collector.compute(), collector.skipped, collector.probed
    reasons = Counter(kind_of(layer.reason) for layer in skipped)
    # Every weight layer must be in one list or the other.
    from natstats.activations.selection import select_modules

    told = {m.layer.name for m in measured} | {layer.name for layer in skipped}
    untold = [n for n in select_modules(model, "weight") if n not in told]
    by_rule = sum(m.layer.layout.endswith("by rule") for m in measured)
    spatial = len(measured) + sum(n for kind, n in reasons.items() if kind not in NOT_SPATIAL)
    layouts = Counter(re.sub(r" \(.*\)", "", m.layer.layout) for m in measured)
    return {
        "network": name,
        "family": family_of(name),
        "million_parameters": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "takes": network.takes,
        "images": n_images,
        "side": side,
        "calls": len(measured) + len(skipped),
        "measured": len(measured),
        "spatial": spatial,
        "share": round(len(measured) / spatial, 4),
        "untold": len(untold),
        "proved": len(probed.proved),
        "read otherwise": len(probed.settled),
        "refused": len(probed.refused),
        "by rule": by_rule,
        "probe problem": probed.problem,
        "passes": round(probing / plain, 2),
        **{kind: reasons.get(kind, 0) for kind in (*NOT_SPATIAL, *SPATIAL)},
        "layouts": "; ".join(f"{n} {layout}" for layout, n in layouts.most_common()),
        "depth": max((m.layer.depth for m in measured), default=0),
        "followed": collector.trace.followed,
        "seconds_build": round(built - started, 1),
        "seconds_measure": round(seconds, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "error": "",
    }


NOT_SPATIAL = ("no axes of maps", "1 x 1", "never called", "not of the images")
SPATIAL = ("too small", "wrong place", "other")


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call: the least of three, or of as many as five seconds hold."""
    found: list[float] = []
    while not found or (len(found) < 3 and sum(found) < 5):
        started = time.perf_counter()
        call()
        found.append(time.perf_counter() - started)
    return min(found)


def kind_of(reason: str) -> str:
    """The reasons that come, in few words."""
    for text, kind in {
        "has no axes of maps": "no axes of maps",
        "maps of 1 x 1 pixels": "1 x 1",
        "never called": "never called",
        "does not depend on the images": "not of the images",
        "answers in": "wrong place",
        "maps of ": "too small",
    }.items():
        if text in reason:
            return kind
    return "other"


def family_of(name: str) -> str:
    """The module that a builder stands in, without its package."""
    if name.startswith("timm:"):
        import timm

        home = timm.model_entrypoint(name.removeprefix("timm:")).__module__
        return f"timm {home.rpartition('.')[2]}"
    import torchvision.models

    return torchvision.models.get_model_builder(name).__module__.split("models.")[1]


def row_of(name: str) -> dict[str, object]:
    """The row of a network, or of the error that came in place of one."""
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        return one(name)
    except Exception as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        return {"network": name, "family": family_of(name), "error": text}


def main() -> None:
    """Measure the networks, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["*"], help="names or patterns")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--jobs", type=int, default=2, help="networks at a time, a thread each")
    arguments = parser.parse_args()
    # Imported once, before the processes are forked; none of it has started a thread by then.
    import timm  # noqa: F401
    import torchvision.models

    import natstats  # noqa: F401

    names = [*torchvision.models.list_models(), *(f"timm:{name}" for name in TIMM)]
    chosen = [n for n in names if any(fnmatch.fnmatch(n, p) for p in arguments.models)]
    rows = {}
    if arguments.result.is_file() and chosen != names:
        rows = {row["network"]: row for row in pd.read_csv(arguments.result).to_dict("records")}
    context = multiprocessing.get_context("fork")
    with context.Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for row in pool.imap_unordered(row_of, chosen):
            rows[row["network"]] = row
            print(
                row["network"],
                row["error"]
                or f"{row['measured']} of {row['spatial']} spatial, {row['share']:.0%}, "
                f"{row['seconds_measure']} s, {row['peak_gb']} GB",
                flush=True,
            )
            ordered = [rows[n] for n in names if n in rows]
            pd.DataFrame(ordered).to_csv(arguments.result, index=False)
    frame = pd.DataFrame(list(rows.values()))
    good = frame[frame.error.fillna("") == ""]
    print(
        f"{len(good)} of {len(frame)} without an error; {good.measured.sum():.0f} of "
        f"{good.spatial.sum():.0f} spatial weight layers measured "
        f"({good.measured.sum() / good.spatial.sum():.1%}); lowest share {good.share.min():.1%} "
        f"({good.network[good.share.idxmin()]}); untold {good.untold.sum():.0f}; proved "
        f"{good.proved.sum():.0f}, read otherwise {good['read otherwise'].sum():.0f}, refused "
        f"{good.refused.sum():.0f}, by rule {good['by rule'].sum():.0f}; probe, in passes of one "
        f"image: median {good.passes.median()}, largest {good.passes.max()}"
    )


if __name__ == "__main__":
    main()
