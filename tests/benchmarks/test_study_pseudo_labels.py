"""A row of a study that labels the unlabeled images once, with another row's network, and trains on the result."""

import json
from pathlib import Path

import pytest
from study_examples import write_data, write_study

from segkc_deploy.benchmarks.studies.__main__ import main
from segkc_deploy.benchmarks.studies.study import Trial, load_study
from segkc_deploy.benchmarks.studies.study_rows import read_rows
from segkc_deploy.errors import ConfigError

ROWS = {
    "supervised": {"method": {"name": "supervised"}, "senior": None},
    "autolabel": {"like": "supervised", "pseudo_labels_from": "supervised"},
}
TRIALS = [{"rows": ["supervised", "autolabel"], "labels": "1/2", "seeds": 0}]


@pytest.mark.slow
def test_another_rows_network_labels_the_unlabeled_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_study(tmp_path, rows=ROWS, trials=TRIALS)
    results, out = tmp_path / "results.json", tmp_path / "out"
    common = [str(path), *write_data(tmp_path), "--out", str(out), "--results", str(results), "--device", "cpu"]
    assert main([*common, "--only", "row=autolabel"]) == 1
    assert "learns pseudo-labels of supervised-1_2-seed0, which is not finished" in capsys.readouterr().out

    assert main(common) == 0
    found = {row.row: row.model_extra or {} for row in read_rows(results)}
    written = json.loads((out / "pseudo-labels/autolabel-1_2-seed0/pseudo-label.json").read_text())
    # Its table compares it with rows of the same images, and it costs the training that its labels came from, too.
    assert found["autolabel"]["images"] == found["supervised"]["images"]
    assert found["autolabel"]["images"]["labeled"] == 2
    assert found["autolabel"]["processor_seconds"] > found["supervised"]["processor_seconds"]
    listed = (out / "pseudo-labels/autolabel-1_2-seed0/labeled.txt").read_text().splitlines()
    assert len(listed) == 2 + found["supervised"]["images"]["unlabeled"]
    assert "supervised-1_2-seed0" in json.dumps(written)
    assert main(common) == 0
    assert "2 skipped" in capsys.readouterr().out


def test_which_trial_labels(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, rows=ROWS, trials=TRIALS))
    assert study.labeling_trial(Trial("autolabel", "1/2", 3)) == Trial("supervised", "1/2", 3)
    assert study.labeling_trial(Trial("supervised", "1/2", 3)) is None
    for other, message in (("autolabel", "learns pseudo-labels itself"), ("superwised", "no row 'superwised'")):
        rows = ROWS | {"again": {"like": "supervised", "pseudo_labels_from": other}}
        with pytest.raises(ConfigError, match=message):
            load_study(write_study(tmp_path, rows=rows, trials=TRIALS))
