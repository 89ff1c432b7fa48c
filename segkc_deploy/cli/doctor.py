"""`segkc-deploy doctor`: what this machine has, and what each engine, job and optional extra still needs."""

from typing import TYPE_CHECKING, Annotated

import typer

from segkc_deploy.cli.app import app

if TYPE_CHECKING:
    from segkc_deploy.doctor import Ability, Diagnosis
    from segkc_deploy.engine_choice import EngineChoice

_TITLES = {"engine": "engines: what can run here", "job": "jobs", "extra": "optional extras"}


@app.command("doctor")
def doctor_command(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Run one inference with each engine, or look at packages alone.")
    ] = True,
) -> None:
    """Say what this machine has, and what each engine, job and optional extra still needs.

    Each engine that is installed runs one inference, and the packages of each job and extra are imported, so "works"
    means that it did. Changes nothing. Exits with 0 whatever is missing.

    Example: `segkc-deploy doctor`
    """
    from segkc_deploy.doctor import diagnose
    from segkc_deploy.progress import console

    with console.status("running one inference with each engine" if run else "looking"):
        diagnosis = diagnose(run)
    typer.echo(_as_json(diagnosis) if json else "\n".join(_as_text(diagnosis)))


def _as_json(diagnosis: "Diagnosis") -> str:
    import dataclasses
    import json

    abilities = [{"works": ability.works, **dataclasses.asdict(ability)} for ability in diagnosis.abilities]
    choices = [{"current": choice.current, **choice.model_dump(mode="json")} for choice in diagnosis.choices]
    return json.dumps({**dataclasses.asdict(diagnosis), "abilities": abilities, "choices": choices}, indent=2)


def _as_text(diagnosis: "Diagnosis") -> list[str]:
    from segkc_deploy.machine import cpu_text

    machine = diagnosis.machine
    lines = [
        "machine",
        f"  {cpu_text(machine)}, {machine['cores']} cores, {machine['ram_gib']} GiB of memory",
        f"  {machine['os']}, Python {machine['python']}",
        *(f"  GPU: {_gpu_text(gpu)}" for gpu in machine["gpus"]),
    ]
    if diagnosis.gpu_obstacle:
        lines.append(f"  no GPU to use: {diagnosis.gpu_obstacle}")
    for kind, title in _TITLES.items():
        lines += ["", title]
        for ability in diagnosis.abilities:
            if ability.kind == kind:
                lines += _ability_text(ability, diagnosis.gpu_obstacle)
    if diagnosis.choices:
        lines += ["", "fastest engines, by `export --engine auto`", *map(_choice_text, diagnosis.choices)]
    return lines


def _choice_text(choice: "EngineChoice") -> str:
    best = choice.chosen
    threads = "" if best.threads is None else f", threads {best.threads}"
    stale = "" if choice.current else "  (other versions now: the next export measures again)"
    return f"  {choice.run}: {best.engine} {best.precision}, {best.latency_ms or 0:.1f} ms{threads}{stale}"


def _gpu_text(gpu: dict[str, object]) -> str:
    capability, memory = gpu.get("compute_capability"), gpu.get("memory_mib")
    parts = [
        gpu["name"],
        f"compute capability {capability}" if capability else "",
        f"{memory} MiB" if memory else "",
        f"driver {gpu['driver']}",
    ]
    return ", ".join(str(part) for part in parts if part)


def _ability_text(ability: "Ability", told: str) -> list[str]:
    """Return one line of an ability, and one more for each thing that it lacks; what was `told` is not told again."""
    state = "works" if ability.works else "lacks"
    lines = [f"  {state}  {ability.name:<17} {', '.join(ability.found)}".rstrip()]
    fixes = {missing.what: "see above" if missing.fix == told else missing.fix for missing in ability.missing}
    return lines + [f"         - {what}: {fix}" for what, fix in fixes.items()]
