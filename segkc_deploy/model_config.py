"""What a server tells its clients about a model: the parameters in Triton's model configuration."""

import json
from typing import Any

from pydantic import ValidationError

from segkc_deploy.errors import ArtifactError
from segkc_deploy.labels import Labels
from segkc_deploy.manifest import Contract, Manifest


def client_parameters(manifest: Manifest) -> dict[str, str]:
    """Return by name what clients need to know besides the shapes of tensors: texts, some of them JSON."""
    labels = manifest.labels
    return {
        "class_names": json.dumps(labels.names, ensure_ascii=False),
        "palette": json.dumps(labels.palette),
        "ignore_index": str(labels.ignore_index),
        "contract": manifest.contract.model_dump_json(),
        "precision": manifest.precision,
        "sha256": manifest.sha256,
    }


def read_sha256(config: dict[str, Any]) -> str | None:
    """Return the sha256 of the artifact that a server runs, from a configuration that `read_config` has read."""
    value = config["parameters"].get("sha256", {}).get("string_value")
    return value if isinstance(value, str) and value else None


def read_config(config: dict[str, Any], source: str) -> tuple[Labels, Contract]:
    """Return the classes of a model and what it takes and gives, from its configuration as a server tells it.

    Args:
        config: the JSON of `/v2/models/<name>/config`.
        source: the name of the model for messages.

    Raises:
        ArtifactError: the configuration lacks the parameters that `segkc-deploy` writes.
    """
    try:
        texts = {name: value["string_value"] for name, value in config["parameters"].items()}
        labels = Labels(
            names=json.loads(texts["class_names"]),
            palette=json.loads(texts["palette"]),
            ignore_index=int(texts["ignore_index"]),
        )
        contract = Contract.model_validate_json(texts["contract"])
        largest = int(config.get("max_batch_size", 0))
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError):
        raise ArtifactError(
            f"{source}: its configuration lacks what segkc-deploy writes into it (class_names, palette, ignore_index,"
            " contract); export the model again with --triton"
        ) from None
    if largest and contract.batch < 0:
        contract = contract.model_copy(update={"max_batch": min(largest, contract.max_batch or largest)})
    return labels, contract
