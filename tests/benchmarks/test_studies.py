"""A study of methods: which trials it has, their recipes and labels, and mistakes in its file."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from study_examples import STUDY, made_row, write_data, write_study
from tiny_data import CLASSES, write_tiny_data

from segkc_deploy.benchmarks.studies.__main__ import main
from segkc_deploy.benchmarks.studies.shared_settings import completed, difference, shared_settings
from segkc_deploy.benchmarks.studies.study import Trial, chosen_trials, load_study, write_data_spec, write_recipes
from segkc_deploy.benchmarks.studies.study_rows import append_rows, read_rows
from segkc_deploy.benchmarks.studies.trials import StudyDirectory
from segkc_deploy.data.spec import load_data_spec
from segkc_deploy.error_messages import one_line_errors
from segkc_deploy.errors import ConfigError
from segkc_deploy.training.methods.registry import build_method
from segkc_deploy.training.recipe import without_pretrained
from segkc_deploy.training.recipe_file import load_recipe


def test_important_trials_come_first_and_once(tmp_path: Path) -> None:
    trials = load_study(write_study(tmp_path)).ordered_trials()
    assert [(trial.row, trial.labels, trial.seed) for trial in trials] == [
        ("segkc", "1/2", 0),
        ("supervised", "1/2", 0),
        ("segkc", "1/2", 1),
        ("supervised", "1/2", 1),
        ("segkc-weak", "1/2", 0),
        ("supervised", "full", 0),
        ("segkc", "full", 0),
        ("segkc-weak", "full", 0),
    ]
    assert len({trial.name for trial in trials}) == len(trials)


def test_only_chooses_by_every_key(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    found = chosen_trials(study, "row=segkc,row=supervised,labels=1/2,seed=0")
    assert [trial.name for trial in found] == ["segkc-1_2-seed0", "supervised-1_2-seed0"]
    assert chosen_trials(study, None) == study.ordered_trials()


def test_rows_of_other_settings_are_noticed_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, results = write_study(tmp_path), tmp_path / "r.json"
    options = [*write_data(tmp_path), "--out", str(tmp_path / "out"), "--results", str(results)]
    name = load_study(path).name
    append_rows(results, [made_row(study="another"), made_row(study=name, seed=4)])
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        main([str(path), *options])
    told = capsys.readouterr().err
    assert f"{results}: row segkc, labels 1/8, seed 4 was trained with other settings: junior was None" in told
    assert not (tmp_path / "out" / "runs").exists()


@pytest.mark.parametrize(
    ("changes", "only", "message"),
    [
        ({"rows": {"segkc": {"like": "segcc"}}, "trials": STUDY["trials"][1:]}, None, "no row 'segcc'; did you mean"),
        ({"rows": {"segkc": {"like": "segkc", "base": "x"}}}, None, "no row 'supervised'"),
        ({"trials": [{"rows": "all", "labels": "an eighth", "seeds": 0}]}, None, "write a fraction such as 1/8"),
        ({"trial": []}, None, "unknown key 'trial'; did you mean 'trials'"),
        ({}, "row:segkc", "write row=NAME"),
        ({}, "row=segkc,seed=7", "has no such trial"),
    ],
)
def test_mistakes_are_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], only: str | None, message: str
) -> None:
    path = write_study(tmp_path, **changes)
    options = [*write_data(tmp_path), "--out", str(tmp_path / "out"), "--results", str(tmp_path / "r.json")]
    with pytest.raises(SystemExit, match="2"), one_line_errors():
        main([str(path), *options, *(["--only", only] if only else [])])
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_row_lies_over_common_values_and_those_over_the_base(tmp_path: Path) -> None:
    files = write_recipes(load_study(write_study(tmp_path)), tmp_path / "out")
    recipes = {row: load_recipe(str(path)) for row, path in files.items()}
    assert recipes["supervised"].senior is None
    assert recipes["supervised"].method == {"name": "supervised"}
    assert recipes["segkc-weak"].method == {"name": "segkc", "strong_views": 1, "confidence_threshold": 0.9}
    assert recipes["segkc"].method["confidence_threshold"] == 0.4
    for name, recipe in recipes.items():
        assert (recipe.name, recipe.schedule.steps, recipe.crop_size) == (name, 3, (32, 64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": [64, 64]}, "rows supervised and segkc differ in crop_size"),
        ({"strong": {"blur_probability": 0.0}}, "differ in strong"),
        ({"schedule": {"steps": None, "epochs": 2}}, "recipe segkc: a study needs schedule.steps"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    study = load_study(write_study(tmp_path, rows=STUDY["rows"] | {"segkc": changes}))
    with pytest.raises(ConfigError, match=message):
        StudyDirectory(study, tmp_path / "out", tmp_path, tmp_path)


def test_a_study_may_compare_settings_of_the_loss_and_the_crops(tmp_path: Path) -> None:
    weighted = {"supervision": {"dice": 1.0}, "weak": {"rare_class_crops": 0.5}}
    rows = {"supervised": {"method": {"name": "supervised"}, "senior": None}, "weighted": weighted}
    trials = [{"rows": "all", "labels": "full", "seeds": 0}]
    study = load_study(write_study(tmp_path, rows=rows, trials=trials, compared=["supervision", "weak"]))
    directory = StudyDirectory(study, tmp_path / "out", tmp_path, None)
    recipes = [directory.recipe(Trial(row, "full", 0)) for row in rows]
    plain, weighted_loss = [shared_settings(study, recipe) for recipe in recipes]
    assert plain == weighted_loss
    assert not {"supervision", "weak"} & plain.keys()
    same_in_all = study.model_copy(update={"compared": ()})
    plain, weighted_loss = [shared_settings(same_in_all, recipe) for recipe in recipes]
    assert difference(plain, weighted_loss) == ("weak.rare_class_crops", 0.0, 0.5)
    with pytest.raises(ConfigError, match="differ in weak"):
        StudyDirectory(study.model_copy(update={"compared": ("supervision",)}), tmp_path / "out", tmp_path, None)


def test_settings_that_recipes_gained_since_are_at_their_defaults(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    directory = StudyDirectory(study, tmp_path / "out", tmp_path, tmp_path)
    settings = shared_settings(study, directory.recipe(Trial("segkc", "1/2", 0)))
    stored = json.loads(json.dumps(settings))
    assert stored == settings == completed(stored, "r.json")
    assert append_rows(tmp_path / "r.json", [made_row(settings=settings)])[0].settings == settings
    assert read_rows(tmp_path / "r.json")[0].settings == settings  # null too
    del stored["weak"]["rare_class_crops"], stored["validation"]["most_pixels"], stored["junior"]["input"]
    assert difference(completed(stored, "r.json"), settings) is None
    stored["weak"]["flip"] = 0.25
    assert difference(completed(stored, "r.json"), settings) == ("weak.flip", 0.25, 0.5)


def test_entropymix_is_a_rows_own(tmp_path: Path) -> None:
    mixed = {"strong": {"entropymix": {"mode": "after-cutmix"}}, "method": {"strong_views": 2}}
    study = load_study(write_study(tmp_path, rows=STUDY["rows"] | {"segkc": mixed}))
    recipe = StudyDirectory(study, tmp_path / "out", tmp_path, None).recipe(Trial("segkc", "1/2", 5))
    assert (recipe.seed, recipe.strong.entropymix.mode) == (5, "after-cutmix")


@pytest.mark.parametrize(
    ("layout", "labels", "section"),
    [
        ("folders", "1/8", {"fraction": "1/8"}),
        ("camvid", "1/8", {"partition": "1/8"}),
        ("cityscapes", "1/8", {"partition": "1/8"}),
        ("voc", "366", {"partition": "366"}),
        ("voc", "blended-1/8", {"partition": "blended-1/8"}),
        ("camvid", "full", None),
    ],
)
def test_labels_are_a_published_partition_or_a_drawn_part(
    tmp_path: Path, layout: str, labels: str, section: dict[str, str] | None
) -> None:
    trials = [{"rows": "all", "labels": labels, "seeds": 0}]
    study = load_study(write_study(tmp_path, data={"layout": layout, "classes": CLASSES}, trials=trials))
    spec = write_data_spec(study, labels, 0, tmp_path, None, tmp_path / "out")
    assert yaml.safe_load(spec.read_text()).get("labeled") == section
    load_data_spec(spec)


def test_every_seed_may_have_labels_of_its_own(tmp_path: Path) -> None:
    write_tiny_data(tmp_path / "data")
    drawn = {0: ["000", "001"], 1: ["001", "002"]}
    for seed, ids in drawn.items():
        path = tmp_path / "data" / "splits" / f"seed{seed}" / "1_2.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(ids))
    trials = [{"rows": "supervised", "labels": ["1/2", "full"], "seeds": [0, 1]}]
    study = load_study(write_study(tmp_path, lists="splits/seed{seed}/{labels}.txt", trials=trials))
    directory = StudyDirectory(study, tmp_path / "out", tmp_path / "data", None)
    for seed, ids in drawn.items():
        sets = load_data_spec(directory.specs["1/2", seed]).resolve()
        assert [sample.id for sample in sets.labeled] == ids
    assert directory.specs["full", 0] == directory.specs["full", 1]
    facts = [directory.data_facts(Trial("supervised", labels, seed)) for labels in ("1/2", "full") for seed in (0, 1)]
    assert facts[0]["labeled"] == facts[1]["labeled"]
    assert facts[0]["sha256"] != facts[1]["sha256"]
    assert facts[2] == facts[3]


STUDIES = Path(__file__).parents[2] / "benchmarks" / "studies"


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_can_be_trained(tmp_path: Path, path: Path) -> None:
    study = load_study(path)
    assert study.name == path.stem  # its results are found by the file's name
    named = re.search(r"--lists benchmarks/studies/([\w-]+)", path.read_text())
    lists = STUDIES / named[1] if named else None
    directory = StudyDirectory(study, tmp_path, tmp_path, lists)
    trials = study.ordered_trials()
    assert {trial.row for trial in trials} == set(study.rows)
    for row in study.rows:
        recipe = directory.recipe(Trial(row, "1/8", 7))
        assert (recipe.name, recipe.seed) == (row, 7)
        with torch.device("meta"):
            networks = build_method(without_pretrained(recipe), 11, 255).networks()
        assert ("senior" in networks) == (recipe.senior is not None)
    for (labels, seed), spec in directory.specs.items():
        section = yaml.safe_load(spec.read_text()).get("labeled")
        name = labels.replace("/", "_")
        if labels == "full":
            assert section == study.data.get("labeled")
        elif study.lists:
            assert section["ids"] == f"splits/seed{seed}/{name}/labeled.txt"  # as the data sets have them
        elif lists:  # one that is here, of which others can take the same
            assert section == study.data.get("labeled", {}) | {"ids": str(lists / f"{labels}.txt")}
        else:  # a published list
            assert section == {"partition": labels}


def test_the_lists_of_drives_are_of_one_size_and_of_what_their_names_say() -> None:
    names = {path.stem: path.read_text().split() for path in (STUDIES / "camvid-drives").iterdir()}
    assert {name: len(set(ids)) for name, ids in names.items()} == {"same-drive": 46, "other-drives": 46}
    assert {name.partition("_")[0] for name in names["same-drive"]} == {"0016E5"}
    assert {name.partition("_")[0] for name in names["other-drives"]} == {"0001TP", "0006R0"}


def test_as_many_images_are_chosen_as_neu_steel_draws() -> None:
    (chosen,) = (STUDIES / "neu-steel-chosen").iterdir()
    assert len(set(chosen.read_text().split())) == 24
