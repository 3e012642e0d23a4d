"""The page of a run: every metric once, gaps where values are missing, nothing from outside."""

import json
import re

import pytest

from grpo.__main__ import main
from grpo.report import GROUPS, render


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "a <run>"
    folder.mkdir()
    (folder / "config.json").write_text('{"epochs": 4}')
    return folder


def write(run, **columns):
    length = len(next(iter(columns.values())))
    lines = [
        json.dumps({"epoch": i, **{name: values[i] for name, values in columns.items()}})
        for i in range(length)
    ]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_every_metric_has_its_curve_under_its_heading(run):
    write(run, **{"kl": [0.0, 0.5, 1.0], "rewards/turn/judge": [1, 2, 3], "mine": [1, 1, 1]})
    page = render(run)
    assert page.count("<svg") == 3
    order = [page.index(name) for name in ("Rewards", "rewards/turn/judge", "Policy", ">kl<")]
    assert order == sorted(order) and page.index("Others") < page.index("mine")
    assert "a &lt;run&gt;" in page and "&quot;epochs&quot;: 4" in page
    assert not re.search(r"https?://|<script", page)
    assert set(GROUPS) & {"Rewards", "Policy"}


def test_the_curve_goes_through_the_values(run):
    write(run, kl=[0.0, 0.5, 1.0])
    (points,) = re.findall(r'points="([^"]*)"', render(run))
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, p.split(","))) for p in points.split())
    assert x0 < x1 < x2 and x1 - x0 == pytest.approx(x2 - x1, abs=0.2)
    assert y0 > y1 > y2 and y0 - y1 == pytest.approx(y1 - y2, abs=0.2)  # down is up in SVG


def test_missing_values_are_gaps(run):
    write(run, kl=[0.0, 0.5, None, 1.0, 2.0, None, 1.0], never=[None] * 7)
    page = render(run)
    assert page.count("<polyline") == 2 and page.count("<circle") == 1
    assert "never there" in page


def test_the_command_writes_the_page(run, capsys):
    write(run, kl=[0.5])
    assert main(["report", str(run)]) == 0
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    assert "report.html" in capsys.readouterr().out


def test_a_folder_without_a_run_is_refused(run):
    with pytest.raises(FileNotFoundError, match=r"holds no metrics\.jsonl"):
        main(["report", str(run)])
    (run / "metrics.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no epoch yet"):
        render(run)
