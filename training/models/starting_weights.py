"""A network that starts where another one of ours ended: backbone and decoder from its file."""

from pathlib import Path
from typing import TYPE_CHECKING

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.models.network_card import NetworkCard, has_card, read_network
from segkc_deploy.training.models.spec import NetworkSpec

if TYPE_CHECKING:
    from segkc_deploy.training.models.segmenter import Segmenter


def starting_network(spec: NetworkSpec) -> Path | None:
    """Return the network file that `spec.pretrained` names, if it names one: a run directory stands for its junior."""
    if not isinstance(spec.pretrained, Path):
        return None
    if spec.pretrained.is_dir():
        return spec.pretrained / "junior.safetensors"
    return spec.pretrained if has_card(spec.pretrained) else None


def start_from(network: "Segmenter", path: Path) -> str:
    """Give `network` the weights in the network file `path`, and return in words what it has got.

    Where the file's network has another number of classes, the last layer stays as it is.

    Raises:
        RunDirectoryError: the file is missing, damaged or no network.
        ConfigError: it holds another network than the one that is to start from it.
    """
    card, weights = read_network(path)
    _check_same_positions(network.spec, card, path)
    own = network.state_dict()
    classifier = {id(parameter) for parameter in network.decoder.classifier.parameters()}
    last = [name for name, parameter in network.named_parameters() if id(parameter) in classifier]
    is_fresh = card.labels.num_classes != network.num_classes
    wanted = {name: tensor.shape for name, tensor in own.items() if not (is_fresh and name in last)}
    given = {name: tensor.shape for name, tensor in weights.items() if not (is_fresh and name in last)}
    misfits = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    theirs, ours = _architecture(card.network), _architecture(network.spec)
    if theirs != ours:
        raise ConfigError(f"{path}: holds a {theirs} network, not the {ours} that is to start from it")
    if misfits:
        raise ConfigError(
            f"{path}: {len(misfits)} of its weights do not fit, such as {misfits[0]}; give the same decoder and"
            " decoder_channels"
        )
    network.load_state_dict(own | {name: weights[name] for name in given})
    if not is_fresh:
        return f"backbone and decoder of {path}"
    classes = f"{card.labels.num_classes} classes there, {network.num_classes} here"
    return f"backbone and decoder of {path}; the classifier is fresh ({classes})"


def _check_same_positions(spec: NetworkSpec, card: NetworkCard, path: Path) -> None:
    if spec.positions != card.network.positions:
        raise ConfigError(
            f"{path}: its network resamples positions as {card.network.positions} does, and the one that is to start"
            f" from it as {spec.positions} does; add `positions: {card.network.positions}` beside `pretrained`"
        )


def _architecture(spec: NetworkSpec) -> str:
    """The backbone without the tag of its weights, which are replaced."""
    return spec.backbone.partition(".")[0]
