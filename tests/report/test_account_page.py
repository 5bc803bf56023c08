"""The account on the page of its run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from natstats.numbers import change
from natstats.report import AccountReport
from natstats.report.figures.causes import cause_name
from natstats.report.figures.drawing import RUN_FIGURES
from natstats.report.pages.account import (
    difference_rows,
    kernels_sentence,
    total_rows,
)
from natstats.report.pages.run import write_report
from natstats.report.records import ControlReport
from natstats.runs.run import Run
from tests.report.account_reports import EVIL, FIGURES, with_account


@pytest.mark.slow
def test_an_account_without_a_way_from_the_images_is_told_in_words(
    account_run: Run, shown_account: AccountReport, tmp_path: Path
) -> None:
    nothing = replace(
        shown_account,
        frame=shown_account.frame[:0],
        totals=shown_account.totals[:0],
        sentence="No way.",
    )
    report = with_account(account_run, nothing)
    assert all(RUN_FIGURES[name].draw(report) is None for name in FIGURES)
    assert kernels_sentence(nothing.frame) == ""
    assert total_rows(nothing) == []
    text = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "<p>No way.</p>" in text
    assert 'id="account_totals"' not in text


def section(text: str, name: str) -> str:
    start = text.index(f'<section id="{name}">')
    return text[start : text.index("</section>", start)]


@pytest.fixture(scope="module")
def page(
    account_run: Run, whole_account: AccountReport, tmp_path_factory: pytest.TempPathFactory
) -> str:
    path = write_report(tmp_path_factory.mktemp("page"), with_account(account_run, whole_account))
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_tells_the_account(page: str, whole_account: AccountReport) -> None:
    account = section(page, "account")
    assert whole_account.sentence in account
    assert "docs/theory.md" in account
    assert "abstract" in account
    for cause in whole_account.totals.cause:
        assert f"<strong>{cause_name(cause)}</strong>" in account
    for row in total_rows(whole_account):
        assert row[1] in section(page, "account_totals")
    assert whole_account.difference_sentence in section(page, "account_difference")
    assert whole_account.slopes_sentence in section(page, "account_slopes")
    if_so = section(page, "counterfactuals")
    named = "every rectifier had the same share"
    for text in (named, change(0.1, 0.0, 0.2), change(-0.1, -0.2, 0.0)):
        assert text in if_so
    assert kernels_sentence(whole_account.frame) in section(page, "kernels")
    assert section(page, "account_steps").count("<tr>") == 1 + len(whole_account.frame)


@pytest.mark.slow
def test_what_is_shown_is_escaped(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;" in section(page, "account")


@pytest.mark.slow
def test_figures_have_captions_and_descriptions(
    page: str, account_run: Run, whole_account: AccountReport
) -> None:
    report = with_account(account_run, whole_account)
    for name in FIGURES:
        own = section(page, name)
        described = RUN_FIGURES[name].description(report)
        assert described.split(":")[0] in own
        caption = re.search(r"<figcaption>(.+?)<span", own, re.DOTALL)
        assert caption is not None
        assert len(caption[1].split()) > 20


@pytest.mark.slow
def test_parts_that_were_not_found_have_no_section(
    account_run: Run, shown_account: AccountReport, tmp_path: Path
) -> None:
    text = write_report(tmp_path, with_account(account_run, shown_account)).read_text(
        encoding="utf-8"
    )
    for name in ("account_difference", "account_slopes", "counterfactuals"):
        assert f'id="{name}"' not in text
    assert "What to know" not in text
    text = write_report(tmp_path, with_account(account_run, None)).read_text(encoding="utf-8")
    assert 'id="account' not in text


HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe style="width:390px;height:800px;border:0" srcdoc="{page}"></iframe><pre id="result"></pre>
<script>
document.querySelector("iframe").addEventListener("load", function (event) {{
  const page = event.target.contentDocument, seen = {{}};
  const rows = name => Array.from(page.querySelectorAll(name + " tbody tr"))
    .filter(row => !row.hidden).length;
  page.querySelectorAll("details").forEach(one => {{ one.open = true; }});
  seen.scroll = Math.max(page.documentElement.scrollWidth, page.body.scrollWidth);
  const steps = page.getElementById("account_steps");
  const input = steps.querySelector("input");
  input.value = "rectifiers gaussian";
  input.dispatchEvent(new Event("input"));
  seen.steps = rows("#account_steps");
  seen.layers = rows("#layers");
  seen.count = steps.querySelector("output").textContent;
  const head = Array.from(steps.querySelectorAll("thead th")).find(h => h.textContent === "share");
  head.querySelector("button").click();
  seen.first = steps.querySelector("tbody tr th").textContent;
  document.getElementById("result").textContent = JSON.stringify(seen);
}});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium in the path")
def test_the_page_fits_a_phone_and_each_table_has_its_own_filter(
    page: str, account_run: Run, whole_account: AccountReport, tmp_path: Path
) -> None:
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.format(page=html.escape(page)), encoding="utf-8")
    shown = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync",
            "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000", "--dump-dom", harness.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    found = re.search(r'<pre id="result">(.+?)</pre>', shown, re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))
    frame = whole_account.frame
    n = int(((frame.cause == "rectifiers") & (frame.part == "Gaussian")).sum())
    assert seen["scroll"] <= 390
    assert seen["steps"] == n > 0
    assert seen["count"] == f"{n} of {len(frame)} rows"
    assert seen["layers"] == len(account_run.layers)
    assert seen["first"] == frame.step[frame.share.idxmin()]


@pytest.mark.slow
def test_each_slope_has_one_name_and_two_tests_a_reason(
    account_run: Run, whole_account: AccountReport, page: str, tmp_path: Path
) -> None:
    own = section(page, "account_slopes")
    assert "the law</th>" not in own
    assert '<th scope="row">the exponents: all causes</th>' in own
    for part in (own, section(page, "counterfactuals")):
        heads = re.findall(r"<th scope=.col.[^>]*>([^<]*slope[^<]*)</th>", part)
        assert heads[0].startswith("least-squares slope per")
    assert "tested twice" not in page
    names = ["layer", "difference", "low", "high", "p_corrected"]
    control = ControlReport(pd.DataFrame(columns=names), [0, 1], "Training changed nothing.")
    report = replace(with_account(account_run, whole_account), control=control)
    both = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "tested twice" in section(both, "account_difference")


def test_rounding_errors_are_not_shown_as_shares(shown_account: AccountReport) -> None:
    tiny = shown_account.totals.assign(share=3e-7, low=1e-7, high=5e-7)
    trunk = shown_account.frame.assign(share=-2e-7)
    for row in total_rows(replace(shown_account, totals=tiny, frame=trunk))[:-1]:
        assert row[1] == "+0.00"
        assert "0000" not in row[3]
    difference = pd.DataFrame(
        [{"cause": "norms", "trained": -2.24, "random": -2e-7, "difference": -2.24, "low": -2.64,
          "high": -1.85, "p": 0.002}]
    )  # fmt: skip
    assert difference_rows(difference) == [
        ("norms", "−2.24", "+0.00", "−2.24 [−2.64, −1.85]", "0.002")
    ]
