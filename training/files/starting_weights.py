"""Build networks with the weights that `pretrained` names: a backbone's file, or a network of this package."""

from pathlib import Path

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.files.foreign_weights import read_weights
from segkc_deploy.training.files.network_metadata import NetworkMetadata, has_metadata, read_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec


def build_network(spec: NetworkSpec, num_classes: int) -> Segmenter:
    """Build the network of `spec` with the weights that `spec.pretrained` names.

    Raises:
        RunDirectoryError: the network file to start from is missing, damaged, or not of this package.
        UserError: backbone and decoder do not fit each other, or the weights are not available or do not fit.
    """
    start = _starting_network(spec)
    if start is not None:
        network = Segmenter(spec.model_copy(update={"pretrained": False}), num_classes)
        network.spec = spec
        network.started_from = _start_from(network, start)
        return network
    if not isinstance(spec.pretrained, Path):
        return Segmenter(spec, num_classes)
    if not spec.pretrained.is_file():
        raise ConfigError(f"{spec.pretrained}: no such weights file (pretrained of {spec.backbone})")
    if spec.pretrained.suffix == ".npz":  # timm reads Google's checkpoints itself
        return Segmenter(spec, num_classes)
    # timm takes no safetensors file for a network whose own weights are an .npz file, and its errors name no file.
    return Segmenter(spec, num_classes, backbone_weights=read_weights(spec.pretrained).tensors)


def _starting_network(spec: NetworkSpec) -> Path | None:
    """Return the network file that `spec.pretrained` names, if it names one: a run directory stands for its junior."""
    if not isinstance(spec.pretrained, Path):
        return None
    if spec.pretrained.is_dir():
        return spec.pretrained / "junior.safetensors"
    return spec.pretrained if has_metadata(spec.pretrained) else None


def _start_from(network: Segmenter, path: Path) -> str:
    """Load the weights of the network file `path` into `network` and describe what was loaded.

    Where the file's network has another number of classes, the last layer keeps its fresh weights.

    Raises:
        RunDirectoryError: the file is missing, damaged or no network.
        ConfigError: it holds a network of another architecture.
    """
    metadata, weights = read_network(path)
    _check_same_positions(network.spec, metadata, path)
    own = network.state_dict()
    classifier = {id(parameter) for parameter in network.decoder.classifier.parameters()}
    last = [name for name, parameter in network.named_parameters() if id(parameter) in classifier]
    is_fresh = metadata.labels.num_classes != network.num_classes
    wanted = {name: tensor.shape for name, tensor in own.items() if not (is_fresh and name in last)}
    given = {name: tensor.shape for name, tensor in weights.items() if not (is_fresh and name in last)}
    misfits = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    theirs, ours = _architecture(metadata.network), _architecture(network.spec)
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
    classes = f"{metadata.labels.num_classes} classes there, {network.num_classes} here"
    return f"backbone and decoder of {path}; the classifier is fresh ({classes})"


def _check_same_positions(spec: NetworkSpec, metadata: NetworkMetadata, path: Path) -> None:
    if spec.positions != metadata.network.positions:
        raise ConfigError(
            f"{path}: its network resamples positions the way of {metadata.network.positions}, but this recipe asks for"
            f" {spec.positions}; add `positions: {metadata.network.positions}` beside `pretrained`"
        )


def _architecture(spec: NetworkSpec) -> str:
    """The backbone without the tag of its weights, which are replaced."""
    return spec.backbone.partition(".")[0]
