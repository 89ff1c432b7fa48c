"""What a finished training says: which network ships, how it scores, and what comes next."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segkc_deploy.invocation import suggested_command

#: From how many points of mIoU on a difference between the two networks is worth a warning.
_NOTABLE_POINTS = 1.0


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        path: the run directory.
        steps: optimizer steps of the whole run.
        miou: percent at the last step, by network (`junior`, `junior_ema`, …); empty without validation images.
        ship: which of the junior's networks is written to `junior.safetensors`.
        skipped: for each file that could not be read and was replaced, the message that names it.
    """

    path: Path
    steps: int
    miou: dict[str, float]
    ship: Literal["ema", "raw"]
    skipped: tuple[str, ...] = ()


def summary(result: RunResult) -> list[str]:
    """Return the lines that end a training."""
    shipped, other = ("junior_ema", "junior") if result.ship == "ema" else ("junior", "junior_ema")
    export = suggested_command("export", result.path, "--engine", "onnx")
    lines = [f"finished: {result.path} ({result.steps} steps)"]
    lines += [f"  mIoU {name}: {miou:.2f}{' (ships)' * (name == shipped)}" for name, miou in result.miou.items()]
    if result.skipped:
        count = len(result.skipped)
        lines.append(
            f"warning: {count} {'file' if count == 1 else 'files'} could not be read; other images took their place:"
        )
        lines += [f"  {message}" for message in result.skipped]
    if not result.miou:
        lines.append(f"  {_name(shipped)} ships; not scored, since the data spec has no validation images (`val:`)")
        lines.append(f"next: {export} --verify FOLDER, a folder of images on which the artifact is verified")
        return lines
    lag = result.miou[other] - result.miou[shipped]
    if lag >= _NOTABLE_POINTS:
        lines.append(
            f"warning: {_name(shipped)} ships, and {_name(other)} scores {lag:.2f} points more; {_remedy(result.ship)}"
        )
    lines.append(f"next: {export}")
    return lines


def _name(network: str) -> str:
    return "the EMA of the junior (junior_ema)" if network == "junior_ema" else "the online junior (junior)"


def _remedy(ship: str) -> str:
    if ship == "raw":
        return "train with -o ship=ema to ship the other one"
    return "the EMA still holds early weights: train longer, with a lower ema.decay, or with -o ship=raw"
