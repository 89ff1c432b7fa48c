"""Build networks with the weights that `pretrained` names: a backbone's file, or a network of this package."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from segkc_deploy.errors import ConfigError
from segkc_deploy.training.files.foreign_weights import read_weights
from segkc_deploy.training.files.network_metadata import NetworkMetadata, has_metadata, read_metadata, read_network
from segkc_deploy.training.models.segmenter import Segmenter
from segkc_deploy.training.models.spec import NetworkSpec


def build_network(spec: NetworkSpec, num_classes: int) -> Segmenter:
    """Build the network of `spec` with the weights that `spec.pretrained` names.

    A network of this package that has as many classes gives its classifier too; `match_classes` tells whether they are
    the same ones.

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


def match_classes(networks: Mapping[str, Segmenter], names: Sequence[str]) -> None:
    """Let the classifiers of networks that start from a run know `names`, and update `started_from`.

    A class that the run's network had too keeps its row of the last layer, at the place that it has now; a new one
    starts from random weights. Networks that start otherwise, or from one of the same classes, stay as they are.

    Args:
        networks: what `build_network` made, by role; the copy `<role>_ema` of an online network stays its copy.
        names: the classes of the data spec, in the order of their ids.

    Raises:
        RunDirectoryError: the network file to start from is missing or damaged.
    """
    for role, network in networks.items():
        path = _starting_network(network.spec)
        if path is None or role.endswith("_ema"):
            continue
        theirs = read_metadata(path).labels.names
        if theirs == tuple(names):
            continue
        network.started_from = f"backbone and decoder of {path}; {_match_classifier(network, path, theirs, names)}"
        copy = networks.get(f"{role}_ema")
        if copy is not None:
            copy.decoder.classifier.load_state_dict(network.decoder.classifier.state_dict())
            copy.started_from = network.started_from


@torch.no_grad()
def _match_classifier(network: Segmenter, path: Path, theirs: Sequence[str], names: Sequence[str]) -> str:
    """Give a network the rows of the classes that the network file `path` has too; describe the classifier."""
    classifier = network.decoder.classifier
    common = [name for name in names if name in theirs]
    if len(theirs) == len(names):
        classifier.reset_parameters()  # it holds the rows of the file by their numbers
    if not common:
        count = f"{len(theirs)} classes there, {len(names)} here"
        return f"the classifier is fresh ({count if len(theirs) != len(names) else 'other classes there'})"
    prefix = next(name for name, module in network.named_modules() if module is classifier)
    weights = read_network(path)[1]
    own, other = ([of.index(name) for name in common] for of in (list(names), list(theirs)))
    for key, parameter in classifier.named_parameters():
        parameter[own] = weights[f"{prefix}.{key}"][other].to(parameter)
    fresh = [name for name in names if name not in theirs]
    if not fresh:
        return "the classifier's classes are matched by name"
    return f"the classifier's classes are matched by name; fresh ones: {', '.join(fresh)}"


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
