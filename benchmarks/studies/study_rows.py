"""The rows that the project claims: `benchmarks/results/<study>.json`, validated and written whole."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from segkc_deploy import atomic
from segkc_deploy.benchmarks.schema import BenchmarkResult, Role
from segkc_deploy.errors import ConfigError

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_LATENCY_FIELDS = ("batch", "engine", "precision", "p50_ms", "p90_ms", "p99_ms", "images_per_s")


class StudyRow(BaseModel):
    """One result of a study. `miou` is in percent at the last step; latency rows have all of the latency fields.

    `settings` are those that the study's trainings share (`shared_settings`).
    Further fields are kept as they are, so that a study can record what only it varies.
    """

    model_config = ConfigDict(extra="allow")

    study: str = Field(min_length=1)
    row: str = Field(min_length=1)
    role: Role
    labels: str = Field(min_length=1)
    seed: int
    steps: int = Field(ge=0)
    size: int | tuple[int, int]
    params_m: _Positive
    miou: _Percent
    machine: str | dict[str, object]
    versions: dict[str, str]
    command: str = Field(min_length=1)
    commit: str = Field(min_length=1)
    batch: int | None = Field(default=None, ge=1)
    engine: str | None = None
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8", "int8-fp16", "int8-bf16", "fp8-fp16"] | None = None
    p50_ms: _Positive | None = None
    p90_ms: _Positive | None = None
    p99_ms: _Positive | None = None
    images_per_s: _Positive | None = None
    agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    settings: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _latency_whole(self) -> Self:
        missing = [name for name in _LATENCY_FIELDS if getattr(self, name) is None]
        if self.p50_ms is not None and missing:
            raise ValueError(f"a latency row also needs {', '.join(missing)}")
        return self


_ROWS = TypeAdapter(list[StudyRow])


def read_rows(path: str | Path) -> list[StudyRow]:
    """Read the rows of a study.

    Raises:
        ConfigError: the file is missing or a row is not valid; the message names the row and the field.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file of results")
    try:
        return _ROWS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_fault(error)}") from None


def append_rows(path: str | Path, rows: list[StudyRow] | list[dict[str, object]]) -> list[StudyRow]:
    """Validate `rows`, add them to the study at `path` (made when missing) atomically, and return all of its rows.

    Raises:
        ConfigError: a row, or one already in the file, is not valid; the file is left as it was.
    """
    path = Path(path)
    try:
        new = [row if isinstance(row, StudyRow) else StudyRow.model_validate(row) for row in rows]
    except ValidationError as error:
        raise ConfigError(f"{path}: a new row: {_first_fault(error)}") from None
    merged = [*(read_rows(path) if path.exists() else []), *new]
    _write(path, merged)
    return merged


def replace_rows(path: str | Path, rows: list[StudyRow], order: Callable[[StudyRow], Any]) -> list[StudyRow]:
    """Put `rows` into the study at `path` replacing those of the same study, row, role, labels and seed.

    Args:
        path: the study's file, made when missing; it is left alone when nothing changes.
        rows: the new ones.
        order: what all rows are sorted by.

    Raises:
        ConfigError: a row already in the file is not valid; the file is left as it was.
    """
    path = Path(path)
    old = read_rows(path) if path.exists() else []
    merged = sorted(({_key(row): row for row in [*old, *rows]}).values(), key=order)
    if merged != old:
        _write(path, merged)
    return merged


def _key(row: StudyRow) -> tuple[object, ...]:
    return (row.study, row.row, row.role, row.labels, row.seed)


def _write(path: Path, rows: list[StudyRow]) -> None:
    # A line per row, so that a new training is a new line in version control.
    lines = ",\n".join(row.model_dump_json(exclude_none=True) for row in rows)
    atomic.write_text(path, f"[\n{lines}\n]\n")


def study_rows(result: BenchmarkResult, *, study: str, labels: str, seed: int, commit: str) -> list[StudyRow]:
    """Return one study row per network and batch size of a benchmark.

    A network's row is called after the method of its run, an artifact's after its file. Rows without mIoU, a
    parameter count or latency have nothing to claim and are left out.
    """
    rows = []
    for measured in result.rows:
        if measured.accuracy is None or measured.accuracy.miou is None or not measured.parameters:
            continue
        for point in measured.throughput:
            if point.total is None:
                continue
            values = {
                "study": study,
                "row": Path(measured.target).stem if measured.role == "artifact" else measured.about["method"],
                "role": measured.role,
                "labels": labels,
                "seed": seed,
                "steps": measured.about["step"],
                "size": measured.size,
                "params_m": measured.parameters / 1e6,
                "miou": measured.accuracy.miou,
                "machine": result.machine,
                "versions": result.versions,
                "command": result.command,
                "commit": commit,
                "batch": point.batch,
                "engine": measured.engine,
                "precision": measured.precision,
                "p50_ms": point.total.p50,
                "p90_ms": point.total.p90,
                "p99_ms": point.total.p99,
                "images_per_s": point.images_per_s,
            }
            # Of artifacts: the share of pixels on which the export's verification found the PyTorch junior's class.
            proven = {name: measured.about[name] for name in ("agreement", "verified") if name in measured.about}
            rows.append(StudyRow.model_validate(values | proven))
    return rows


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
