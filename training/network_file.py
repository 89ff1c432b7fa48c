"""One network in one safetensors file: weights, and in the header everything needed to build and run it again."""

from pathlib import Path

from segkc_deploy.errors import RunDirectoryError
from segkc_deploy.training.models.network_card import HEADER_KEY, NetworkCard, read_card, read_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.tensor_file import write_tensors

__all__ = ["NetworkCard", "load_network", "read_card", "save_network"]


def save_network(path: Path, network: Segmenter, card: NetworkCard) -> None:
    """Write the network's weights and its card to `path`, atomically."""
    # The weights are in the file: a later machine needs neither the hub nor the original file.
    card = card.model_copy(update={"network": card.network.model_copy(update={"pretrained": False})})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    write_tensors(path, tensors, {HEADER_KEY: card.model_dump_json()})


def load_network(path: Path) -> tuple[Segmenter, NetworkCard]:
    """Build the network that `path` holds, in evaluation mode on the CPU, and return it with its card.

    Raises:
        RunDirectoryError: there is no such file, it is damaged, or it is not a network of this package.
    """
    card, tensors = read_network(path)
    network = Segmenter(card.network, card.labels.num_classes)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise RunDirectoryError(f"{path}: the weights do not fit {card.network.backbone}: {detail}") from None
    return network.eval(), card
