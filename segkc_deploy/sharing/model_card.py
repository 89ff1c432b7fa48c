"""A model card: Markdown for people, and YAML in front of it that hubs read.

The front matter follows https://huggingface.co/docs/hub/model-cards and, for the scores, the model index that
`huggingface_hub.EvalResult` describes. What is not known is left out or said to be unknown, never guessed.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segkc_deploy.invocation import suggested_command
from segkc_deploy.sharing.card_facts import DataFacts, LatencyFacts, NetworkFacts, Scores

_LIBRARY = "segkc-deploy"
_FRONT_MATTER = re.compile(r"---\n(.*?)\n---\n", re.DOTALL)

#: Classes below this IoU, in percent, are named among the limits.
_WEAK_IOU = 50.0


@dataclass(frozen=True)
class Card:
    """What a card is made from.

    Attributes:
        network: what it is about.
        name: its title.
        license: an identifier such as `apache-2.0`.
        dataset: what the data is called.
        data: how many images there are, where known.
        scores: where measured.
        latency: where measured, one for each machine.
        limits: what the user says of intended use and limits, Markdown.
        repo: the hub's repository, where known.
    """

    network: NetworkFacts
    name: str
    license: str
    dataset: str
    data: DataFacts | None = None
    scores: Scores | None = None
    latency: Sequence[LatencyFacts] = ()
    limits: str = ""
    repo: str | None = None


def card_text(card: Card) -> str:
    """Return the card, Markdown with YAML front matter."""
    front = yaml.safe_dump(front_matter(card), sort_keys=False, allow_unicode=True)
    sections = [
        ("", _introduction(card)),
        ("Classes and scores", _scores(card)),
        ("Latency", _latency(card)),
        ("Data", _data(card)),
        ("How to use", _usage(card)),
        ("Limits", _limits(card)),
    ]
    body = [f"## {title}\n\n{text}" if title else text for title, text in sections]
    return f"---\n{front}---\n\n# {card.name}\n\n" + "\n\n".join(body) + "\n"


def front_matter(card: Card) -> dict[str, Any]:
    """Return the metadata that hubs read."""
    tags = ["semantic-segmentation", "semi-supervised", card.network.method]
    tags += ["onnx"] if card.network.file.endswith(".onnx") else []
    front: dict[str, Any] = {
        "license": card.license,
        "library_name": _LIBRARY,
        "pipeline_tag": "image-segmentation",
        "tags": tags,
    }
    if card.scores is not None:
        metric = {"type": "mean_iou", "name": "mIoU", "value": round(card.scores.miou / 100, 4)}
        result = {
            "task": {"type": "image-segmentation", "name": "Semantic segmentation"},
            "dataset": {"type": card.dataset.lower().replace(" ", "-"), "name": card.dataset},
            "metrics": [metric],
        }
        front |= {"metrics": ["mean_iou"], "model-index": [{"name": card.name, "results": [result]}]}
    return front


def is_card_of(path: Path, artifact: str) -> bool:
    """Whether a file is a card that `card_text` made of an artifact, by its name; of any run for an empty name."""
    try:
        text = path.read_text(encoding="utf-8")
        found = _FRONT_MATTER.match(text)
        front = yaml.safe_load(found[1]) if found else None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError):
        return False
    return isinstance(front, dict) and front.get("library_name") == _LIBRARY and artifact in text


def _cell(text: str) -> str:
    """Return a text as one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def _introduction(card: Card) -> str:
    network = card.network
    height, width = network.input_size
    also = " The senior that it was trained with is here too." if network.has_senior else ""
    return (
        f"A semantic segmentation network for {len(network.labels.names)} classes: `{network.backbone}` with a"
        f" {network.decoder} decoder, {network.parameters / 1e6:.1f}M parameters, input {width}×{height} (width ×"
        f" height), {network.form}. Trained by the method `{network.method}` (recipe"
        f" `{network.recipe}`, {network.step} steps) with segkc-deploy.{also}"
    )


def _scores(card: Card) -> str:
    names, scores = card.network.labels.names, card.scores
    if scores is None:
        return f"Not measured. Classes, in the order of their ids: {', '.join(f'`{name}`' for name in names)}."
    lines = ["| id | class | IoU % |", "| --: | :-- | --: |"]
    for index, name in enumerate(names):
        value = scores.iou[name]
        lines.append(f"| {index} | {_cell(name)} | {'absent' if value is None else f'{value:.1f}'} |")
    interval = ""
    if scores.miou_interval is not None:
        low, high = scores.miou_interval
        interval = f" (95% interval over images: {low:.1f} to {high:.1f})"
    accuracy = f" Pixel accuracy {scores.pixel_accuracy:.1f}%." if scores.pixel_accuracy is not None else ""
    return (
        f"mIoU {scores.miou:.1f}%{interval} on {scores.images} validation images.{accuracy} Measured of"
        f" `{Path(scores.target).name}` ({scores.role}).\n\n"
        + "\n".join(lines)
        + f"\n\nProtocol: {scores.protocol}. Ran on {scores.ran_on}."
        + (f" Rule: {scores.rule}." if scores.rule else "")
    )


def _latency(card: Card) -> str:
    if not card.latency:
        return "Not measured."
    lines = ["| machine | input | p50 ms | p90 ms | p99 ms |", "| :-- | :-- | --: | --: | --: |"]
    for one in card.latency:
        height, width = one.size
        lines.append(f"| {_cell(one.machine)} | {width}×{height} | {one.p50:.1f} | {one.p90:.1f} | {one.p99:.1f} |")
    return "One image at a time, from the decoded image to its mask.\n\n" + "\n".join(lines)


def _data(card: Card) -> str:
    if card.data is None:
        return f"{card.dataset}. How many images it has is not stated."
    return (
        f"{card.dataset}: {card.data.labeled} labeled and {card.data.unlabeled} unlabeled images for training,"
        f" {card.data.val} for validation. No image is part of this repository."
    )


def _usage(card: Card) -> str:
    network = card.network
    folder = card.repo.rpartition("/")[2] if card.repo else "model"
    extras = [*(["export"] if network.kind == "run" else []), *(["hub"] if card.repo else [])]
    install = f'pip install ".[{",".join(extras)}]"' if extras else "pip install ."
    lines = [f"{install}  # in a checkout of segkc-deploy"]
    if card.repo:
        lines.append(suggested_command("pull", card.repo, "--out", folder))
    path = network.file
    if card.repo:
        path = folder if network.kind == "run" else f"{folder}/{network.file}"
    if network.kind == "run":
        lines.append(suggested_command("eval", path, "--data", "data.yaml"))
        lines.append(suggested_command("export", path, "--engine", "onnx", "--data", "data.yaml"))
    else:
        lines.append(suggested_command("predict", path, "--source", "photos", "--out", "predicted"))
    in_shell = "\n".join(lines)
    usage = (
        "segkc-deploy is not on PyPI. Install it from a checkout, or from a wheel that `pip wheel . --no-deps` makes"
        f" there.\n\n```\n{in_shell}\n```"
    )
    if network.kind == "run":
        return usage
    return usage + (
        "\n\n```python\nimport segkc_deploy\n\n"
        f"with segkc_deploy.load({json.dumps(path, ensure_ascii=False)}) as predictor:\n"
        '    mask = predictor.predict("image.jpg")  # uint8 (H, W): class ids at the image\'s own size\n```'
    )


def _limits(card: Card) -> str:
    said = "".join(f"- {sentence}\n" for sentence in _known_limits(card)).rstrip("\n")
    return f"{said}\n\n{card.limits.strip()}" if card.limits.strip() else said


def _known_limits(card: Card) -> Iterator[str]:
    network, scores = card.network, card.scores
    yield "Every pixel gets one of the classes above, also where the image shows something else."
    if scores is None:
        yield "How good it is was not measured."
    else:
        yield f"The scores are of {scores.images} images of {card.dataset}; other cameras and places were not tried."
        weak = [
            f"{name} ({value:.1f}%)" for name, value in scores.iou.items() if value is not None and value < _WEAK_IOU
        ]
        if weak:
            yield f"IoU below {_WEAK_IOU:g}%: {', '.join(weak)}."
        if absent := [name for name, value in scores.iou.items() if value is None]:
            yield f"No validation image holds these classes, so nothing is known of them: {', '.join(absent)}."
        if scores.miou_interval is None:
            yield "There were too few validation images for an interval of the mIoU."
    found = network.verification
    if network.kind == "artifact" and found is None:
        yield "This file was not compared with the network it was made from."
    elif found is not None:
        subject = "This file" if found.subject == "artifact" else "The graph that this file was built from"
        yield (
            f"{subject} gives the same class as the PyTorch network for {100 * found.agreement:.2f}% of the pixels of"
            f" {found.images} images."
        )
    if card.data is not None and card.data.unlabeled and network.method != "supervised":
        yield f"It learned from its own labels of {card.data.unlabeled} images too, whose mistakes it may repeat."
