"""Drawn files are made before the data room is asked, which then reads them as any others."""

import dataclasses

import pytest

from jaxfair.data.config import make_data_config
from jaxfair.data.dataset import open_dataset
from jaxfair.data.sources import rsna
from jaxfair.errors import InputError
from jaxfair.phantom.config import PhantomConfig
from jaxfair.phantom.write import ready

SMALL = PhantomConfig(n_images=24, pixels=32)


def test_without_a_phantom_nothing_is_drawn_and_the_config_is_the_same(tmp_path):
    data = make_data_config(root=str(tmp_path / "films"))
    assert ready(None, data) is data and not list(tmp_path.iterdir())


def test_a_phantom_lies_in_a_folder_of_its_own_and_is_opened_as_one(tmp_path):
    data = make_data_config(root=str(tmp_path), image_size=16)
    drawn = ready(SMALL, data, progress=False)
    assert drawn == dataclasses.replace(data, root=str(tmp_path / SMALL.folder_name()))
    made = open_dataset(drawn, progress=False)
    assert made.data == made.population == "phantom" and len(made) == 24
    other = ready(dataclasses.replace(SMALL, seed=1), data, progress=False)
    assert open_dataset(other, progress=False).digest != made.digest
    assert open_dataset(ready(SMALL, data), progress=False).digest == made.digest


def test_a_root_that_holds_this_very_phantom_is_taken_as_it_is(tmp_path):
    drawn = ready(SMALL, make_data_config(root=str(tmp_path)), progress=False)
    assert ready(SMALL, drawn) == drawn


def test_nothing_is_named_and_the_phantom_lies_below_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = ready(SMALL, make_data_config(), progress=False)
    assert (tmp_path / drawn.root / "phantom.json").is_file()
    assert drawn.root == f"runs/phantoms/{SMALL.folder_name()}"


def test_a_phantom_is_never_drawn_into_real_data(tmp_path):
    (tmp_path / rsna.IMAGES).mkdir()
    (tmp_path / rsna.IMAGES / "a.dcm").write_text("a film")
    with pytest.raises(InputError, match="holds images already; a PHANTOM needs a folder"):
        ready(SMALL, make_data_config(root=str(tmp_path)), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [rsna.IMAGES]


def test_a_root_that_holds_another_phantom_is_not_taken_for_this_one(tmp_path):
    drawn = ready(SMALL, make_data_config(root=str(tmp_path)), progress=False)
    with pytest.raises(InputError, match="holds images already"):
        ready(dataclasses.replace(SMALL, seed=1), drawn, progress=False)
