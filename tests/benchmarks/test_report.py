"""The report of made-up results with awkward values."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_up_results import full_row, latency, result, rich_result

from segkc_deploy.benchmarks.measure.latency import summarize
from segkc_deploy.benchmarks.report import formatting, page_file
from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.report.pictures import chooser
from segkc_deploy.benchmarks.report.report_files import render_stored, write_report
from segkc_deploy.benchmarks.report.summary import summary
from segkc_deploy.benchmarks.schema import (
    Accuracy,
    BatchPoint,
    BenchmarkResult,
    Comparison,
    Failure,
    Picture,
    Row,
)
from segkc_deploy.benchmarks.store.result_file import read_result
from segkc_deploy.errors import ConfigError

EVIL = '<script>alert(1)</script> & $x_1$ | "quoted"'


class Page(HTMLParser):
    """Collects tags, ids and everything that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._in_script = tag == "script"
        for key, value in attributes:
            if key == "id":
                self.ids.append(value or "")
            if key in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.fetched.append(value or "")


def read_page(out: Path) -> tuple[str, Page]:
    """Return the page without its styles and scripts, and its parts."""
    text = (out / "index.html").read_text()
    return re.sub(r"<(style|script)\b.*?</\1>", "", text, flags=re.S), Page(text)


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


AWKWARD = {
    "nothing": [],
    "one row": [full_row("junior", "junior", 50.0, 20.0)],
    "nothing measured": [Row(name="j", role="junior", target="a", engine="b", precision="fp32", size=(8, 8))],
    "nan": [
        full_row(
            "j", "junior", 50.0, 20.0,
            accuracy=Accuracy(images=1, miou=float("nan"), pixel_accuracy=float("nan"), iou=[float("nan"), 20.0]),
            cold_start_s=float("inf"),
        )
    ],
    "one sample, equal times": [full_row("j", "junior", 0.0, 20.0, latency=latency(20.0, 1))],
    "one batch": [full_row("j", "junior", 99.9, 20.0, throughput=[BatchPoint(batch=8, images_per_s=9.0)])],
    "failed batch": [full_row("j", "junior", 50.0, 20.0, throughput=[BatchPoint(batch=8, error="too large")])],
    "long names": [full_row("n" * 150 + f"{i}", "artifact", 50.0 + i, 20.0 + i) for i in range(3)],
    "twelve equal points": [full_row(f"row {i}", "artifact", 50.0, 20.0) for i in range(12)],
    "markup": [full_row(EVIL, "junior", 50.0, 20.0)],
}  # fmt: skip


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_results(case: str, tmp_path: Path) -> None:
    made = result(AWKWARD[case], (EVIL, "sky"), failures=[Failure(name="x", role="senior", target="y", error=EVIL)])
    write_report(made, tmp_path)
    text, page = read_page(tmp_path)
    assert page.tags.count("script") == 3
    assert "<script>alert" not in "".join(page.scripts)
    assert json.loads(page.scripts[0])["classes"] == [EVIL, "sky"]
    assert "&lt;script&gt;" in text
    assert {address.partition(",")[0] for address in page.fetched} == {"data:"}
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert not re.search(r"\b(nan|NaN|inf|None)\b", text)
    stored = json.loads((tmp_path / "benchmark.json").read_text(), parse_constant=no_constant)
    assert len(stored["rows"]) == len(AWKWARD[case])
    assert BenchmarkResult.model_validate(stored) == made
    assert not re.search(r"\b(nan|None)\b", (tmp_path / "benchmark.md").read_text())


@pytest.mark.parametrize("classes", [2, 11, 21, 150])
def test_any_number_of_classes(classes: int, tmp_path: Path) -> None:
    names = tuple(f"class-{index}" for index in range(classes))
    write_report(result([full_row("j", "junior", 50.0, 20.0, classes)], names), tmp_path)
    text, _ = read_page(tmp_path)
    assert all(f"</span>{name}</td>" in text for name in names)


def with_pictures(folder: Path, side: int, count: int) -> BenchmarkResult:
    (folder / "pictures").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "pictures/a.png"), noise)
    cells = [Picture(title="input", file="pictures/a.png"), Picture(title="truth", file="pictures/gone.png")]
    comparison = Comparison(id="one/image", reason="worst", miou=12.3, pictures=cells)
    return result([full_row("j", "junior", 50, 20)], comparisons=[comparison] * count, chosen_by="j")


def layers(page: Page) -> list[str]:
    return [address for address in page.fetched if address.startswith("data:image/png;base64,")]


def test_pictures_are_embedded_and_missing_ones_left_out(tmp_path: Path) -> None:
    write_report(with_pictures(tmp_path, 4, 1), tmp_path)
    _, page = read_page(tmp_path)
    assert len(layers(page)) == 1


def test_a_stored_result_is_shown_with_its_own_pictures_or_none(tmp_path: Path) -> None:
    cells = [Picture(title="input", file="pictures/01-00.png")]
    files = []
    for name in ("a", "b"):
        comparisons = [Comparison(id=name, reason="worst", miou=12.3, pictures=cells)]
        made = result([full_row(name, "junior", 50, 20)], comparisons=comparisons, chosen_by=name)
        (tmp_path / name / "pictures").mkdir(parents=True)
        (tmp_path / name / cells[0].file).write_bytes(name.encode())
        made.write(tmp_path / name / "benchmark.json")
        files.append(tmp_path / name / "benchmark.json")
    render_stored(files[0], tmp_path / "page")
    render_stored(files[0], tmp_path / "page")  # the same one again
    with pytest.raises(ConfigError, match="holds another benchmark, which would be lost"):
        render_stored(files[1], tmp_path / "page")
    (tmp_path / "page" / "benchmark.json").unlink()
    (tmp_path / "b" / cells[0].file).unlink()
    render_stored(files[1], tmp_path / "page")
    assert layers(read_page(tmp_path / "page")[1]) == []


def test_another_benchmark_in_the_same_folder_is_not_replaced(tmp_path: Path) -> None:
    result([full_row("old", "junior", 50, 20)]).write(tmp_path / "main.json")
    result([full_row("new", "junior", 60, 20)]).write(tmp_path / "benchmark.json")
    with pytest.raises(ConfigError, match="holds another benchmark, which would be lost"):
        render_stored(tmp_path / "main.json", tmp_path)
    assert read_result(tmp_path / "benchmark.json").rows[0].name == "new"


def test_the_page_of_trainings_is_not_replaced(tmp_path: Path) -> None:
    result([full_row("a", "junior", 50, 20)]).write(tmp_path / "a.json")
    (tmp_path / "trainings.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a report of trainings, whose page would be lost"):
        render_stored(tmp_path / "a.json", tmp_path)


@pytest.mark.parametrize("file", ["../a.png", "/etc/a.png", "pictures/../../a.png", "pictures/a.txt", "a.png"])
def test_pictures_of_a_result_lie_in_its_folder(tmp_path: Path, file: str) -> None:
    made = result([full_row("j", "junior", 50, 20)]).model_dump(mode="json")
    made["comparisons"] = [{"id": "a", "reason": "worst", "miou": 1.0, "pictures": [{"title": "input", "file": file}]}]
    (tmp_path / "benchmark.json").write_text(json.dumps(made))
    with pytest.raises(
        ConfigError, match=r"benchmark\.json: not a valid benchmark\.json: comparisons\.0\.pictures\.0\.file"
    ):
        read_result(tmp_path / "benchmark.json")


@pytest.mark.parametrize(
    "text", ['{"format": NaN}', '{"format": "segkc-deploy-benchmark/1", "rows": [1]}', "[" * 100_000]
)
def test_what_is_no_result_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "benchmark.json").write_text(text)
    with pytest.raises(ConfigError, match=r"benchmark\.json: not a "):
        read_result(tmp_path / "benchmark.json")


def test_every_p99_of_few_samples_is_named(tmp_path: Path) -> None:
    made = result([full_row("j", "junior", 50, 20)])
    for point in made.rows[0].throughput:
        point.total = summarize(np.arange(1.0, 101))
    write_report(made, tmp_path)
    assert "so p99 lies between the largest ones" not in read_page(tmp_path)[0]
    made.rows[0].throughput[1].total = summarize(np.arange(1.0, 100))
    write_report(made, tmp_path)
    assert "so p99 lies between the largest ones: j (batch 4)." in read_page(tmp_path)[0]
    assert made.rows[0].latency is not None
    made.rows[0].latency.total = summarize(np.arange(1.0, 100))
    write_report(made, tmp_path)
    assert "so p99 lies between the largest ones: j (latency, batch 4)." in read_page(tmp_path)[0]


def test_a_report_without_pictures_says_so(tmp_path: Path) -> None:
    made = with_pictures(tmp_path, 4, 1)
    write_report(made, tmp_path, with_pictures=False)
    text, page = read_page(tmp_path)
    assert layers(page) == []
    assert "The pictures were left out: the report was asked for without pictures." in text
    (tmp_path / "pictures/a.png").unlink()
    write_report(made, tmp_path)
    assert "The pictures were left out: their files are not beside the result." in read_page(tmp_path)[0]


def test_page_stays_below_five_megabytes(tmp_path: Path) -> None:
    write_report(with_pictures(tmp_path, 500, 12), tmp_path)
    text, page = read_page(tmp_path)
    assert 1 <= len(layers(page)) < 12
    assert "The others are left out" in text
    assert 1e6 < (tmp_path / "index.html").stat().st_size < 5e6


def test_page_without_pictures_stays_below_one_megabyte(tmp_path: Path) -> None:
    write_report(rich_result(), tmp_path)
    assert (tmp_path / "index.html").stat().st_size < 1e6
    assert "· made up (AVX2, VNNI)" in read_page(tmp_path)[0]


def test_the_inlined_libraries_are_those_of_the_list() -> None:
    folder = Path(page_file.__file__).parent / "page" / "vendor"
    listed = dict(
        re.findall(r"^\| `([\w.]+)` .*`([0-9a-f]{64})` \|$", (folder / "README.md").read_text(), re.MULTILINE)
    )
    assert listed == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.js")}
    assert len(listed) == 2


def test_data_cannot_end_their_script() -> None:
    data = {"</script><!--": ["&amp; \u2028 ü 🚀", 1.5, None]}
    text = page_file.embedded_json(data)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == data
    with pytest.raises(ValueError, match="JSON"):
        page_file.embedded_json([float("nan")])


def test_what_was_found_is_in_the_markdown_as_well(tmp_path: Path) -> None:
    write_report(rich_result(), tmp_path)
    text = (tmp_path / "benchmark.md").read_text()
    for line in (
        "> **Unreliable timings** of junior-fp16.onnx: The processor's clock fell from 3200 to 2100 MHz.",
        "| torch.compile | baseline | torch | no compiler was found | – | – | – | – | – |",
        "| junior-int8.xml | row | openvino | 5.12 | 5.00 to 5.25 | 4.75 to 5.50 |",
        "| cpu | fp32 | made up | 1 | 90.0 | 11.0 |",
        "| segkc junior | fp32 | compute | 12.3 | 1.64 | 33.0 |",
        "- energy: no power meter can be read (junior-fp16.onnx)",
        "- junior-bf16.engine: no GPU",
    ):
        assert line in text
    assert re.search(
        r"^\| segkc senior \| RAPL package-0 \| 1 \| 60.0 \| \d+ \| 10\.\d \| −9.6 \| 1.93 \|", text, re.MULTILINE
    )


def test_verdict_compares_what_belongs_together() -> None:
    senior = full_row("a senior", "senior", 60.0, 100.0, parameters=17_000_000)
    junior = full_row("a junior", "junior", 55.0, 40.0)
    accuracy = Accuracy(
        images=3, miou=55.0, pixel_accuracy=90, iou=[55, 55], agreement=99.9999, agreement_with="a junior"
    )
    artifact = full_row("junior.onnx", "artifact", 55.0, 20.0, accuracy=accuracy)
    first, second = summary(result([senior, junior, artifact]))
    assert first == "a junior reaches 55.0% mIoU with 3.40M parameters, 5.00× fewer than a senior (60.0% mIoU, 17.0M)."
    assert "the class of a junior on 99.999% of the pixels" in second
    assert "2.00× as fast as a junior" in second


def test_verdict_starts_with_the_gain_over_the_other_juniors() -> None:
    rows = [full_row("supervised junior", "junior", 50.0, 20.0), full_row("segkc junior", "junior", 53.25, 20.0)]
    rows.append(full_row("large junior", "junior", 40.0, 20.0, parameters=9_000_000))
    first, second, *_ = summary(result(rows))
    assert first == "segkc junior is 3.25 points of mIoU above supervised junior, with the same number of parameters."
    assert second.startswith("supervised junior: 50.0% mIoU")


def test_numbers() -> None:
    assert [formatting.significant(x) for x in (0.1234, 1.234, 12.34, 123.4, None)] == [
        "0.123",
        "1.23",
        "12.3",
        "123",
        "–",
    ]
    assert [formatting.significant(x) for x in (0, 0.000375, 9.996, 99.96, 0.09996, 1.23e-7, -0.0123)] == [
        "0.000",
        "0.000375",
        "10.0",
        "100",
        "0.100",
        "1.23e-07",
        "-0.0123",
    ]
    assert formatting.agreement(99.99999) == "99.999"
    assert formatting.agreement(100.0) == "100"
    assert formatting.quantity(24_800_000) == "24.8M"
    assert formatting.quantity(1_200_000_000) == "1.20G"
    assert formatting.shortened("abcdefghij", 5) == "abc…ij" or len(formatting.shortened("abcdefghij", 5)) == 5


def test_a_bar_in_a_header_is_escaped() -> None:
    assert markdown(["a|b", "c"], [["d", "e|f"]], right_from=1) == "| a\\|b | c |\n| :-- | --: |\n| d | e\\|f |\n"


def test_the_committed_page_is_small_and_has_no_photograph() -> None:
    page = Path(__file__).parents[2] / "benchmarks/results/camvid-report/index.html"
    assert page.stat().st_size < 5_000_000
    assert "data:image" not in page.read_text()


def test_the_juniors_mistakes_choose_the_pictures() -> None:
    scores = Accuracy(images=1, miou=50.0, pixel_accuracy=90.0, iou=[50.0], image_miou={"a": 50.0})
    roles = {"s": "senior", "a": "artifact", "unscored": "junior", "j": "junior", "second": "junior"}
    rows = [full_row(name, role, 50.0, 20.0) for name, role in roles.items()]
    for row in rows:
        row.accuracy = None if row.name == "unscored" else scores
    found = [chooser(rows), chooser(rows[:3]), chooser(rows[:1]), chooser(rows[2:3])]
    assert [row and row.name for row in found] == ["j", "a", "s", None]
