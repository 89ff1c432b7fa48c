"""Add what the export verified of artifacts to a study, a row for each artifact.

`python -m segkc_deploy.benchmarks.studies.artifact_rows ARTIFACT… --study NAME --labels 1/8 --seed 0 --commit HASH
--out FILE.json`
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from segkc_deploy.benchmarks.studies.row_command import add_rows, study_parser
from segkc_deploy.benchmarks.studies.study_rows import StudyRow
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError
from segkc_deploy.manifest import Manifest, read_manifest


def artifact_row(path: Path, manifest: Manifest, *, study: str, labels: str, seed: int, commit: str) -> StudyRow:
    """Return the row of one artifact: its mIoU, its agreement, and what ran it.

    Raises:
        ConfigError: it was verified without masks, so there is no mIoU to claim.
    """
    found = manifest.verification
    if found is None or found.miou_artifact is None:
        raise ConfigError(f"{path}: verified without masks; export it with --data")
    layers = manifest.layer_precision
    values = {
        "study": study,
        "row": f"{manifest.source.backbone}, {manifest.engine}",
        "role": "artifact",
        "labels": labels,
        "seed": seed,
        "steps": manifest.source.step,
        "size": manifest.contract.size,
        "params_m": manifest.parameters / 1e6,
        "miou": found.miou_artifact,
        "miou_network": found.miou_network,
        "machine": manifest.machine,
        "versions": manifest.machine["packages"],
        "command": manifest.command,
        "commit": commit,
        "precision": manifest.precision,
        "agreement": found.agreement,
        "images": found.images,
        "verified": found.subject,
        "ran_on": found.ran_on,
        "max_logit_difference": found.max_logit_difference,
        "bytes": manifest.bytes,
        "kept_layers": len(layers.fallbacks) if layers else None,
    }
    return StudyRow.model_validate(values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Add artifacts to a study; return the exit code."""
    parser = study_parser("studies.artifact_rows", __doc__)
    parser.add_argument("artifacts", type=Path, nargs="+", help="artifacts with their manifests")
    parser.add_argument("--commit", required=True, help="commit that trained the network")
    options = parser.parse_args(arguments)
    known = {"study": options.study, "labels": options.labels, "seed": options.seed, "commit": options.commit}
    return add_rows(
        options.out, lambda: [artifact_row(path, read_manifest(path), **known) for path in options.artifacts]
    )


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
