"""Headroom: which share of the points that all labels would gain a row gains with few."""

import statistics

from segkc_deploy.benchmarks.report.markdown_table import markdown
from segkc_deploy.benchmarks.report.seeds import SUPERVISED, mean_and_spread, paired
from segkc_deploy.benchmarks.studies.analysis import StudyAnalysis
from segkc_deploy.benchmarks.studies.study import FULL

#: Points of mIoU below which the seeds differ about as much as the labels, so that a share of them says nothing.
LEAST_HEADROOM = 5.0


def headroom_table(analysis: StudyAnalysis, labels: str) -> str | None:
    """Return the rows' gains over `supervised` with the same `labels`, and their shares of the headroom.

    The headroom is what `supervised` gains with all labels instead of few. Every row is compared over the seeds that
    it, the few labels and all labels have; a share is the mean gain over the mean headroom of these seeds. Rows
    of `supervised` with other shares of the labels show what more labels would gain.

    Returns None where the study has no `supervised` with all labels.
    """
    few, full = analysis.scores(SUPERVISED, labels), analysis.scores(SUPERVISED, FULL)
    if labels == FULL or not paired(full, few):
        return None
    contenders = [(SUPERVISED, labels)]
    contenders += [(SUPERVISED, share) for share in analysis.shares() if share != labels]
    contenders += [(name, labels) for name in analysis.names(labels) if name != SUPERVISED]
    lines = []
    for name, share in contenders:
        scores = analysis.scores(name, share)
        seeds = sorted(scores.keys() & few.keys() & full.keys())
        gain = paired({seed: scores[seed] for seed in seeds}, few)
        if not gain:
            continue
        headroom = statistics.fmean(full[seed] - few[seed] for seed in seeds)
        closed = f"{100 * gain.mean / headroom:.0f}%" if headroom >= LEAST_HEADROOM else "–"
        interval = f"{gain.interval[0]:+.1f} to {gain.interval[1]:+.1f}" if gain.interval else "–"
        mean = mean_and_spread([scores[seed] for seed in seeds])
        differences = ["–"] * 3 if (name, share) == (SUPERVISED, labels) else [str(gain), interval, closed]
        lines.append([f"{name}, {share}", str(len(seeds)), mean, *differences])
    header = [
        "row, labels",
        "seeds",
        "junior mIoU",
        f"− {SUPERVISED}, {labels}",
        "95% interval",
        "share of the headroom",
    ]
    return markdown(header, lines, right_from=1)
