"""Runs of versions with fewer arguments go on, and stand in one row with newer ones."""

from __future__ import annotations

import pytest

from natstats.distill.methods import METHODS
from natstats.distill.older_arguments import completed
from natstats.distill.training.state import refuse_other_settings
from natstats.errors import UsageError

NEW = {
    "kd": ("standardise",),
    "at": ("paper_scale",),
    "spectral": ("weighting", "layers", "skip_last", "relative", "likeness"),
}


def older(method, **changed):
    kept = {**METHODS[method].defaults, **changed}
    return {method: {name: value for name, value in kept.items() if name not in NEW[method]}}


@pytest.mark.parametrize("method", list(NEW))
def test_what_an_older_version_did_not_say_is_what_it_did(method):
    now = {"arguments": {method: dict(METHODS[method].defaults)}, "seed": 0}
    refuse_other_settings({"arguments": older(method), "seed": 0}, now, "is in runs/a")
    assert completed(now["arguments"]) == now["arguments"]
    name = NEW[method][0]
    for other in ({name: "no"}, {"weight": 9.0}):
        changed = {**now, "arguments": {method: {**now["arguments"][method], **other}}}
        with pytest.raises(UsageError, match=rf"arguments\.{method}\.{next(iter(other))} was"):
            refuse_other_settings({"arguments": older(method), "seed": 0}, changed, "is in runs/a")


def test_power_spectra_alone_stay_alone_though_coherence_is_a_default_now():
    before = {name: v for name, v in METHODS["spectral"].defaults.items() if name != "coherence"}
    assert completed({"spectral": before})["spectral"]["coherence"] == 0.0


def test_the_papers_attention_with_one_weight_for_all_maps_is_another_training():
    now = {"arguments": {"at": METHODS["at"].arguments({"form": "paper"})}}
    kept = {"arguments": older("at", form="paper")}
    with pytest.raises(UsageError, match=r"arguments\.at\.paper_scale was fixed, is map"):
        refuse_other_settings(kept, now, "is in runs/a")
    now["arguments"]["at"]["paper_scale"] = "fixed"
    refuse_other_settings(kept, now, "is in runs/a")


@pytest.mark.parametrize("kept", [{}, {"arguments": None}, {"arguments": {"kd": 3}}, None])
def test_an_identity_that_is_none_is_refused(kept):
    with pytest.raises(UsageError, match="which had other settings"):
        refuse_other_settings(kept, {"arguments": {"kd": {"weight": 0.9}}}, "is in runs/a")
