"""`segkc-deploy label-next`: rank a run's unlabeled images, choose some, and write lists and the contact sheet."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segkc_deploy import atomic
from segkc_deploy.data.list_file import write_list
from segkc_deploy.data.samples import Sample
from segkc_deploy.data.tasks.writers import WRITERS
from segkc_deploy.errors import ConfigError, DataError
from segkc_deploy.invocation import command_line
from segkc_deploy.machine import describe_machine
from segkc_deploy.prediction_files import prepare_folder
from segkc_deploy.training.label_next.candidates import KnownData, candidates, names_of, true_masks
from segkc_deploy.training.label_next.choice import choose, require_diversity
from segkc_deploy.training.label_next.contact_sheet import contact_sheet, draw_cards, score_histogram
from segkc_deploy.training.label_next.earlier import SCORES, remove_earlier, require_own
from segkc_deploy.training.label_next.networks import RunNetworks
from segkc_deploy.training.label_next.rank import RankedImage, rank_images
from segkc_deploy.training.label_next.summary import facts, sentences, table
from segkc_deploy.training.label_next.tool_tasks import write_tasks
from segkc_deploy.training.label_next.true_errors import ERRORS, Comparison, compare
from segkc_deploy.training.label_next.uncertainty import ranking_score
from segkc_deploy.validation import did_you_mean

#: How images are ranked where nothing else is asked for: with a senior, and without one.
_BY_DEFAULT = {True: "both", False: "entropy"}


@dataclass(frozen=True)
class Request:
    """What to rank, and how to choose.

    Attributes:
        run: the run directory.
        out: the folder for the results.
        data: the data spec; by default the run's own.
        images: a folder to rank instead of the spec's unlabeled images.
        masks: a folder with true masks of some of the images, to see how well the scores find the junior's errors.
        count: how many images to choose.
        by: a key of `RANKINGS`; by default `both`, or `entropy` for a run without a senior.
        diversity: 0 takes the highest scores; more spreads the choice over different-looking images.
        device: `auto`, `cpu` or `cuda`.
        overwrite: write into a folder that is not empty.
        tasks: labeling tools, keys of `WRITERS`, to write the chosen images for.
    """

    run: Path
    out: Path
    data: Path | None = None
    images: Path | None = None
    masks: Path | None = None
    count: int = 20
    by: str | None = None
    diversity: float = 1.0
    device: str = "auto"
    overwrite: bool = False
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What `label_next` did.

    Attributes:
        chosen: the images to label, the first chosen first.
        ranked: how many images were ranked.
        unreadable: how many more could not be read.
        bad_masks: how many of the ranked images have a true mask that cannot be used.
        sentences: what was done, for people.
        next_step: what to do with the list.
        comparison: the scores beside the junior's true errors, where there are true masks.
        tasks: what to do with the tasks of each labeling tool.
    """

    chosen: tuple[RankedImage, ...]
    ranked: int
    unreadable: int
    bad_masks: int
    sentences: tuple[str, ...]
    next_step: str
    comparison: Comparison | None
    tasks: tuple[str, ...]


def label_next(request: Request) -> Choice:
    """Rank the images, choose, and write what came out.

    `label-next.txt`, `labeled.txt` (with a data spec), `scores.csv`, `index.html`, `comparison.json` (with true masks),
    and a folder for each tool of `tasks`. An earlier choice in the folder is deleted once there is another one.

    Raises:
        RunDirectoryError: this is no run, or it has no junior yet.
        ConfigError: a folder, a spec or a value cannot be used, a network cannot take an image's size, or it gives
            scores that are not finite.
        DataError: there is no image to rank, none can be read, or no true mask can be compared with.
    """
    _require_values(request)
    networks = RunNetworks(request.run, request.device)
    by = _ranking(request, networks)
    known = _known_data(request, networks)
    samples = candidates(known, request.images, request.out)
    if request.count > len(samples):
        raise ConfigError(f"--count {request.count}: there are {len(samples)} images to choose from; ask for fewer")
    networks.require_sizes(sample.image for sample in samples)
    truth = true_masks(request.masks, known, networks.labels, samples) if request.masks else None
    prepare_folder(request.out, request.overwrite)
    require_own(request.out, request.tasks)

    ranked = rank_images(networks, samples, truth)
    if not ranked:
        raise DataError(f"none of the {len(samples)} images could be read (named above); replace them")
    scores = np.array([ranking_score(image.scores, by) for image in ranked])
    features = np.stack([image.feature for image in ranked])
    indices = choose(scores, features, min(request.count, len(ranked)), request.diversity)
    chosen = tuple(ranked[index] for index in indices)
    told = sentences(networks, by, request.diversity, scores, indices)
    cards, classes = draw_cards(networks, chosen, scores[indices].tolist())
    legend = [(networks.labels.names[index], networks.labels.palette[index]) for index in sorted(classes)]
    terms = facts(request.run, networks, by, request.diversity)
    page = contact_sheet(cards, legend, terms, told, score_histogram(scores, indices))

    remove_earlier(request.out)
    atomic.write_text(request.out / SCORES, table(ranked, scores, indices, networks.labels.names))
    next_step = _write_lists(request, known, samples, [image.sample for image in chosen])
    atomic.write_text(request.out / "index.html", page)
    tasks = write_tasks(networks, chosen, scores[indices].tolist(), request.tasks, request.out)
    comparison = _comparison(request, by, ranked, indices, terms) if truth else None
    return Choice(
        chosen=chosen,
        ranked=len(ranked),
        unreadable=len(samples) - len(ranked),
        bad_masks=sum(image.has_bad_mask for image in ranked),
        sentences=told,
        next_step=next_step,
        comparison=comparison,
        tasks=tasks,
    )


def _require_values(request: Request) -> None:
    """Refuse values that the command line refuses too; all of this is known before an image is read."""
    for tool in request.tasks:
        if tool not in WRITERS:
            raise ConfigError(f"--tasks {tool}: no such tool; {did_you_mean(tool, WRITERS)}")
    if request.count < 1:
        raise ConfigError(f"--count {request.count}: should be 1 or more")
    require_diversity(request.diversity)


def _ranking(request: Request, networks: RunNetworks) -> str:
    if request.by is None:
        return _BY_DEFAULT[networks.has_senior]
    if not networks.has_senior and request.by != "entropy":
        raise ConfigError(
            f"--by {request.by}: {request.run} has no senior to compare the junior with; use --by entropy"
        )
    return request.by


def _known_data(request: Request, networks: RunNetworks) -> KnownData | None:
    """Read the spec that is given, or else the run's own; None where that is gone and a folder is ranked."""
    data = request.data or networks.data
    if data is not None and (request.data is not None or data.is_file()):
        # The run's own spec may have got further classes since, and images to label are chosen for these.
        strict = request.data is not None or request.masks is not None
        return KnownData.load(data, networks.labels if strict else None, request.run)
    if request.images is None:
        if data is None:
            raise ConfigError(f"{request.run}: imported without a data spec; give --data")
        raise ConfigError(f"{data}: the data spec of {request.run} is not there any more; name one by --data")
    return None


def _comparison(
    request: Request, by: str, ranked: Sequence[RankedImage], indices: Sequence[int], terms: Mapping[str, str]
) -> Comparison:
    """Compare scores with true errors, and write `comparison.json`."""
    scores = {name: np.array([image.scores[name] for image in ranked]) for name in ranked[0].scores}
    if "disagreement" in scores:
        scores["both"] = np.array([ranking_score(image.scores, "both") for image in ranked])
    comparison = compare(scores, [image.errors for image in ranked], indices)
    by_score = np.argsort([-ranking_score(image.scores, by) for image in ranked], kind="stable")[: len(indices)]
    every = names_of([image.sample for image in ranked])
    names = {name: [every[index] for index in places] for name, places in (("chosen", indices), ("highest", by_score))}
    settings = {
        "command": command_line(),
        "networks": terms["networks"],
        "by": by,
        "diversity": request.diversity,
        "errors": ERRORS,
        "machine": describe_machine(),
    }
    content = json.dumps(settings | comparison.to_json() | names, indent=2, ensure_ascii=False)
    atomic.write_text(request.out / "comparison.json", content + "\n")
    return comparison


def _write_lists(request: Request, known: KnownData | None, samples: Sequence[Sample], chosen: Sequence[Sample]) -> str:
    """Write `label-next.txt` and, with a data spec, `labeled.txt`; return what to do with them."""
    target = request.out / "label-next.txt"
    if known is None:
        write_list(target, (sample.id for sample in chosen))
        return (
            f"save a mask for each, and train with a data spec that has `labeled: {{images: {request.images},"
            f" masks: FOLDER, ids: {target}}}`"
        )
    sets = known.sets
    form = known.form.among([*sets.labeled, *sets.val, *sets.unlabeled, *samples])
    write_list(target, map(form.line, chosen))
    labeled = request.out / "labeled.txt"
    write_list(labeled, map(form.line, [*sets.labeled, *chosen]))
    return form.next_step(known.spec, chosen, labeled)
