import hashlib
import json

import numpy as np
import pydicom
import pytest

from jaxfair.data import decode
from jaxfair.data.sources import rsna as layout
from jaxfair.errors import InputError
from jaxfair.phantom import rsna, thorax, write
from jaxfair.schema import PHANTOM_MARKER


def digests(root):
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


def test_a_phantom_is_in_the_layout_that_the_reader_wants(small_phantom):
    table = layout.read_table(small_phantom)
    assert len(table.rows) == 60 and table.rejected.empty and table.patient_ids_known
    assert table.counts["repeated_class_rows"] > 0  # one row per box, as in the real CSV


def test_equal_configs_draw_equal_bytes_whatever_the_number_of_processes(
    small_phantom, tmp_path, monkeypatch
):
    monkeypatch.setattr(rsna.workers, "FEW", 1)
    monkeypatch.setattr(rsna.workers.os, "sched_getaffinity", lambda _: {0, 1})
    config = write.PhantomConfig(n_images=60, pixels=64, seed=3)
    again = write.write_phantom(config, tmp_path / "again", progress=False)
    assert digests(again) == digests(small_phantom)


def test_another_seed_draws_other_people(tmp_path):
    one, two = (rsna.draw_table(write.PhantomConfig(n_images=40, seed=s)) for s in (0, 1))
    assert set(one["image_id"]).isdisjoint(two["image_id"]) and not one["age"].equals(two["age"])


def test_joint_frequencies_follow_the_real_counts():
    table = rsna.draw_table(write.PhantomConfig(n_images=26_684))
    opacity = table["finding"] == "opacity"
    cells = table.groupby([opacity.astype(int), "view", "sex"]).size()
    for cell, bands in rsna.REAL_COUNTS.items():
        assert abs(cells[cell] - sum(bands)) <= 7
    share = {view: opacity[table["view"] == view].mean() for view in ("AP", "PA")}
    assert share["AP"] == pytest.approx(0.38, abs=0.01)
    assert share["PA"] == pytest.approx(0.09, abs=0.01)
    assert (table["sex"] == "M").mean() == pytest.approx(0.57, abs=0.01)
    assert (table["finding"] == "normal").sum() == pytest.approx(8_851, abs=10)
    assert table["age"].min() >= 1 and (table["age"] > 110).sum() == 5
    assert set(table.loc[table["age"] > 110, "age"]) <= set(rsna.IMPOSSIBLE_AGES)


def test_real_counts_are_those_of_26684_images():
    assert sum(map(sum, rsna.REAL_COUNTS.values())) == 26_684


@pytest.mark.parametrize("n", [20, 61, 2400])
def test_there_are_exactly_as_many_films_as_asked_and_one_impossible_age(n):
    table = rsna.draw_table(write.PhantomConfig(n_images=n))
    assert len(table) == n and table["image_id"].is_unique and (table["age"] > 110).any()


def test_some_patients_have_several_films_and_each_has_one_sex_and_age():
    table = rsna.draw_table(write.PhantomConfig(n_images=1000))
    films = table.groupby("patient").size()
    assert (films > 1).mean() > 0.1 and films.max() < 40
    assert (table.groupby("patient")[["sex", "age"]].nunique() == 1).all().all()


def test_the_files_are_of_every_kind_and_say_phantom(small_phantom):
    kinds, inverted, ages = set(), set(), set()
    for path in small_phantom.rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        kinds.add((dataset.file_meta.TransferSyntaxUID.name[:4], dataset.BitsStored))
        inverted.add(dataset.PhotometricInterpretation)
        ages.add(decode.decode(path)[1]["age_text"][-1] == "Y")
        assert "PHANTOM" in str(dataset.PatientName) and "PHANTOM" in dataset.ImageComments
    assert kinds == {("JPEG", 8), ("Expl", 8), ("Expl", 12), ("Expl", 16)}
    assert inverted == {"MONOCHROME1", "MONOCHROME2"} and ages == {True, False}


@pytest.mark.parametrize("encoding", list(rsna.ENCODINGS))
@pytest.mark.parametrize("inverted", [0.0, 1.0])
def test_every_encoding_decodes_to_the_film_that_was_drawn(
    tmp_path, monkeypatch, encoding, inverted
):
    monkeypatch.setattr(rsna, "ENCODINGS", {encoding: 1.0})
    monkeypatch.setattr(rsna, "INVERTED_SHARE", inverted)
    rng = np.random.default_rng(0)
    film = thorax.draw_film(thorax.draw_anatomy("M", 50, rng=rng), "PA", "normal", 64, rng=rng)
    row = {"image_id": "x", "age": 50, "sex": "M", "view": "PA"}
    path = tmp_path / "x.dcm"
    path.write_bytes(rsna._encoded(film, row, rng))
    picture, header = decode.decode(path)
    assert header["photometric"] == f"MONOCHROME{1 if inverted else 2}"
    error = np.abs(picture - film)
    assert error.max() < (0.08 if encoding == "jpeg8" else 0.0021)
    assert error.mean() < (0.01 if encoding == "jpeg8" else 0.0011)


def films(finding, n=24, *, sex="M", view="PA", contrast=1.0, age=50):
    out = []
    for seed in range(n):
        body = thorax.draw_anatomy(sex, age, rng=np.random.default_rng([seed, 0]))
        rng = np.random.default_rng([seed, 1])
        out.append(thorax.draw_film(body, view, finding, 64, contrast=contrast, rng=rng))
    return np.stack(out)


def test_films_are_pictures_between_black_and_white():
    for finding in thorax.FINDINGS:
        pictures = films(finding, 8)
        assert pictures.dtype == np.float32 and pictures.shape == (8, 64, 64)
        assert pictures.min() >= 0 and pictures.max() <= 1 and pictures.std() > 0.15


def test_opacities_brighten_the_lungs_and_little_else():
    change = films("opacity").mean(0) - films("normal").mean(0)
    assert change[16:40, 12:52].mean() > 0.02
    assert np.abs(change[56:]).mean() < 0.01


def test_the_planted_gap_makes_opacities_fainter():
    without = films("opacity", contrast=0.0)
    strong, faint = (np.abs(films("opacity", contrast=c) - without).mean() for c in (1.0, 0.6))
    assert faint / strong == pytest.approx(0.6, abs=0.05)


def test_only_opacities_of_the_gap_group_change_with_its_contrast(tmp_path):
    fields = {"n_images": 40, "pixels": 32, "gap_group": "M"}
    configs = [write.PhantomConfig(gap_contrast=c, **fields) for c in (1.0, 0.5)]
    one, two = (
        digests(write.write_phantom(c, tmp_path / c.folder_name(), progress=False)) for c in configs
    )
    table = rsna.draw_table(configs[0])
    fainter = table.query("finding == 'opacity' and sex == 'M'")["image_id"]
    changed = {name for name in one if name.endswith(".dcm") and one[name] != two[name]}
    assert len(fainter) and changed == {f"{layout.IMAGES}/{name}.dcm" for name in fainter}


def test_the_gap_group_is_the_one_that_the_config_names():
    for name, column in (("F", "sex"), ("AP", "view")):
        table = rsna.draw_table(write.PhantomConfig(n_images=50, gap_group=name))
        assert table["gap"].equals(table[column] == name)
    assert not rsna.draw_table(write.PhantomConfig(n_images=50, gap_group=""))["gap"].any()


def test_an_existing_phantom_is_left_alone_and_another_folder_is_refused(small_phantom, tmp_path):
    before = digests(small_phantom)
    config = write.PhantomConfig(n_images=60, pixels=64, seed=3)
    write.write_phantom(config, small_phantom, progress=False)
    assert digests(small_phantom) == before
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="holds other files than this phantom's"):
        write.write_phantom(config, tmp_path, progress=False)


def test_the_marker_holds_the_whole_config(small_phantom):
    marker = json.loads((small_phantom / PHANTOM_MARKER).read_text())
    assert marker["data"] == "phantom" and marker["seed"] == 3 and marker["recipe"] >= 1


@pytest.mark.parametrize(
    "fields",
    [
        {"n_images": 5},
        {"seed": -1},
        {"pixels": 16},
        {"gap_group": "X"},
        {"gap_contrast": 0.0},
        {"slices": 4},
    ],
)
def test_a_config_out_of_range_is_refused_with_its_value(fields):
    (name, value), *_ = fields.items()
    with pytest.raises(InputError, match=f"phantom.{name} is {value!r}; it must be"):
        write.PhantomConfig(**fields)


def test_names_differ_whenever_the_pixels_do():
    configs = [write.PhantomConfig(), write.PhantomConfig(gap_contrast=1.0)]
    assert len({config.folder_name() for config in configs}) == 2
