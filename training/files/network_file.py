"""One network in one safetensors file: weights, and in the header everything needed to build and run it again."""

from pathlib import Path

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.training.files.network_metadata import HEADER_KEY, NetworkMetadata, read_metadata, read_network
from segkc_deploy.training.files.tensor_file import write_tensors
from segkc_deploy.training.models.segmenter import Segmenter

__all__ = ["NetworkMetadata", "load_network", "read_metadata", "save_network"]


def save_network(path: Path, network: Segmenter, metadata: NetworkMetadata) -> None:
    """Write the network's weights and its metadata to `path`, atomically."""
    # The weights are in the file: a later machine needs neither the hub nor the original file.
    metadata = metadata.model_copy(update={"network": metadata.network.model_copy(update={"pretrained": False})})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(path, tensors, {HEADER_KEY: metadata.model_dump_json()})


def load_network(path: Path) -> tuple[Segmenter, NetworkMetadata]:
    """Build the network that `path` holds, in evaluation mode on the CPU, and return it with its metadata.

    Raises:
        RunDirectoryError: there is no such file, it is damaged, or it is not a network of this package.
    """
    metadata, tensors = read_network(path)
    network = Segmenter(metadata.network, metadata.labels.num_classes)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise RunDirectoryError(f"{path}: the weights do not fit {metadata.network.backbone}: {detail}") from None
    return network.eval(), metadata
