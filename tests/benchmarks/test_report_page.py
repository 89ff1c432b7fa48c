"""The report's page in a real browser: what is drawn, and what its controls do."""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser_page import OpenPage
from made_up_results import full_row, result, rich_result

from segkc_deploy.benchmarks.report.report_files import write_report
from segkc_deploy.benchmarks.schema import Accuracy, BatchPoint, BenchmarkResult, Comparison, Picture, Row
from segkc_deploy.data.layouts import LAYOUTS

pytestmark = pytest.mark.browser

EVIL = "</script><b>ü</b><!-- \"'` 🚀"
PHONE = 390


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a made-up result that has everything, with pictures."""
    folder = tmp_path_factory.mktemp("rich")
    (folder / "pictures").mkdir()
    made = rich_result(seconds=12)
    cells = []
    for place, title in enumerate(("input", "truth", "segkc senior", "segkc junior", "junior-int8.onnx")):
        picture = np.full((30, 40, 3), 40 * place, np.uint8)
        cv2.imwrite(str(folder / f"pictures/{place}.png"), picture)
        cells.append(Picture(title=title, file=f"pictures/{place}.png"))
    made.chosen_by = "segkc junior"
    made.comparisons = [Comparison(id="one/image", reason="worst", miou=35.2, pictures=cells)]
    write_report(made, folder)
    return folder


class Shown(OpenPage):
    """A benchmark's page that is open; leaving it fails on what went wrong."""

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *_: object) -> None:
        self.page.close()
        assert self.wrong == []

    def marks(self, plot: str, of: str) -> int:
        """How many marks of a kind a plot has."""
        return int(self.page.locator(f"#plot-{plot} svg g.{of} > *").count())

    def plots(self) -> set[str]:
        return set(self.page.eval_on_selector_all("figure.plot", "all => all.map(one => one.id.slice(5))"))

    def names(self) -> list[str]:
        return list(self.page.locator("#rows tbody .name").all_text_contents())

    def overflows(self) -> bool:
        return bool(self.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def test_every_plot_has_a_mark_for_each_figure(browser: Any, rich: Path) -> None:
    made = rich_result(seconds=12)
    rows, classes = len(made.rows), len(made.labels.names)
    with Shown(browser, rich) as shown:
        for plot, of, count in (
            ("parameters", "rows", rows),
            ("parameters", "intervals", rows),
            ("latency", "rows", rows),
            ("latency", "tails", rows),
            ("latency", "intervals", rows),
            ("batch-latency", "points", 4 * rows),
            ("batch-latency", "lines", rows),
            ("batch-rate", "points", 4 * rows),
            ("batch-rate", "lines", rows),
            ("stages", "bars", 3 * rows),
            ("stages", "ticks", 3 * rows),
            ("interleaved", "contenders", rows),
            ("interleaved", "speed_interval", rows),
            ("sustained", "lines", rows),
            ("classes", "bars", classes * rows),
            ("confusion", "cells", sum(count > 0 for line in made.rows[1].accuracy.confusion for count in line)),
            ("roofline", "bars", rows),
            ("state", "readings", 4 * rows),
            ("state", "lines", rows),
        ):
            marks = shown.page.locator(f"#plot-{plot} svg g.{of}").count() and shown.marks(plot, of)
            if plot == "classes":  # a group for each class
                marks = shown.page.locator(f"#plot-{plot} svg g.{of} rect").count()
            assert marks == count, (plot, of)
        assert shown.page.locator("#plot-over-time svg g.lines path").count() == rows


def test_the_frontier_joins_the_rows_that_none_beats_in_both(browser: Any, tmp_path: Path) -> None:
    kept = (("a", 40.0, 10.0), ("c", 50.0, 20.0), ("e", 60.0, 40.0))
    beaten = (("b", 39.0, 15.0), ("d", 49.0, 30.0))
    write_report(result([full_row(name, "artifact", miou, base) for name, miou, base in (*kept, *beaten)]), tmp_path)
    with Shown(browser, tmp_path) as shown:
        (path,) = shown.page.eval_on_selector_all(
            "#plot-latency svg g.frontier path", "all => all.map(one => one.getAttribute('d'))"
        )
        dots = shown.page.eval_on_selector_all(
            "#plot-latency svg g.rows > *", "all => all.map(one => [one.getCTM().e, one.getCTM().f])"
        )
        (offset,) = shown.page.eval_on_selector_all(
            "#plot-latency svg g.frontier path", "all => all.map(one => [one.getCTM().e, one.getCTM().f])"
        )
        # In steps: to the right as far as the next row, then up to it. A step is written M, H and V.
        (ax, ay), (cx, cy), (ex, ey) = ([x - offset[0], y - offset[1]] for x, y in dots[:3])
        numbers = [float(number) for number in re.findall(r"[-+]?\d+\.?\d*", path)]
        assert numbers == pytest.approx([ax, ay, cx, ay, cx, cy, ex, cy, ex, ey], abs=0.02)


def test_bins_hold_all_samples_that_are_not_beyond(browser: Any, rich: Path) -> None:
    with Shown(browser, rich) as shown:
        counted = shown.page.evaluate(
            """() => { const { series, domain } = relativeTimes();
            return series.map(({ times, median }) => times.filter((time) => time / median > domain[1]).length); }"""
        )
        told = shown.page.locator("#plot-distribution g.beyond text").all_text_contents()
        assert [text.partition(",")[0] for text in told] == [f"+{count}" for count in counted if count]
        heights = shown.page.evaluate(
            "[...document.querySelectorAll('#plot-distribution g.bins rect')].map((bin) => bin.height.baseVal.value)"
        )
        assert min(heights) > 0


def test_intervals_are_drawn_to_scale(browser: Any, tmp_path: Path) -> None:
    def scored(interval: tuple[float, float]) -> Accuracy:
        return Accuracy(images=3, miou=50.0, pixel_accuracy=90.0, iou=[50.0, 50.0], miou_interval=interval)

    wide = full_row("a", "junior", 50.0, 20.0, accuracy=scored((44.0, 56.0)))
    narrow = full_row("b", "junior", 50.0, 30.0, accuracy=scored((47.0, 53.0)))
    write_report(result([wide, narrow]), tmp_path)
    with Shown(browser, tmp_path) as shown:
        for plot in ("parameters", "latency"):
            heights = shown.page.evaluate(
                f"""[...document.querySelectorAll('#plot-{plot} g.intervals line')]
                .map((line) => Math.abs(line.y1.baseVal.value - line.y2.baseVal.value))"""
            )
            assert heights[0] == pytest.approx(2 * heights[1], rel=1e-6)
            assert heights[0] > 20


def test_a_row_that_is_switched_off_leaves_every_plot(browser: Any, rich: Path) -> None:
    with Shown(browser, rich, height=3000) as shown:
        before = shown.marks("latency", "rows")
        shown.page.locator("#rows tbody tr").nth(2).locator("input").uncheck()
        assert shown.marks("latency", "rows") == before - 1
        assert shown.marks("stages", "bars") == 3 * (before - 1)
        assert shown.marks("state", "lines") == before  # too far below to be seen
        shown.page.locator("#plot-state").scroll_into_view_if_needed()
        shown.page.wait_for_function("document.querySelectorAll('#plot-state svg g.lines > *').length < 7")
        assert shown.marks("state", "lines") == before - 1
        assert "junior-fp32.onnx" not in shown.page.locator("#plot-latency svg").text_content()
        switches = shown.page.locator("section.of-plots input[data-row='2']")
        assert [switch.is_checked() for switch in switches.all()] == [False] * switches.count()
        switches.first.check()
        assert shown.marks("latency", "rows") == before
        shown.page.evaluate("document.querySelectorAll('#rows tbody input').forEach((box) => box.click())")
        assert "None of the rows" in shown.page.locator("#plot-latency .canvas").text_content()


def test_a_heading_sorts_and_the_missing_come_last(browser: Any, rich: Path) -> None:
    made = rich_result()
    by_size = [row.name for row in sorted(made.rows, key=lambda row: row.file_bytes)]
    with Shown(browser, rich) as shown:
        assert shown.names() == [row.name for row in made.rows]
        heading = shown.page.locator("#rows th", has=shown.page.get_by_role("button", name="file", exact=True))
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        assert shown.names() == by_size
        energy = shown.page.locator("#rows th", has=shown.page.get_by_role("button", name="energy", exact=True))
        for direction in ("ascending", "descending"):
            energy.get_by_role("button").focus()
            shown.page.keyboard.press("Enter")
            assert energy.get_attribute("aria-sort") == direction
            assert shown.names()[-1] == "junior-fp16.onnx"  # has none
        assert shown.names()[0] == "segkc senior"
        assert heading.get_attribute("aria-sort") is None
        shown.page.get_by_role("button", name="row", exact=True).click()
        assert shown.names() == sorted(shown.names())


def test_the_slider_moves_the_line_between_two_layers(browser: Any, rich: Path) -> None:
    with Shown(browser, rich) as shown:
        left, right = shown.page.locator(".slider img.left"), shown.page.locator(".slider img.right")
        visible = "getComputedStyle(document.querySelector('.slider img.left')).clipPath"
        half = shown.page.evaluate(visible)
        slider = shown.page.locator(".slider input")
        slider.fill("20")
        assert shown.page.evaluate(visible) != half
        assert "80%" in shown.page.evaluate(visible)
        slider.focus()
        shown.page.keyboard.press("ArrowRight")
        assert "79.5%" in shown.page.evaluate(visible)
        box = slider.bounding_box()
        slider.click(position={"x": 0.75 * box["width"], "y": 0.5 * box["height"]})
        assert float(slider.input_value()) == pytest.approx(75, abs=3)
        assert shown.page.locator(".right-title").text_content() == "segkc junior · 35.2%"
        shown.page.locator("select.left-layer").select_option("junior-int8.onnx")
        assert left.get_attribute("alt") == "junior-int8.onnx, one/image"
        assert left.get_attribute("src") != right.get_attribute("src")


def test_the_theme_follows_the_system_until_it_is_switched(browser: Any, rich: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    with Shown(browser, rich, scheme="light") as light, Shown(browser, rich, scheme="dark") as dark:
        colors = light.page.evaluate(background), dark.page.evaluate(background)
        assert colors[0] != colors[1]
        for shown, other in ((light, colors[1]), (dark, colors[0])):
            fill = "getComputedStyle(document.querySelector('#plot-latency g.rows path')).fill"
            before = shown.page.evaluate(fill)
            shown.page.get_by_role("button", name="Switch between light and dark").click()
            assert shown.page.evaluate(background) == other
            assert shown.page.evaluate(fill) != before


def test_a_plot_follows_its_own_controls(browser: Any, rich: Path) -> None:
    with Shown(browser, rich) as shown:
        first = shown.page.locator("#plot-classes svg g[aria-label^='fy-axis'] text").first
        names = [first.text_content()]
        shown.page.locator("#plot-classes select.order").select_option("worst")
        names.append(first.text_content())
        made = rich_result()
        means = np.mean([row.accuracy.iou for row in made.rows if row.accuracy], axis=0)
        assert names == ["class 0", f"class {means.argmin()}"]
        shown.page.locator("#plot-confusion select.row").select_option(label="junior-int8.onnx")
        assert "junior-int8.onnx" in shown.page.locator("#plot-confusion svg").get_attribute("aria-label")
        shown.page.locator("#published").select_option(label="Pascal VOC 2012: 366 labeled")
        assert shown.marks("parameters", "published") == 3
        assert "not comparable" in shown.page.locator("#published-remark").text_content()


def test_published_points_of_the_same_classes_are_there_from_the_start(browser: Any, tmp_path: Path) -> None:
    names = tuple(LAYOUTS["cityscapes"].classes or ())
    write_report(result([full_row("j", "junior", 80.0, 20.0, len(names))], names), tmp_path)
    with Shown(browser, tmp_path) as shown:
        assert shown.marks("parameters", "published") == 3
        assert "not comparable" not in shown.page.locator("#published-remark").text_content()


def test_pointing_at_a_mark_tells_its_figures(browser: Any, rich: Path) -> None:
    with Shown(browser, rich) as shown:
        mark = shown.page.locator("#plot-parameters g.rows path").first
        mark.scroll_into_view_if_needed()
        box = mark.bounding_box()
        shown.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tip = shown.page.locator("#plot-parameters g[aria-label=tip]").text_content()
        assert "segkc senior" in tip
        assert "mIoU 61.00% (58.90 to 62.80)" in tip
        assert "17,000,000 parameters" in tip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_no_page_sideways(browser: Any, rich: Path, scheme: str) -> None:
    with Shown(browser, rich, width=PHONE, scheme=scheme) as shown:
        assert not shown.overflows()
        shown.page.evaluate("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        assert not shown.overflows()


def test_what_is_printed_is_whole(browser: Any, rich: Path) -> None:
    with Shown(browser, rich) as shown:
        shown.page.emulate_media(media="print")
        shown.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert shown.page.locator("details:not([open])").count() == 0
        for control in ("#theme", ".controls select", "input"):
            assert not any(found.is_visible() for found in shown.page.locator(control).all()), control
        assert shown.page.locator(".pictures img").first.is_visible()


FAILED = BatchPoint(batch=8, error="too large")
EVIL_ROWS = [full_row(EVIL, "junior", 50.0, 20.0), full_row(f"{EVIL} 2", "artifact", 49.0, 9.0)]
NOTHING = Row(name="n", role="junior", target="a", engine="b", precision="fp32", size=(8, 8))
BARE: dict[str, BenchmarkResult] = {
    "no rows": result([]),
    "nothing measured": result([NOTHING]),
    "accuracy alone": result([full_row("j", "junior", 50.0, 20.0, latency=None, throughput=[])]),
    "one failed batch": result([full_row("j", "junior", 0, 9.0, accuracy=None, throughput=[FAILED])]),
    "evil names": result(EVIL_ROWS, (EVIL, "b")),
    "many rows": result([full_row(f"row {index}", "artifact", 50.0, 20.0 + index) for index in range(14)]),
}  # fmt: skip
PLOTS = {
    "no rows": set(),
    "nothing measured": set(),
    "accuracy alone": {"parameters", "classes"},
    "one failed batch": {"stages", "distribution", "over-time"},
}


@pytest.mark.parametrize("case", BARE)
def test_any_result_is_shown_without_plots_that_would_be_empty(browser: Any, tmp_path: Path, case: str) -> None:
    write_report(BARE[case], tmp_path)
    with Shown(browser, tmp_path, width=PHONE) as shown:
        assert shown.names() == [row.name for row in BARE[case].rows]
        if case in PLOTS:
            assert shown.plots() == PLOTS[case]
            assert (shown.page.locator("section.of-plots").count() == 0) == (not PLOTS[case])
        assert not shown.overflows()
        assert shown.page.locator("b >> text=ü").count() == 0


def test_a_hundred_and_fifty_classes_are_shown(browser: Any, tmp_path: Path) -> None:
    write_report(rich_result(150, seconds=2), tmp_path)
    with Shown(browser, tmp_path) as shown:
        rows = len(rich_result(2, 2).rows)
        assert shown.page.locator("#plot-classes svg g.bars rect").count() == 20 * rows
        shown.page.locator("#plot-classes select.count").select_option("all")
        assert shown.page.locator("#plot-classes svg g.bars rect").count() == 150 * rows
