"""Which cases a line of inputs names."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxfair.errors import InputError
from jaxfair.predict.cases import cases_of, named_apart


def film(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    return path


def slices(folder, count=2):
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i}.dcm").write_bytes(bytes(128) + b"DICM")


def names(cases):
    return [case.name for case in cases]


def test_a_folder_is_looked_through_and_what_is_hidden_is_passed_over(tmp_path):
    for name in ("b/2.png", "b/1.png", "a.png", ".hidden.png", ".git/x.png", "b/Thumbs.db"):
        film(tmp_path / name) if name.endswith("png") else (tmp_path / name).write_bytes(b"x")
    assert names(cases_of([str(tmp_path)], "picture", [])) == ["a.png", "b/1.png", "b/2.png"]


def test_a_link_to_a_folder_is_not_followed(tmp_path):
    film(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert names(cases_of([str(tmp_path / "in")], "picture", [])) == ["a.png"]


def test_cases_of_one_name_are_told_apart_and_one_file_is_one_case(tmp_path):
    one, two = film(tmp_path / "x" / "a.png"), film(tmp_path / "y" / "a.png")
    found = cases_of([str(one.parent), str(two.parent), str(one.parent)], "picture", [])
    assert names(found) == ["a.png", str(two)] and [c.path for c in found] == [str(one), str(two)]


def test_of_volumes_a_folder_of_slices_is_one_case_and_other_volumes_are_each_one(tmp_path):
    slices(tmp_path / "patient 1" / "ct")
    np.save(tmp_path / "v.npy", np.zeros((2, 2, 2)))
    (tmp_path / "notes.txt").write_text("x")
    found = names(cases_of([str(tmp_path)], "volume", []))
    assert found == ["notes.txt", "v.npy", "patient 1/ct"]
    alone = cases_of([str(tmp_path / "patient 1" / "ct")], "volume", [])
    assert names(alone) == ["ct"]


def test_a_table_names_cases_and_what_is_known_of_them(tmp_path):
    (tmp_path / "t.csv").write_text("Path,Sex,Age,race,other\nf\\a.png,F,40,Asian,1\nb.png,,,,2\n")
    first, second = cases_of([str(tmp_path / "t.csv")], "picture", ["sex", "race"])
    assert first.name == "f/a.png" and first.path == str(tmp_path / "f/a.png")
    assert first.texts == {"sex": "F", "age": "40", "race": "Asian"}
    assert second.texts == {}


def test_columns_of_other_names_are_named(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("datei,geschlecht,nummer\na.png,weiblich,7\n")
    with pytest.raises(InputError, match=r"no column of paths.*--columns image=COLUMN"):
        cases_of([str(table)], "picture", [])
    columns = {"image": "datei", "sex": "geschlecht", "id": "nummer"}
    (case,) = cases_of([str(table)], "picture", [], columns)
    assert case.name == "7" and case.texts == {"sex": "weiblich"}
    with pytest.raises(InputError, match="no column 'view'"):
        cases_of([str(table)], "picture", [], {"image": "datei", "view": "view"})


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no"):
        cases_of([str(tmp_path / "x.png")], "picture", [])
    with pytest.raises(InputError, match="no file in it"):
        cases_of([str(tmp_path)], "picture", [])


def of_table(tmp_path, text, *others):
    (tmp_path / "t.csv").write_text(text)
    return cases_of([*others, str(tmp_path / "t.csv")], "picture", ["sex", "race"])


def test_rows_that_gainsay_each_other_about_one_file_are_set_aside_with_the_reason(tmp_path):
    """Whichever row came first used to win, and with it a threshold."""
    rows = "path,sex,race\na.png,F,Asian\nb.png,F,\n./a.png,M,Asian\n"
    a, b = of_table(tmp_path, rows)
    assert a.wrong == "a.png: sex is 'F' in row 2 of t.csv and 'M' in row 4 of t.csv; " + (
        "correct the table."
    )
    assert (b.name, b.wrong, b.texts) == ("b.png", "", {"sex": "F"})
    (case,) = of_table(tmp_path, "path,sex,race\na.png,F,Asian\na.png,F,Black\n")
    assert "race is 'Asian' in row 2" in case.wrong
    both = of_table(tmp_path, "id,path,sex\n1,a.png,F\n2,a.png,M\n")
    assert names(both) == ["1", "2"] and all(case.wrong for case in both)


def test_rows_that_agree_about_one_file_are_one_case_with_all_that_they_say(tmp_path):
    (case,) = of_table(tmp_path, "path,sex,age\na.png,F,\na.png,weiblich,40\na.png,,40.0\n")
    assert case.texts == {"sex": "F", "age": "40"} and not case.wrong
    film(tmp_path / "in" / "a.png")
    rows = "id,path,sex\n7,in/a.png,F\n"
    (case,) = of_table(tmp_path, rows, str(tmp_path / "in"))  # a folder does not hide the table
    assert case.name == "7" and case.texts == {"sex": "F"}


def test_a_row_without_a_path_is_set_aside_by_its_number(tmp_path):
    first, second, third = of_table(tmp_path, "id,path,sex\n1,,F\n,N/A,F\n2,a.png,F\n")
    assert names([first, second, third]) == ["1", "row 3 of t.csv", "2"]
    assert first.wrong == "row 2 of t.csv has no path in the column 'path'; fill it in."
    assert second.wrong.startswith("row 3 of t.csv has no path") and not third.wrong


def test_a_case_never_takes_the_name_of_another(tmp_path):
    """The second a.png is called by its path, which is the name of a row."""
    taken = str(tmp_path / "y" / "a.png")
    rows = f"id,path\na.png,x/a.png\n{taken},z.png\na.png,y/a.png\na.png,w.png\n"
    found = of_table(tmp_path, rows)
    assert len(found) == len(set(names(found))) == 4
    assert [pathlib.Path(c.path).name for c in found] == ["a.png", "z.png", "a.png", "w.png"]


def test_an_id_that_two_rows_have_is_not_lost(tmp_path):
    """A join by image_id would miss the second without a word."""
    first, second = of_table(tmp_path, "id,path\n7,a.png\n7,b.png\n")
    assert (first.name, first.said) == ("7", "")
    assert second.name == str(tmp_path / "b.png")
    assert second.said == "It is called '7' in row 3 of t.csv, and so is another case."
    assert named_apart([second], ()) == [second]
