"""What `--fail-if` says: `[ROWS:] METRIC OPERATOR VALUE`, true for a row that is to fail the gate.

| value | is |
| --- | --- |
| `1.1x` | 1.1 times the metric of the same row in the baseline |
| `-0.5`, `+3` (or `baseline - 0.5`, `baseline + 3`, `baseline`) | that much below or above the baseline's metric |
| `30` | the number itself, without a baseline |

A metric that is a change itself (`miou_difference`, `sustained.drift`) is compared with a signed number as it is.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from segkc_deploy.benchmarks.regression.row_metrics import RowMetric
from segkc_deploy.benchmarks.schema import Row
from segkc_deploy.errors import ConfigError

Kind = Literal["number", "difference", "factor"]

_OPERATORS: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    "<": (operator.lt, "below"),
    "<=": (operator.le, "at or below"),
    ">": (operator.gt, "above"),
    ">=": (operator.ge, "at or above"),
}
_NUMBER = r"\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+"
#: A class's name may hold a colon or an operator, so that of `iou` reaches as far as it can.
_METRIC = r"(?:boundary_)?iou\..+|[^<>=:]+?"
_CONDITION = re.compile(rf"(?:(?P<rows>.+?):)??\s*(?P<metric>{_METRIC})\s*(?P<operator><=|>=|<|>)\s*(?P<value>[^<>=]+)")
_FACTOR = re.compile(rf"({_NUMBER})\s*[x×]")
_DIFFERENCE = re.compile(rf"(?:baseline\s*)?([+-])\s*({_NUMBER})")

#: How the names of metrics end that are changes: below 0 or above it.
_SIGNED = ("_difference", "_difference_interval.low", "_difference_interval.high", "drift")

_FORMS = "`miou < -0.5` (below the baseline's), `latency.p50 > 1.1x` (times the baseline's) or `miou < 60` (as it is)"


@dataclass(frozen=True)
class Condition:
    """One condition: `rows` is a role or a pattern of row names, None for all rows; `text` is how it was written."""

    text: str
    rows: str | None
    metric: str
    operator: str
    kind: Kind
    value: float

    @property
    def is_relative(self) -> bool:
        """Whether it needs a baseline."""
        return self.kind != "number"

    def is_about(self, name: str, role: str) -> bool:
        """Return whether it judges the row of this name and role."""
        return self.rows in (None, role, name) or fnmatchcase(name, str(self.rows))

    def judge(self, row: Row, baseline: Row | None, metric: RowMetric) -> str | None:
        """Return why `row` fails this condition, or None.

        Args:
            row: what was measured now.
            baseline: the same row in the baseline; needed where the condition is relative.
            metric: the one that the condition names.
        """
        now, before = metric.of(row), None
        if now is None:
            return f"{row.name}: {metric.name} was not measured, so `{self.text}` cannot be judged"
        limit, meaning = self.value, "the limit"
        if self.is_relative:
            assert baseline is not None
            before = metric.of(baseline)
            if before is None:
                return f"{row.name}: {metric.name} was not measured in the baseline, so `{self.text}` cannot be judged"
            limit = before * self.value if self.kind == "factor" else before + self.value
            meaning = f"the limit, with {_written(before, metric)} in the baseline"
        compare, words = _OPERATORS[self.operator]
        if not compare(now, limit):
            return None
        return (
            f"{row.name}: {metric.name} is {_written(now, metric)}, {words} {_written(limit, metric)}, {meaning}"
            f" (`{self.text}`)"
        )


def parse_condition(text: str) -> Condition:
    """Return the condition that `text` says.

    Raises:
        ConfigError: it is none, or means something else than it seems to.
    """
    found = _CONDITION.fullmatch(text.strip())
    if found is None:
        raise ConfigError(f"--fail-if {text!r}: write METRIC < VALUE or METRIC > VALUE, such as {_FORMS}")
    metric = found["metric"].strip()
    kind, value = _value(text, found["value"].strip())
    if kind == "difference" and metric.endswith(_SIGNED) and "baseline" not in found["value"]:
        kind = "number"
    rows = found["rows"].strip() if found["rows"] else None
    return Condition(" ".join(text.split()), rows, metric, found["operator"], kind, value)


def _value(text: str, written: str) -> tuple[Kind, float]:
    if written == "baseline":
        return "factor", 1.0
    if factor := _FACTOR.fullmatch(written):
        return "factor", float(factor[1])
    if difference := _DIFFERENCE.fullmatch(written):
        return "difference", float(difference[1] + difference[2])
    if re.fullmatch(_NUMBER, written):
        return "number", float(written)
    hint = "; for a share of the baseline's write a factor, 1.1x" if written.endswith("%") else ""
    raise ConfigError(f"--fail-if {text!r}: {written!r} is no value{hint or f'; write {_FORMS}'}")


def check_scale(condition: Condition, metric: RowMetric) -> None:
    """Refuse a number that only looks like a limit: percentages are 0 to 100, and a factor of a change means nothing.

    Raises:
        ConfigError: the condition holds for every row or for none.
    """
    if condition.kind == "factor" and condition.value != 1 and metric.name.endswith(_SIGNED):
        raise ConfigError(
            f"--fail-if {condition.text!r}: {metric.name} is a change, of which no share can be a limit; write"
            f" `{metric.name} < baseline - 0.5` or, as it is, `{metric.name} < -0.5`"
        )
    if condition.kind == "number" and metric.is_percentage and not (condition.value == 0 or 1 < condition.value <= 100):
        raise ConfigError(
            f"--fail-if {condition.text!r}: {metric.name} is in percent, 0 to 100; to compare with the baseline write a"
            f" sign, `{metric.name} < -0.5`"
        )


def _written(value: float, metric: RowMetric) -> str:
    return f"{value:.6g}{metric.unit}"
