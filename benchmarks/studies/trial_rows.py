"""Finished trainings of a study as rows of its results."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from segkc_deploy.benchmarks.studies.merged_classes import evaluate_merged
from segkc_deploy.benchmarks.studies.shared_settings import shared_settings
from segkc_deploy.benchmarks.studies.study import Study, Trial
from segkc_deploy.benchmarks.studies.study_rows import StudyRow
from segkc_deploy.benchmarks.studies.trials import StudyDirectory, TrialFiles, final_scores, steps_of
from segkc_deploy.export.torch_runner import RunDescription, describe_run
from segkc_deploy.training.models.spec import NetworkSpec
from segkc_deploy.training.recipe import Recipe

_ROLES = ("junior", "senior")


class RowMaker:
    """Makes the rows of finished trials.

    Args:
        directory: the study's folder.
        command: the one that trained the study, without paths of this machine.
        device: where networks run that are scored once more for the study's `merge`.
    """

    def __init__(self, directory: StudyDirectory, command: str, device: str = "cpu") -> None:
        self.directory, self.command, self.device = directory, command, device
        self._known: dict[tuple[str, str, str], RunDescription] = {}

    def rows(self, trial: Trial) -> list[StudyRow]:
        """Return a row for each network of a finished trial."""
        files, recipe = self.directory.files(trial), self.directory.recipe(trial)
        scores = final_scores(files.run, steps_of(recipe))
        shipped = "_ema" if recipe.ship == "ema" else ""
        return [
            self._row(trial, role, files, recipe, scores[role + shipped], scores[role])
            for role in _ROLES
            if role + shipped in scores
        ]

    def _row(
        self, trial: Trial, role: str, files: TrialFiles, recipe: Recipe, miou: float, miou_raw: float
    ) -> StudyRow:
        spec = recipe.junior if role == "junior" else recipe.senior
        assert spec is not None
        sessions = files.read_sessions()
        about = self._about(files, role, spec, trial.labels)
        first = sessions[0]
        known = {
            "study": self.directory.study.name,
            "row": trial.row,
            "role": role,
            "labels": trial.labels,
            "seed": trial.seed,
            "steps": steps_of(recipe),
            "size": about.input_size,
            "params_m": about.parameters / 1e6,
            "miou": miou,
            "miou_raw": miou_raw,
            "shipped": recipe.ship,
            "machine": first.machine,
            "versions": first.machine["packages"],
            "command": f"{self.command} --only row={trial.row},labels={trial.labels},seed={trial.seed}",
            "commit": ", ".join(dict.fromkeys(session.commit for session in sessions)),
            "method": recipe.method,
            "network": _describe(spec, about.decoder),
            "crop_size": list(recipe.crop_size),
            "images_per_step": [recipe.batch.labeled, recipe.batch.unlabeled],
            "images": first.data,
            "settings": shared_settings(self.directory.study, recipe),
            "threads": first.threads,
            "sessions": len(sessions),
        }
        if merge := self.directory.study.merge:
            spec_file, scores = self.directory.spec(trial), files.scores(role)
            known["miou_merged"] = evaluate_merged(files.run.path, spec_file, role, scores, merge, self.device)
            known["merged"] = merge
        labeling = self.directory.study.labeling_trial(trial)
        # Pseudo-labels cost the training of the network that made them, too.
        paid = [*sessions, *(self.directory.files(labeling).read_sessions() if labeling else ())]
        for name in ("seconds", "processor_seconds"):
            seconds = [getattr(session, name) for session in paid]
            if None not in seconds:
                known[name] = sum(seconds)
        return StudyRow.model_validate(known)

    def _about(self, files: TrialFiles, role: str, spec: NetworkSpec, labels: str) -> RunDescription:
        """The network's parameters and input size; of equal networks one is built."""
        key = (role, spec.model_dump_json(), labels)
        if key not in self._known:
            self._known[key] = describe_run(files.run.path, role)
        return self._known[key]


def row_order(study: Study) -> Callable[[StudyRow], Any]:
    """Return what rows are sorted by: their places in the study file, and rows that it does not know at the end."""
    places = {row: place for place, row in enumerate(study.rows)}
    labels = {
        share: place for place, share in enumerate(dict.fromkeys(trial.labels for trial in study.ordered_trials()))
    }

    def order(row: StudyRow) -> tuple[object, ...]:
        known = row.study == study.name
        place = places.get(row.row, len(places)) if known else len(places)
        return (not known, row.study, labels.get(row.labels, len(labels)), place, row.row, row.seed, row.role)

    return order


def _describe(spec: NetworkSpec, decoder: str) -> str:
    weights = "a file's weights" if isinstance(spec.pretrained, Path) else "pretrained" if spec.pretrained else "random"
    width = f" {spec.decoder_channels}" if spec.decoder_channels else ""
    return f"{spec.backbone} + {decoder}{width}, {weights}{'' if 'weights' in weights else ' weights'}"
