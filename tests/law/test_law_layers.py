"""Which layers are in the law: words, kinds and patterns, and the reason for all others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from natstats.errors import UsageError
from natstats.fits.flags import FIT_FLAGS, LAYOUT_FLAGS
from natstats.fits.options import FitOptions
from natstats.law.law_layers import asked_for, layers_of_law

ROWS = [  # name, kind, flags
    ("input.grey", "input", ""),
    ("features.0", "conv", "few rings"),
    ("features.1", "act", ""),
    ("features.3", "depthwise", "few images; better with a break"),
    ("features.3:1", "depthwise", ""),
    ("fpn[0]", "pointwise", ""),
    ("fpn[out]", "pointwise", "regions"),
    ("last", "conv", "few rings; own output; layout by rule"),
]
NAMES = [name for name, _, _ in ROWS]


def table(**changes):
    frame = pd.DataFrame(ROWS, columns=["layer", "kind", "flags"])
    n = len(frame)
    frame = frame.assign(depth=np.arange(n), order=np.arange(n, dtype=float), exponent=2.0)
    frame = frame.assign(exponent_low=1.9, exponent_high=2.1, receptive_field=np.arange(n) + 1.0)
    for name, cells in changes.items():
        for row, value in cells.items():
            frame.loc[frame.layer == row, name] = value
    return frame


INNER = NAMES[1:]
HIDDEN = INNER[:-1]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("hidden", HIDDEN),
        ("all", INNER),
        ("output", ["last"]),
        ("all,-output", HIDDEN),
        ("conv", ["features.0", "last"]),
        ("conv,-output", ["features.0"]),
        ("hidden,-conv", HIDDEN[1:]),
        ("-conv", HIDDEN[1:]),
        ("-features.*,-fpn", []),
        ("depthwise , act", ["features.1", "features.3", "features.3:1"]),
        ("features.*", HIDDEN[:4]),
        ("*", INNER),
        ("features.3", ["features.3", "features.3:1"]),
        ("features.3:1", ["features.3:1"]),
        ("fpn", ["fpn[0]", "fpn[out]"]),
        ("fpn[0]", ["fpn[0]"]),
        ("last,features.1", ["features.1", "last"]),
        ("hidden,last", INNER),
        # What is taken out is out, wherever it stands.
        ("-features.0,all", INNER[1:]),
        ("hidden,-features.0*,- act", ["features.3", "features.3:1", "fpn[0]", "fpn[out]"]),
    ],
)
def test_words_kinds_and_patterns(asked, expected):
    mask, reasons = layers_of_law(table(), asked)
    assert [name for name, own in zip(NAMES, mask, strict=True) if own] == expected
    assert [reason == "yes" for reason in reasons] == mask.tolist()
    assert mask.dtype == bool


def test_the_reason_is_the_first_that_holds():
    frame = table(
        flags={"features.1": "few rings; beyond range", "features.0": "constant"},
        exponent={"features.1": np.nan, "features.0": np.nan},
        exponent_low={"features.3": 2.0, "fpn[0]": np.nan},
        exponent_high={"features.3": 2.0, "fpn[0]": np.nan},
        order={"features.3:1": np.nan},
    )
    _, reasons = layers_of_law(frame, "hidden", "order")
    expected = ["input", "no exponent", "beyond range", "no interval", "no depth", "no interval"]
    assert reasons == [*expected, "yes", "own output"]
    # The network's own output that is asked for is judged like any other.
    assert layers_of_law(table(exponent={"last": np.nan}), "all")[1][-1] == "no exponent"
    assert layers_of_law(table(), "act")[1] == ["input", *["not asked for"] * 1, "yes",
        *["not asked for"] * 4, "own output"]  # fmt: skip


def test_a_flag_that_only_begins_alike_is_none_of_these():
    frame = table(flags={"features.1": "not own output", "features.3": "own outputs"})
    assert layers_of_law(frame)[1][2:4] == ["yes", "yes"]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("feature.0", r"nothing matched 'feature\.0' \(did you mean features\.0"),
        ("hidden,-convv", r"nothing matched '-convv' \(did you mean conv"),
        ("hiden", r"did you mean hidden"),
        ("conv,layer9.*", r"nothing matched 'layer9\.\*'"),
        ("zzz", r"layers are named like features\.0"),
        ("input.grey", "nothing matched 'input.grey'"),
        ("CONV", "nothing matched 'CONV'"),
    ],
)
def test_what_matches_nothing_is_an_error_that_names_what_is_near(asked, words):
    expected = "^law_layers: expected hidden, all, output, a kind of layer .*conv, act, depthwise"
    with pytest.raises(UsageError, match=f"{expected}.*{words}"):
        layers_of_law(table(), asked)


def test_images_alone_have_no_layers_to_match():
    frame = table().iloc[:1]
    assert layers_of_law(frame, "conv")[1] == ["input"]
    assert layers_of_law(frame.iloc[:0])[1] == []


def test_a_network_without_an_output_among_its_layers_has_none_to_leave_out():
    assert asked_for("hidden,-output", ["a"], ["conv"], [False]) == [True]
    assert asked_for("output", ["a"], ["conv"], [False]) == [False]


def test_options_have_one_spelling_and_refuse_what_is_no_selection():
    assert FitOptions().law_layers == "hidden"
    assert FitOptions(law_layers=" conv , -a* ").law_layers == "conv,-a*"
    assert FitOptions.from_dict(FitOptions(law_layers="all").to_dict()).law_layers == "all"
    assert FitOptions.from_dict({}).law_layers == "hidden"
    for bad in ("", " ", "a,,b", ",", "-", "conv,-", None, 3, ["conv"]):
        with pytest.raises(UsageError, match="^law_layers: expected hidden, all, or kinds of "):
            FitOptions(law_layers=bad)


def test_the_flag_is_explained():
    assert "not an activation" in LAYOUT_FLAGS["own output"]
    assert "own output" not in FIT_FLAGS
