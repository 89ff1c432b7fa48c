"""The tables of a study of methods: `python -m segkc_deploy.benchmarks.studies.method_tables camvid-methods.json`."""

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.report.seeds import (
    FEWEST_SEEDS_TO_JUDGE,
    SUPERVISED,
    PairedDifference,
    mean_and_spread,
    paired,
)
from segkc_deploy.benchmarks.studies.analysis import OURS, VARIANT, StudyAnalysis, get
from segkc_deploy.benchmarks.studies.headroom import LEAST_HEADROOM, headroom_table
from segkc_deploy.benchmarks.studies.study_rows import StudyRow, read_rows
from segkc_deploy.benchmarks.studies.tables import print_tables
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.machine import cpu_text

_RULE = f"""\
mIoU in percent on all validation images, at the last step (never the best one): mean ± sample standard deviation over
the seeds. Differences are paired by seed: their mean ± sample standard deviation, and whether it is outside the seeds'
spread: so it is called if there are at least {FEWEST_SEEDS_TO_JUDGE} seeds, all differences have the same sign, and
the 95% interval of their mean by Student's t does not hold 0 (with 3 seeds: 4.3 standard errors); with fewer seeds it
is not judged. "Not averaged" is the same network
without its moving average. Minutes are the wall time of a training with its start and validations.
"""

_HEADROOM_RULE = f"""\
The headroom is what {SUPERVISED} gains with all labels instead of few. A row's share is its mean gain over the mean
headroom, both over the seeds that the row, the few labels and all labels have; none is given below {LEAST_HEADROOM:g}
points of headroom.
"""

_PROCESSOR_RULE = """\
In brackets is the processor time of these minutes: what other work on the machine lengthens least.
"""

_MACHINES_RULE = """\
Minutes are those of the trainings on the machine that trained most of them; scores are of all.
"""


def study_text(rows: Sequence[StudyRow]) -> str:
    """Return the tables of one study with their conditions, as Markdown.

    Raises:
        ConfigError: rows differ in what has to be the same in all of them.
    """
    analysis = StudyAnalysis(rows)
    labels = analysis.main_share()
    methods = [name for name in analysis.names(labels) if not name.startswith(VARIANT)]
    variants = [name for name in analysis.names(labels) if name.startswith(VARIANT)]
    parts = [f"## Methods, labels: {labels}\n\n{_rows_table(analysis, labels, methods, (SUPERVISED, OURS))}"]
    if best := analysis.best_single_network(labels):
        difference = paired(analysis.scores(OURS, labels), analysis.scores(best, labels))
        if difference:
            parts.append(f"Best method of one network: {best}. {OURS} − {best}: {difference}.\n")
    if headroom := headroom_table(analysis, labels):
        parts.append(f"## Headroom, labels: {labels}\n\n{_HEADROOM_RULE}\n{headroom}")
    if len(analysis.shares()) > 1:
        parts.append(f"## Other labels\n\n{_shares_table(analysis)}")
    if variants:
        names = [*([OURS] if OURS in methods else []), *variants]
        parts.append(f"## Ablations, labels: {labels}\n\n{_rows_table(analysis, labels, names, (OURS,))}")
    conditions = _conditions(analysis)
    rule = _RULE + (_PROCESSOR_RULE if _has_processor_time(analysis) else "")
    if analysis.trained_on_several_processors():
        rule += _MACHINES_RULE
    return f"# {analysis.study}\n\n{conditions}\n{rule}\n" + "\n".join(parts)


def _rows_table(analysis: StudyAnalysis, labels: str, names: Sequence[str], references: Sequence[str]) -> str:
    header = ["row", "junior mIoU", "each seed", *(f"− {reference}" for reference in references)]
    merged = _merged(analysis)
    header += [
        "not averaged",
        "senior mIoU",
        "junior − senior",
        *(["junior mIoU, merged classes"] if merged else []),
        "minutes (of the processor)" if _has_processor_time(analysis) else "minutes",
    ]
    lines = []
    for name in names:
        junior, senior = analysis.scores(name, labels), analysis.scores(name, labels, "senior")
        seeds = ", ".join(f"{seed}: {value:.2f}" for seed, value in junior.items())
        differences = [
            "–" if name == reference else _text(paired(junior, analysis.scores(reference, labels)))
            for reference in references
        ]
        raw = analysis.scores(name, labels, field="miou_raw")
        line = [name, mean_and_spread(junior.values()), seeds, *differences, mean_and_spread(raw.values())]
        line += [mean_and_spread(senior.values()), _text(paired(junior, senior))]
        if merged:
            line.append(mean_and_spread(analysis.scores(name, labels, field="miou_merged").values()))
        lines.append([*line, _minutes(analysis, name, labels)])
    return markdown(header, lines, right_from=1)


def _minutes(analysis: StudyAnalysis, name: str, labels: str) -> str:
    seconds, processor_seconds = (analysis.times(name, labels, field) for field in ("seconds", "processor_seconds"))
    wall = f"{statistics.fmean(seconds) / 60:.1f}" if seconds else "–"
    return f"{wall} ({statistics.fmean(processor_seconds) / 60:.1f})" if processor_seconds else wall


def _has_processor_time(analysis: StudyAnalysis) -> bool:
    return any(get(row, "processor_seconds") is not None for row in analysis.rows)


def _merged(analysis: StudyAnalysis) -> str:
    """Say which classes count as which in the second mIoU; "" without one."""
    merge: dict[str, list[str]] = next((found for row in analysis.rows if (found := get(row, "merged"))), {})
    return "; ".join(f"{', '.join(parts)} as {whole}" for whole, parts in merge.items())


def _shares_table(analysis: StudyAnalysis) -> str:
    """The junior's mIoU by share of the labels, for the rows that more than one share has."""
    shares = analysis.shares()
    names = [name for name in analysis.names() if sum(bool(analysis.scores(name, share)) for share in shares) > 1]
    lines = []
    for name in names:
        scores = [analysis.scores(name, share) for share in shares]
        lines.append(
            [name, *(f"{mean_and_spread(found.values())} ({len(found)})" if found else "–" for found in scores)]
        )
    if {SUPERVISED, OURS} <= set(names):
        differences = (paired(analysis.scores(OURS, share), analysis.scores(SUPERVISED, share)) for share in shares)
        lines.append([f"{OURS} − {SUPERVISED}", *map(_text, differences)])
    return markdown(["row (number of seeds)", *shares], lines, right_from=1)


def _conditions(analysis: StudyAnalysis) -> str:
    """What all tables were measured under, as a list."""
    junior = next(row for row in analysis.rows if row.role == "junior")
    seniors: dict[str, dict[str, None]] = {}
    for row in analysis.rows:
        if row.role == "senior":
            seniors.setdefault(_network(row), {})[row.row] = None
    images = {row.labels: get(row, "images") for row in analysis.rows}
    counts = [f"{share}: {found['labeled']} labeled, {found['unlabeled']} unlabeled" for share, found in images.items()]
    not_averaged = dict.fromkeys(row.row for row in analysis.rows if get(row, "shipped") == "raw")
    lines = [
        f"{junior.steps} steps; per step {_each(analysis.distinct('images_per_step'), _batch)};"
        f" crops {_size(get(junior, 'crop_size'))}; scored at network input {_each(analysis.distinct('size'), _size)}",
        f"images: {'; '.join(counts)}; {get(junior, 'images')['val']} for validation",
        f"junior of every row: {_network(junior)}",
        *([f"merged classes: {merged}"] if (merged := _merged(analysis)) else []),
        *(f"senior: {network} ({', '.join(names)})" for network, names in seniors.items()),
        "scored is the moving average of the weights"
        + (f", but in {', '.join(not_averaged)} the weights themselves" if not_averaged else ""),
        f"machine: {_each(analysis.distinct('machine'), _machine)}; threads of a training:"
        f" {_each(analysis.distinct('threads'), str)}",
        f"versions: {_each(analysis.distinct('versions'), _versions)}",
        # A training that was interrupted may have several.
        f"code: commit {', '.join(dict.fromkeys(', '.join(analysis.distinct('commit')).split(', ')))}",
        *(f"command: `{command}`" for command in dict.fromkeys(_study_command(row) for row in analysis.rows)),
        "tables: `python -m segkc_deploy.benchmarks.studies.method_tables RESULTS`",
    ]
    return "".join(f"- {line}\n" for line in lines)


def _batch(images: Sequence[int]) -> str:
    return f"{images[0]} labeled images, and {images[1]} unlabeled ones where a method uses them"


def _study_command(row: StudyRow) -> str:
    """The command of the whole study: the row's own without the choice of its trial."""
    return row.command.partition(" --only ")[0]


def _network(row: StudyRow) -> str:
    return f"{get(row, 'network')} ({row.params_m:.2f}M)"


def _machine(machine: str | dict[str, Any]) -> str:
    if isinstance(machine, str):
        return machine
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    cores = f"{machine['cores']} {'core' if machine['cores'] == 1 else 'cores'}"
    return f"{cpu_text(machine)}, {cores}, {machine['ram_gib']} GiB, {gpus}"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _size(size: Any) -> str:
    return f"{size}×{size}" if isinstance(size, int) else f"{size[0]}×{size[1]}"


def _each(values: Iterable[Any], text: Callable[[Any], str]) -> str:
    return " or ".join(map(text, values))


def _text(difference: PairedDifference | None) -> str:
    return str(difference) if difference else "–"


def main(paths: Sequence[str]) -> int:
    """Print the tables of each file and return the exit code."""

    def text_of(path: Path) -> str:
        rows = read_rows(path)
        studies = dict.fromkeys(row.study for row in rows)
        return "\n".join(study_text([row for row in rows if row.study == study]) for study in studies)

    return print_tables(paths, "segkc_deploy.benchmarks.studies.method_tables", text_of)


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main(sys.argv[1:]))
