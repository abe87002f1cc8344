"""One table, written in every way that people write one, is read as the same text."""

import gzip
import io

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxfair.errors import InputError
from jaxfair.tables import names, read_table, texts

ROWS = [
    ["id", "site", "score", "name"],
    ["007", "1", "0.5", "Müller"],
    ["1.0", "", "1e-3", 'a "b"'],
    ["p 2", "NA", "-2", "x, y; z"],
]
FOUND = pd.DataFrame(
    {
        "id": ["007", "1.0", "p 2"],
        "site": ["1", "", ""],
        "score": ["0.5", "1e-3", "-2"],
        "name": ["Müller", 'a "b"', "x, y; z"],
    },
    dtype=str,
)


def written(between: str, rows=ROWS, end: str = "\r\n") -> str:
    stream = io.StringIO()
    pd.DataFrame(rows).to_csv(stream, sep=between, header=False, index=False, lineterminator=end)
    return stream.getvalue()


WAYS = {
    "comma": written(",").encode(),
    "semicolon": written(";").encode(),
    "tab": written("\t").encode(),
    "bar": written("|").encode(),
    "Excel's own first line": ("sep=;\r\n" + written(";")).encode(),
    "old Mac": written(",", end="\r").encode(),
    "doubled line ends": written(",", end="\r\r\n").encode(),
    "a mark": written(",").encode("utf-8-sig"),
    "UTF-16": written("\t").encode("utf-16"),
    "UTF-16 without a mark": written(",").encode("utf-16-le"),
    "UTF-16, big end first": written(",").encode("utf-16-be"),
    "Latin-1": written(",").encode("latin-1"),
    "decomposed letters": written(",").replace("ü", "u\u0308").encode(),
    "gz": gzip.compress(written(",").encode()),
    "gz of UTF-16": gzip.compress(written(";").encode("utf-16")),
    "blanks around": written(",", [[f" {c} " for c in row] for row in ROWS]).encode(),
    "empty rows at the end": written(",").encode() + b",,,\r\n\r\n,,,\r\n",
    "empty cells beyond": written(",", [row + ["", ""] for row in ROWS]).encode(),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_table_is_read_however_it_is_written(tmp_path, way):
    (tmp_path / "t.csv").write_bytes(WAYS[way])
    said: list[str] = []
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.csv", remarks=said), FOUND)
    assert bool(said) == (way == "Latin-1")
    assert all("Latin-1" in sentence for sentence in said)


def test_excel_and_parquet_hold_the_same_text(tmp_path):
    book = openpyxl.Workbook()
    for row in ROWS:
        book.active.append(row)
    book.active["B2"] = 1  # a number where the CSV has "1"
    book.save(tmp_path / "t.xlsx")
    said: list[str] = []
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.xlsx", remarks=said), FOUND)
    assert said == []
    book.create_sheet("more")
    book.save(tmp_path / "t.xlsx")
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.xlsx", remarks=said), FOUND)
    assert "has 2 sheets; the first, 'Sheet', was read" in said[0]
    typed = pd.DataFrame(ROWS[1:], columns=ROWS[0]).assign(site=[1, None, np.nan])
    for table in (typed, typed.set_index("id")):
        table.to_parquet(tmp_path / "t.parquet")
        pd.testing.assert_frame_equal(read_table(tmp_path / "t.parquet"), FOUND)


def test_only_the_columns_that_are_wanted_are_read_and_others_may_be_twice(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,a,,c\n1,2,3,4,5\n")
    table = read_table(tmp_path / "t.csv", required=["c"], optional=["b", "z"])
    assert table.to_dict("list") == {"b": ["2"], "c": ["5"]}
    with pytest.raises(InputError, match="has the column a twice; rename one"):
        read_table(tmp_path / "t.csv")


def test_semicolons_in_a_text_do_not_make_a_table_of_semicolons(tmp_path):
    (tmp_path / "t.csv").write_text("a,b;c;d\n1,2;3\n")
    assert list(read_table(tmp_path / "t.csv", required=["a"])) == ["a", "b;c;d"]


REFUSED = {
    "t.csv": (b"", "it is empty"),
    "blank.csv": (b" \n \n", "it is empty"),
    "more.csv": (b"a,b\n1,0,5\n", "line 2, has 3 cells, its header 2; put quotes"),
    "cut.csv": (b"a,b,c\n1,2,3\n1,2", "cut off within its last line"),
    "quote.csv": (b'a,b\n"1,2\n', "quotes must come in pairs"),
    "cut.csv.gz": (gzip.compress(b"a,b\n1,2\n" * 99)[:-12], "cannot be read .*get it again"),
    "no.xlsx": (b"PK\x03\x04 no zip", "cannot be read as an Excel file.*save it as CSV"),
    "no.parquet": (b"PAR1 no parquet", "cannot be read as parquet.*write it again"),
    "old.xls": (b"\xd0\xcf\x11\xe0 old", "old Excel file; save it as .xlsx"),
    "half.csv": ("a,b".encode("utf-16") + b"\x00", "broken utf-16 text"),
    "lacks.csv": (b"sex,agee\nF,1\n", "lacks the column age; it has sex, agee.* 'agee'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_table_ends_in_one_sentence_with_the_cure(tmp_path, name):
    content, sentence = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        read_table(tmp_path / name, required=["age"] if name == "lacks.csv" else [])
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_file_of_bytes_is_refused_in_a_short_sentence(tmp_path):
    (tmp_path / "t.csv").write_bytes(bytes(range(1, 256)) * 400)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.csv", required=["y_true"])
    assert len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*give a table as \.csv"):
        read_table(tmp_path / "no.csv")
    with pytest.raises(InputError, match="cannot be read"):
        read_table(tmp_path)


def test_a_cell_of_another_type_far_down_changes_no_other_cell(tmp_path):
    """pandas reads a large CSV in pieces and guesses anew in each."""
    site = ["1"] * 150_000 + ["", "x"]
    (tmp_path / "t.csv").write_text("site,y\n" + "\n".join(f"{s},0" for s in site))
    assert set(read_table(tmp_path / "t.csv")["site"]) == {"1", "", "x"}


CELLS = st.one_of(
    st.none(),
    st.integers(-(2**53) + 1, 2**53 - 1),
    st.floats(allow_nan=True, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
    st.sampled_from(["007", "1.0", "NA", "none", " b ", "1,5", "a;b", '"', "é", "x\ty"]),
)
TYPES = [st.integers(0, 9), st.floats(-9, 9) | st.none(), st.integers(0, 3) | st.none(), CELLS]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_csv_parquet_and_memory_give_the_same_names(tmp_path, data):
    n = data.draw(st.integers(1, 5))
    frame = pd.DataFrame({"row": [f"r{i}" for i in range(n)]})
    for i, kind in enumerate(TYPES[: data.draw(st.integers(1, 4))]):
        cells = data.draw(st.lists(kind, min_size=n, max_size=n))
        frame[f"c{i}"] = pd.Series(cells, dtype=object if kind is CELLS else None)
    expected = pd.DataFrame({name: names(frame[name]) for name in frame})
    frame.to_csv(tmp_path / "t.csv", index=False)
    plain = {
        name: texts(frame[name]) if frame[name].dtype == object else frame[name] for name in frame
    }
    pd.DataFrame(plain).to_parquet(tmp_path / "t.parquet")
    for file in ("t.csv", "t.parquet"):
        found = read_table(tmp_path / file).apply(names)
        pd.testing.assert_frame_equal(found, expected)


def test_one_line_of_other_letters_renames_nobody_else(tmp_path):
    """An id decides over its patient's split, so no other row may change how it is read (P15)."""
    rows = "id,age\nMüller,40\nÖz,50\n".encode()
    (tmp_path / "t.csv").write_bytes(rows)
    before = read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(rows + "Groß,60\n".encode("cp1252"))
    after = read_table(tmp_path / "t.csv")
    assert after["id"].tolist() == [*before["id"], "Groß"] == ["Müller", "Öz", "Groß"]
