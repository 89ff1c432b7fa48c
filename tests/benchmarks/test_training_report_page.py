"""The page of trainings in a real browser: what is drawn, and what its switches do."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_page import OpenPage
from made_up_trainings import SUPERVISED, alone, pair, training, validation, write_run, write_study

from segkc_deploy.benchmarks.report.trainings.report import report_trainings

pytestmark = pytest.mark.browser

EVIL = "</script><img src=x onerror=alert(1)> <!-- '\"` ü 🚀"
PHONE = 390


class Shown(OpenPage):
    """A trainings' page that is open, tall enough for all of its charts."""

    def __init__(self, browser: Any, folder: Path, width: int = 1200) -> None:
        super().__init__(browser, folder, width, height=6000)
        self.page.wait_for_function("!document.querySelector('.later')")

    def chart(self, title: str) -> Any:
        found = self.page.locator("figure.plot").filter(has=self.page.get_by_role("heading", name=title, exact=True))
        assert found.count() == 1, title
        return found

    def count(self, title: str, marks: str) -> int:
        """The marks of a chart: `curve`, `recorded` (the faint lines) or `dot`."""
        selector = "[aria-label=dot] circle" if marks == "dot" else f"[aria-description={marks}] path"
        return int(self.chart(title).locator(selector).count())

    def wait_for(self, title: str, marks: str, count: int) -> None:
        """Wait until a chart has so many marks."""
        chart = self.chart(title).get_attribute("id")
        selector = f"#{chart} [aria-description={marks}] path"
        self.page.wait_for_function(f"document.querySelectorAll({selector!r}).length === {count}", timeout=10_000)

    def values(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture(scope="module")
def study(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    folder = tmp_path_factory.mktemp("study")
    report_trainings(write_study(folder / "runs"), folder / "out")
    shown = Shown(browser, folder / "out")
    yield shown
    assert shown.wrong == []
    shown.page.close()


def test_every_value_has_a_chart_with_its_runs(study: Shown) -> None:
    for title, runs in (("total", 7), ("supervised junior", 7), ("cps junior", 3), ("mask ratio senior", 3)):
        assert study.count(title, "curve") == runs
        assert study.count(title, "recorded") == runs
    for title, runs in (("learning rate", 6), ("peak memory (MiB)", 6), ("gate 2", 3)):
        assert study.count(title, "curve") == runs
    assert study.count("learning rate", "recorded") == 0
    # One validation of the run that still trains, two of each other one.
    assert (study.count("junior", "dot"), study.count("senior EMA", "dot")) == (6 * 2 - 3 + 1, 3 * 2)
    assert study.page.locator("figure.plot").count() == study.values("Page.data.charts.length") == 15


def test_a_run_and_a_row_can_be_switched_off(study: Shown) -> None:
    boxes = study.page.locator("ul.runs input[type=checkbox]")
    boxes.nth(1).uncheck()  # the first row's first seed
    study.wait_for("total", "curve", 6)
    assert study.count("cps junior", "curve") == 2
    assert boxes.nth(0).evaluate("box => box.indeterminate")
    boxes.nth(0).uncheck()  # the row
    study.wait_for("total", "curve", 4)
    assert "None of the rows" in study.chart("cps junior").inner_text()
    boxes.nth(0).check()
    study.wait_for("total", "curve", 7)
    study.wait_for("cps junior", "curve", 3)


def test_smoothing(study: Shown) -> None:
    weight, (_, values) = 0.9, study.values("[0, Page.data.runs[0].training.values.loss]")
    average, expected = 0.0, []
    for count, value in enumerate(values, start=1):
        average = weight * average + (1 - weight) * value
        expected.append(average / (1 - weight**count))
    assert study.values(f"smoothed({values}, {weight})") == pytest.approx(expected)
    assert study.values("smoothed([4, null, 1], 0)") == [4, None, 1]

    slider = study.page.locator("#smoothing")
    slider.fill("0")
    study.wait_for("total", "recorded", 0)
    assert study.count("total", "curve") == 7
    slider.fill("0.6")
    study.wait_for("total", "recorded", 7)
    assert study.page.locator("#smoothing-value").inner_text() == "0.60"


def test_a_logarithmic_axis(study: Shown) -> None:
    def places() -> list[float]:
        path = study.chart("supervised junior").locator("[aria-description=recorded] path").first.get_attribute("d")
        return [float(point.split(",")[1]) for point in path.replace("M", "").split("L")]

    values = [1.5, 0.75, 0.5, 0.375]  # of the first run
    for box, scale in ((False, float), (True, math.log)):
        study.page.locator("#log").set_checked(box)
        study.page.wait_for_timeout(300)
        drawn, expected = places(), [scale(value) for value in values]
        for place in (1, 2):
            share = (drawn[place] - drawn[0]) / (drawn[3] - drawn[0])
            assert share == pytest.approx((expected[place] - expected[0]) / (expected[3] - expected[0]), abs=0.02)
    study.page.locator("#log").uncheck()


def test_hovering_tells_the_exact_value(study: Shown) -> None:
    chart = study.chart("junior")
    chart.locator("[aria-label=dot] circle").first.hover()
    tip = chart.locator("[aria-label=tip]")
    assert "step 20: 56.25" in tip.text_content()
    assert "pair-seed0" in tip.text_content()


def test_the_table_sorts(study: Shown) -> None:
    table = study.page.locator("#row-table")
    heading = table.locator("button.sort").get_by_text("junior", exact=True)
    names = "[...document.querySelectorAll('#row-table tbody tr')].map((row) => row.cells[0].dataset.value)"
    heading.click()
    assert study.values(names) == ["lone", "pair"]
    heading.click()
    assert study.values(names) == ["pair", "lone"]


def test_both_themes(study: Shown) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    light = study.values(background)
    study.page.locator("#theme").click()
    assert study.values(background) != light
    study.page.locator("#theme").click()
    assert study.values(background) == light


@pytest.mark.parametrize("width", [PHONE, 1200])
def test_nothing_sticks_out_and_evil_names_stay_text(browser: Any, tmp_path: Path, width: int) -> None:
    folder = tmp_path / EVIL.replace("/", "∕")
    runs = [write_run(folder, 0, pair(0, 60.0, 70.0), name=EVIL)]
    runs += [write_run(tmp_path / ("long_" * 30 + str(lr)), 0, alone(0, 60.0 + lr), optimizer={"lr": lr}, **SUPERVISED)
             for lr in (0.1, 0.2)]  # fmt: skip
    report_trainings(runs, tmp_path / "out")
    shown = Shown(browser, tmp_path / "out", width)
    assert shown.values("document.documentElement.scrollWidth") <= width
    assert shown.page.locator("img").count() == 0
    assert shown.page.locator("#run-table tbody tr").first.locator("td").nth(2).inner_text() == EVIL
    assert shown.count("total", "curve") == 3
    assert shown.wrong == []
    shown.page.close()


def test_a_run_that_has_just_begun(browser: Any, tmp_path: Path) -> None:
    report_trainings([write_run(tmp_path / "run", 0)], tmp_path / "none")
    shown = Shown(browser, tmp_path / "none")
    assert (shown.page.locator("figure.plot").count(), shown.page.locator("#curves").count()) == (0, 0)
    records = [*training(10, loss=2.0, cps_junior=0.0), validation(10, junior=5.0)]
    report_trainings([write_run(tmp_path / "one", 0, records)], tmp_path / "point")
    point = Shown(browser, tmp_path / "point")
    assert point.count("total", "dot") == point.count("cps junior", "dot") == point.count("junior", "dot") == 1
    assert shown.wrong == point.wrong == []
    shown.page.close()
    point.page.close()


def test_all_charts_are_printed(browser: Any, tmp_path: Path) -> None:
    report_trainings([write_run(tmp_path / "run", 0, pair(0, 60.0, 70.0))], tmp_path / "out")
    page = browser.new_page(viewport={"width": 1200, "height": 200})
    page.goto((tmp_path / "out" / "index.html").as_uri())
    page.wait_for_timeout(300)
    assert page.locator(".later").count() > 0  # not seen, so not drawn yet
    page.pdf()
    assert page.locator(".later").count() == 0
    page.close()
