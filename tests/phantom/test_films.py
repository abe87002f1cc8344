import gzip
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from jaxfair.data import decode, workers
from jaxfair.data.sources import reports
from jaxfair.errors import InputError
from jaxfair.phantom import films as drawn_films
from jaxfair.phantom import layouts, people, thorax, thorax_findings, write
from jaxfair.schema import PHANTOM_MARKER
from tests.phantom.test_rsna import digests

CONFIG = write.PhantomConfig(n_images=60, pixels=48, seed=3)
SOURCES = tuple(layouts.LAYOUTS)


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    place = tmp_path_factory.mktemp("phantoms")
    return {
        source: write.write_phantom(CONFIG, place / source, source=source, progress=False)
        for source in SOURCES
    }


def pictures_in(root):
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix in (".png", ".jpg")}


def opened(path):
    """Size, mode and comment of a picture."""
    with Image.open(path) as image:
        info = image.info
        return image.size, image.mode, info.get("Comment") or info["comment"].decode()


def films_of(findings, n=16, *, view="PA", contrast=1.0, sex="M"):
    out = []
    for seed in range(n):
        body = thorax.draw_anatomy(sex, 50, rng=np.random.default_rng([seed, 0]))
        rng = np.random.default_rng([seed, 1])
        out.append(
            thorax_findings.draw_frontal(body, view, findings, 64, contrast=contrast, rng=rng)
        )
    return np.stack(out)


def test_equal_configs_draw_equal_bytes_whatever_the_number_of_processes(
    roots, tmp_path, monkeypatch
):
    monkeypatch.setattr(workers, "FEW", 1)
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: {0, 1})
    again = write.write_phantom(CONFIG, tmp_path / "a", source="mimic_cxr", progress=False)
    assert digests(again) == digests(roots["mimic_cxr"])


@pytest.mark.parametrize("source", SOURCES)
def test_the_marker_says_phantom_and_source_and_so_does_every_picture(roots, source):
    marker = json.loads((roots[source] / PHANTOM_MARKER).read_text())
    assert marker["data"] == "phantom" and marker["source"] == source and "slices" not in marker
    assert write.is_phantom(CONFIG, roots[source], source=source)
    assert not write.is_phantom(CONFIG, roots[source], source="rsna")
    for name in pictures_in(roots[source]):
        assert opened(roots[source] / name)[2].startswith("PHANTOM")


def test_each_source_has_a_folder_of_its_own():
    names = {CONFIG.folder_name(source) for source in ("rsna", "volumes", *SOURCES)}
    assert len(names) == len(SOURCES) + 2
    with pytest.raises(InputError, match=r"no phantom for data\.source 'chexprt'; there are rsna"):
        CONFIG.folder_name("chexprt")


def test_chexpert_has_its_public_tables_and_paths(roots):
    root = roots["chexpert"]
    train, valid = pd.read_csv(root / "train.csv"), pd.read_csv(root / "valid.csv")
    first = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *reports.LABELS]
    assert list(train.columns) == list(valid.columns) == first and len(valid)
    paths = pd.concat([train, valid])["Path"]
    assert paths.str.match(
        r"CheXpert-v1.0-small/(train|valid)/patient\d{5}/study\d+/view\d_(frontal|lateral).jpg$"
    ).all()
    assert set(paths.str.removeprefix("CheXpert-v1.0-small/")) == pictures_in(root)
    assert set(train["Sex"]) == {"Male", "Female", "Unknown"}
    lateral = train["Frontal/Lateral"] == "Lateral"
    assert lateral.any() and train["AP/PA"].isna().equals(lateral)
    labels = train[list(reports.LABELS)]
    assert set(np.unique(labels.fillna(9))) == {-1, 0, 1, 9}
    assert set(np.unique(valid[list(labels)])) <= {0, 1}
    assert {0, 155} <= set(train["Age"])


def test_chexperts_race_table_contradicts_itself_about_one_person(roots):
    races = pd.read_csv(roots["chexpert"] / "CHEXPERT DEMO.csv")
    assert list(races) == ["PATIENT", "GENDER", "AGE_AT_CXR", "PRIMARY_RACE", "ETHNICITY"]
    kinds = races.groupby("PATIENT")["PRIMARY_RACE"].nunique()
    assert (kinds == 2).sum() == 1 and set(races["GENDER"]) == {"Male", "Female"}


def test_cxr14_has_its_public_table_lists_and_names(roots):
    root = roots["cxr14"]
    rows = pd.read_csv(root / "Data_Entry_2017_v2020.csv")
    assert ",".join(rows.columns) == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    assert set("images/" + rows["Image Index"]) == pictures_in(root)
    expected = [f"{p:08d}_{k:03d}.png" for p, k in zip(rows["Patient ID"], rows["Follow-up #"])]
    assert list(rows["Image Index"]) == expected
    found = {name for cell in rows["Finding Labels"] for name in cell.split("|")}
    assert found >= {"No Finding", "Cardiomegaly", "Edema", "Effusion", "Infiltration"}
    assert not rows["Finding Labels"].str.contains("No Finding.|[|]No Finding").any()
    lists = [set((root / f).read_text().split()) for f in ("train_val_list.txt", "test_list.txt")]
    assert lists[0] | lists[1] == set(rows["Image Index"])
    patients = [{name[:8] for name in part} for part in lists]
    assert patients[0].isdisjoint(patients[1]) and all(patients)
    assert {0, 155} <= set(rows["Patient Age"]) and rows["Patient Gender"].isna().sum() == 1
    modes = {opened(path)[1] for path in (root / "images").iterdir()}
    assert modes == {"L", "RGBA"}


def test_mimic_has_its_public_tables_paths_and_splits(roots):
    root = roots["mimic_cxr"]
    names = ["metadata", "chexpert", "split"]
    meta, labels, splits = (pd.read_csv(root / f"mimic-cxr-2.0.0-{n}.csv.gz") for n in names)
    paths = {
        f"files/p{str(r.subject_id)[:2]}/p{r.subject_id}/s{r.study_id}/{r.dicom_id}.jpg"
        for r in meta.itertuples()
    }
    assert paths == pictures_in(root) and len(paths) == 60
    assert list(labels.columns) == ["subject_id", "study_id", *sorted(labels.columns[2:])]
    assert set(labels.columns[2:]) == set(reports.LABELS)
    assert labels["study_id"].is_unique
    assert set(meta["study_id"]) - set(labels["study_id"])  # a study without a report
    assert set(splits["split"]) == {"train", "validate", "test"}
    assert (splits.groupby("subject_id")["split"].nunique() == 1).all()
    first = next(r for r in meta.itertuples() if r.ViewPosition == "LATERAL")
    size, mode, _ = opened(next(root.rglob(f"{first.dicom_id}.jpg")))
    assert mode == "L" and size == (first.Columns, first.Rows)


def test_mimics_persons_have_sex_age_and_race_with_the_faults_of_real_tables(roots):
    root = roots["mimic_cxr"]
    meta = pd.read_csv(root / "mimic-cxr-2.0.0-metadata.csv.gz")
    patients = pd.read_csv(root / "patients.csv.gz")
    stays = pd.read_csv(root / "admissions.csv.gz")
    assert len(set(meta["subject_id"]) - set(patients["subject_id"])) == 1
    assert set(patients["gender"]) == {"F", "M"} and {0, 155} <= set(patients["anchor_age"])
    assert (stays.groupby("subject_id")["race"].nunique() == 2).sum() == 1
    joined = meta.merge(patients, on="subject_id")
    assert (joined["StudyDate"] // 10_000 >= joined["anchor_year"]).all()


def test_gzip_files_hold_no_time_of_writing(roots):
    for path in roots["mimic_cxr"].glob("*.gz"):
        content = path.read_bytes()
        assert content[4:8] == bytes(4) and gzip.decompress(content)


def test_the_table_has_the_eight_labels(roots):
    root = roots["table"]
    rows = pd.read_csv(root / "table.csv")
    assert list(rows) == ["image", "patient", "sex", "age", "view", *thorax_findings.FINDINGS]
    assert set(rows["image"]) == pictures_in(root)
    assert rows[list(thorax_findings.FINDINGS)].isin([0, 1]).all().all()
    assert rows["sex"].isna().sum() == rows["age"].isna().sum() == 1
    assert (rows["view"] == "LATERAL").sum() >= 1 and {0, 155} <= set(rows["age"])


def test_the_smallest_phantom_has_every_oddity_and_exactly_the_films_asked_for():
    config = write.PhantomConfig(n_images=20)
    table = drawn_films.draw_table(config, laterals=0.15)
    assert len(table) == 20 and set(table["view"]) >= {"LATERAL"}
    assert (table["listed_sex"] == "").any() and {0, 155} <= set(table["listed_age"])
    assert table["two_races"].any() and table["no_report"].any()


def test_a_person_has_one_sex_and_a_study_one_set_of_findings():
    table = drawn_films.draw_table(write.PhantomConfig(n_images=1000), laterals=0.15)
    assert (table.groupby("patient")[["sex", "race", "listed_sex"]].nunique() == 1).all().all()
    findings = list(thorax_findings.FINDINGS)
    assert (table.groupby(["patient", "study"])[findings].nunique() == 1).all().all()
    films = table.groupby("patient").size()
    assert (films > 1).mean() > 0.3 and films.max() < 20
    ages = table.groupby("patient")["age"]
    assert (ages.diff().dropna() >= 0).all()


def test_labels_of_a_study_are_equal_on_its_films_and_agree_with_what_is_drawn():
    table = drawn_films.draw_table(write.PhantomConfig(n_images=1000), laterals=0.15)
    labels = layouts.report_labels(table, seed=0)
    by_study = labels.fillna(9).groupby([table["patient"], table["study"]])
    assert (by_study.nunique() == 1).all().all()
    effusion = table["pleural_effusion_right"] | table["pleural_effusion_left"]
    assert not (labels["Pleural Effusion"] == 1)[~effusion].any()
    assert labels["Pleural Effusion"][effusion].isin([1, -1]).all()
    drawn = table[list(thorax_findings.FINDINGS)].any(axis=1)
    assert not drawn[labels["No Finding"] == 1].any() and (labels["No Finding"] == 1).mean() > 0.1
    assert not (labels[["Fracture", "Pneumothorax", "Support Devices"]] == 1).any().any()


def test_prevalences_are_the_stated_ones_and_age_raises_those_of_the_heart():
    table = drawn_films.draw_table(write.PhantomConfig(n_images=4000))
    for name, share in drawn_films.PREVALENCE.items():
        assert 0.10 <= share <= 0.35 and table[name].mean() == pytest.approx(share, abs=0.03)
        by_sex = table.groupby("sex")[name].mean()
        assert by_sex["F"] == pytest.approx(by_sex["M"], abs=0.05)
    old = table["age"] > 60
    assert table["cardiomegaly"][old].mean() > table["cardiomegaly"][~old].mean() + 0.1


def test_every_finding_is_seen_by_a_linear_model_of_32_pixels():
    table = drawn_films.draw_table(write.PhantomConfig(n_images=700, seed=1))
    pictures = []
    for row in table.to_dict("records"):
        body = thorax.draw_anatomy(
            row["sex"], row["age"], rng=np.random.default_rng([1, row["patient"]])
        )
        rng = np.random.default_rng([2, row["index"]])
        found = [name for name in thorax_findings.FINDINGS if row[name]]
        film = thorax_findings.draw_frontal(body, row["view"], found, 64, rng=rng)
        pictures.append(decode.area_resize(film, 32, 32).ravel())
    x = np.stack(pictures)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=0).mean()
    test = (table["patient"] % 2 == 0).to_numpy()
    for name in thorax_findings.FINDINGS:
        model = LogisticRegression(C=0.003, max_iter=500).fit(x[~test], table[name][~test])
        assert roc_auc_score(table[name][test], model.decision_function(x[test])) > 0.7, name


@pytest.mark.parametrize("kind", ["pleural_effusion", "pneumonic_infiltrates", "atelectasis"])
def test_one_sided_findings_brighten_the_half_of_their_side_only(kind):
    healthy = films_of([])
    for side, own in (("right", np.s_[..., :32]), ("left", np.s_[..., 32:])):
        change = films_of([f"{kind}_{side}"]) - healthy
        other = np.s_[..., 32:] if side == "right" else np.s_[..., :32]
        assert change[own].mean() > 0.004
        assert np.abs(change[other]).mean() < 0.1 * change[own].mean()


def test_cardiomegaly_widens_the_heart_and_congestion_brightens_both_hili():
    healthy = films_of([])
    heart = (films_of(["cardiomegaly"]) - healthy).mean(axis=0)
    assert heart[32:44].mean() > 0.01 and np.abs(heart[:16]).mean() < 0.001
    haze = (films_of(["congestion"]) - healthy).mean(axis=0)
    assert haze[22:40, 18:30].mean() > 0.03 and haze[22:40, 36:48].mean() > 0.02
    assert np.abs(haze[:10]).mean() < 0.002


@pytest.mark.parametrize("name", thorax_findings.FINDINGS)
def test_the_planted_gap_makes_every_finding_fainter(name):
    healthy = films_of([])
    strong, faint = (np.abs(films_of([name], contrast=c) - healthy).mean() for c in (1.0, 0.5))
    assert 0.35 < faint / strong < 0.65


def test_findings_add_up_without_leaving_the_range_of_a_picture():
    films = films_of(thorax_findings.FINDINGS, 4, view="AP")
    assert films.dtype == np.float32 and films.min() >= 0 and films.max() <= 1
    side = thorax.draw_anatomy("F", 70, rng=np.random.default_rng(0))
    lateral = thorax_findings.draw_lateral(side, 64, rng=np.random.default_rng(1))
    assert lateral.shape == (64, 64) and 0 <= lateral.min() < lateral.max() <= 1


def test_only_films_of_the_gap_group_with_a_finding_change_with_its_contrast(tmp_path):
    fields = {"n_images": 40, "pixels": 32, "gap_group": "AP"}
    configs = [write.PhantomConfig(gap_contrast=c, **fields) for c in (1.0, 0.5)]
    one, two = (
        digests(write.write_phantom(c, tmp_path / str(i), source="cxr14", progress=False))
        for i, c in enumerate(configs)
    )
    table = drawn_films.draw_table(configs[0])
    fainter = table[table["gap"] & table[list(thorax_findings.FINDINGS)].any(axis=1)]
    assert (fainter["view"] == "AP").all() and len(fainter)
    paths = layouts.LAYOUTS["cxr14"].place(table)
    changed = {name for name in one if name.endswith(".png") and one[name] != two[name]}
    assert changed == {paths[i] for i in fainter["index"]}


def test_the_gap_group_is_by_true_sex_and_age():
    table = drawn_films.draw_table(write.PhantomConfig(n_images=300, gap_group="F"))
    assert table["gap"].equals(table["sex"] == "F")
    assert people.in_gap(table, "61-75").equals(table["age"].between(61, 75))
    assert not people.in_gap(table, "").any()
