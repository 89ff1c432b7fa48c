"""What a model card says of a run."""

from pathlib import Path

from segkc_deploy.manifest import sha256_of
from segkc_deploy.sharing.card_facts import NetworkFacts
from segkc_deploy.training.files.network_file import load_network
from segkc_deploy.training.files.run_directory import RunDirectory, read_config


def run_facts(run: Path) -> tuple[NetworkFacts, Path | None]:
    """Return the facts of a run's junior, and where its data spec was; None where it was imported without one.

    Raises:
        RunDirectoryError: this is no run, or it has no junior yet.
    """
    directory = RunDirectory(run)
    _, data = read_config(directory)
    weights = directory.network("junior")
    network, metadata = load_network(weights)
    facts = NetworkFacts(
        kind="run",
        file=run.resolve().name,
        labels=metadata.labels,
        backbone=metadata.network.backbone,
        decoder=type(network.decoder).__name__.removesuffix("Decoder").lower(),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        input_size=metadata.input_size,
        method=metadata.method,
        recipe=metadata.recipe,
        step=metadata.step,
        form="PyTorch weights",
        weights_sha256=sha256_of(weights),
        has_senior=directory.network("senior").is_file(),
    )
    return facts, data
