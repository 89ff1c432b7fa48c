"""What the study of training speed writes."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class SpeedRow(BaseModel):
    """One contender: processor time in milliseconds of a `unit`, and times faster than the first contender of `what`.

    `speed` is the median ratio over rounds and `interval` its 95% bootstrap interval, None for a single round.
    """

    model_config = ConfigDict(extra="forbid")

    what: str
    name: str
    unit: str
    p50_ms: float
    speed: float
    interval: tuple[float, float] | None


class SpeedResult(BaseModel):
    """All rows of one invocation, and the machine that they were measured on."""

    model_config = ConfigDict(extra="forbid")

    study: str = "training-speed"
    machine: dict[str, Any]
    remark: str
    command: str
    commit: str
    rounds: int
    rows: list[SpeedRow]
