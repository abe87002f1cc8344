"""Names that anybody may have chosen: as files, as ids, as keys, as words on a page."""

import html.parser
import re
import string

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxfair import report
from jaxfair.errors import InputError
from jaxfair.fairness.frame import GroupFrame
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.__main__ import main
from jaxfair.report.content import Section, Table, Text
from jaxfair.report.html import as_html
from jaxfair.report.markdown import as_markdown
from jaxfair.tables import read_table
from jaxfair.tables.values import text_of
from tests.made_runs import make_run

SAFE = set(string.ascii_lowercase + string.digits + "._-")
NASTY = ["mass+", "mass-", "Mass", "mass", "質量", "质量", 'a"b', "<b>&lt;", "$x$", "_x", "a|b",
         "../up", "con", "0", "1", "*a* [b](c)"]  # fmt: skip
names = st.sampled_from(NASTY) | st.text(max_size=70)
some = st.lists(st.lists(names, min_size=1, max_size=3).map(tuple), unique=True, max_size=8)


@given(some)
def test_different_names_are_different_files_on_any_system(chosen):
    slugs = [slug(*parts) for parts in chosen]
    assert len({name.casefold() for name in slugs}) == len(chosen)
    for parts, name in zip(chosen, slugs, strict=True):
        assert set(name) <= SAFE and name == slug(*parts)
        assert len(name.split(".")) == len(parts) and not name.startswith((".", "_", "-"))
        assert max(map(len, name.split("."))) <= 60


def test_a_slug_cannot_be_forged_and_plain_names_stay_as_they_are():
    assert slug("run-1", "pleural_effusion") == "run-1.pleural_effusion"
    assert slug(slug("mass+")) != slug("mass+")
    assert slug("a.b") != slug("a", "b") and slug("", "a") != slug("a")
    assert not {slug("con"), slug("nul"), slug("com1")} & {"con", "nul", "com1"}


class _Reader(html.parser.HTMLParser):
    """Ids, tags and the text of cells, as a browser finds them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        found = dict(attrs)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if tag == "a" else []
        self.inside = tag in ("td", "th")
        self.cells += [""] if self.inside else []

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self.inside:
            self.cells[-1] += data


def _unescaped(line: str) -> str:
    """What a Markdown reader shows of a cell."""
    text = re.sub(r"\\([\\`*|~_()\[])", r"\1", line)
    return text.replace("&lt;", "<").replace("&amp;", "&")


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(chosen=st.lists(names.map(text_of).filter(len), unique=True, min_size=1, max_size=5))
def test_every_word_of_a_page_is_the_word_that_was_given(tmp_path, chosen):
    page = [Section(chosen[0], [Text(chosen[-1])])]
    for name in chosen:
        table = pd.DataFrame({name: chosen}, dtype=str)
        page.append(Section(name, [Table(slug("run", name), table, name), Text(name, strong=True)]))
    found = _Reader(as_html(page))
    assert len(set(found.ids)) == len(found.ids) and found.tags.isdisjoint({"script", "b", "em"})
    assert [link[1:] for link in found.links] == found.ids
    assert found.cells == [cell for name in chosen for cell in (name, *chosen)]
    text = as_markdown(page, tmp_path)
    rows = [line for line in text.split("\n") if re.fullmatch(r"\| .* \|", line)]
    shown = [_unescaped(row[2:-2]) for row in rows if row != "| --- |"]
    assert shown == [" ".join(cell.split()) for name in chosen for cell in (name, *chosen)]
    assert not any(re.search(r"(?<!\\)\|", row[2:-2].replace("\\\\", "")) for row in rows)
    for name in chosen:
        stored = read_table(tmp_path / "tables" / f"{slug('run', name)}.csv", required=[name])
        assert list(stored) == [name] and stored[name].tolist() == chosen


TASKS = ["mass+", "mass-", "質量", 'a"b', "0"]
GROUPS = ["$a$ $b$", "_hidden", "質量", '"', "all", "overall", "UNKNOWN", "too few"]
COLUMNS = ["group", 'a"b']


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    root = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    n = 4 * len(GROUPS)
    rows = {
        "image_id": [f"i/{i}" for i in range(n)],
        "split": ["validation", "test", "test", "test"] * (n // 4),
    }
    rows |= {name: np.repeat(GROUPS, 4)[rng.permutation(n)] for name in COLUMNS}
    tasks = [
        pd.DataFrame({**rows, "task": task, "y_true": np.arange(n) % 2, "y_score": rng.random(n)})
        for task in TASKS
    ]
    pd.concat(tasks).to_csv(root / "Näme 1.csv", index=False)
    argv = ["report", "--predictions", str(root / "Näme 1.csv"), "--out", str(root / "out")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "as_png", lambda figure: b"")  # half of the time, and no names in it
        assert main([*argv, "--groups", ",".join(COLUMNS), "--bootstraps", "2"]) == 0
    return root / "out"


def test_every_task_has_files_of_its_own_with_its_own_rows(reported):
    tables = sorted(path.name for path in (reported / "tables").glob("*.headline.csv"))
    assert tables == sorted(f"{slug('Näme 1.csv', task)}.headline.csv" for task in TASKS)
    for task in TASKS:
        found = read_table(reported / "tables" / f"{slug('Näme 1.csv', task)}.headline.csv")
        assert set(found["attribute"]) == {"overall", *COLUMNS}
        expected = {"unknown" if g == "UNKNOWN" else g for g in GROUPS}
        assert set(found.loc[found["attribute"] == "group", "group"]) == expected
        assert found["n"].ne("").all()


def test_the_page_of_such_names_is_whole(reported):
    found = _Reader((reported / "report.html").read_text())
    own = [
        name for name in found.ids if re.fullmatch(r"s\d+|.*\.(roc|scores|heat|calibration)", name)
    ]
    assert len(set(own)) == len(own) and {link[1:] for link in found.links} <= set(own)
    assert found.tags.isdisjoint({"b", "em", "script"})
    text = (reported / "report.md").read_text()
    for path in (reported / "plots").iterdir():
        assert f"(plots/{path.name})" in text
    assert len(list((reported / "plots").iterdir())) == text.count("](plots/")


def test_a_group_called_anything_is_in_the_legend_as_it_is():
    rows = pd.DataFrame({"y_true": [0, 1] * 60, "y_score": range(120)})
    frame = GroupFrame(rows.assign(site=np.repeat(["$a$ $b$", "_x"], 60)), "site")
    svg = plots.as_svg(plots.roc_by_group(frame), "a")
    assert ">$a$ $b$ 0.517<" in svg and "> _x 0.517<" in svg


@pytest.mark.parametrize("groups", ["sex,sex", "sex, sex ,overall", "overall"])
def test_a_group_asked_for_twice_is_shown_once_and_overall_is_always_there(tmp_path, groups):
    rows = ["y_true,y_score,sex", *(f"{i % 2},{i * 7 % 10},{'FM'[i % 3 == 0]}" for i in range(20))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    argv = ["report", f"--predictions={tmp_path / 't.csv'}", f"--groups={groups}"]
    assert main([*argv, f"--out={tmp_path / 'o'}", "--bootstraps=2"]) == 0
    found = read_table(tmp_path / "o" / "tables" / f"{slug('t.csv', 'score')}.headline.csv")
    assert found["attribute"].tolist() == ["overall"] + ["sex", "sex"] * ("sex" in groups)


@pytest.mark.parametrize("name", ["task", "y_true", "y_score", "image_id", "patient_id", "split"])
def test_a_column_that_is_no_attribute_forms_no_groups(tmp_path, capsys, name):
    (tmp_path / "t.csv").write_text("y_true,y_score\n0,1\n1,2\n")
    argv = ["report", f"--predictions={tmp_path / 't.csv'}", f"--groups={name}"]
    assert main([*argv, f"--out={tmp_path / 'o'}"]) == 2
    assert f"Column {name} is no attribute of patients" in capsys.readouterr().err


def test_a_column_called_overall_is_refused_where_it_is_asked_for(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("y_true,y_score,overall\n0,1,a\n1,2,b\n")
    argv = ["report", f"--predictions={tmp_path / 't.csv'}", f"--out={tmp_path / 'o'}"]
    assert main([*argv, "--groups=overall"]) == 2
    assert "The column 'overall' has the name that all rows have" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other"), [(["a x", "b"], ["y", "y"]), (["a", "b"], ["x y", "z"]), (["a x b"], ["y"])]
)
def test_values_that_would_make_two_intersections_one_are_refused(one, other):
    n = 4 // len(one)
    rows = pd.DataFrame({"y_true": [0, 1] * 2, "y_score": range(4), "p": one * n, "q": other * n})
    with pytest.raises(InputError, match="whose 'x' would be taken for an intersection's"):
        GroupFrame(rows, "p x q")
    assert GroupFrame(rows.assign(p="x", q=["x", "b"] * 2), "p x q").groups == ["x x b", "x x x"]


def test_runs_in_folders_of_one_name_are_told_apart(tmp_path):
    one = make_run(tmp_path / "seed1" / "run", n=200, seed=1, maps=False)
    other = make_run(tmp_path / "seed2" / "run", n=200, seed=2, epsilon=None, maps=False)
    out = report.run([one, other], tmp_path / "out")
    for name in ("seed1/run", "seed2/run"):
        assert (out / "tables" / f"{slug(name, 'anomaly')}.headline.csv").exists()
    found = read_table(out / "tables" / "_comparison.anomaly.auroc.csv")
    assert list(found) == ["group", "seed1/run (epsilon 8)", "seed2/run (no DP)"]


@pytest.mark.parametrize("change", ["none", "labels", "patients"])
def test_runs_that_contradict_each_other_have_no_report(tmp_path, capsys, change):
    folders = [make_run(tmp_path / name, n=200, seed=s, maps=False) for s, name in enumerate("ab")]
    rows = pd.read_parquet(folders[0 if change == "none" else 1] / "predictions.parquet")
    if change == "labels":
        rows["y_true"] = 1 - rows["y_true"]
    if change == "patients":
        rows["patient_id"] = rows["image_id"]
    rows.to_parquet(folders[1] / "predictions.parquet")
    sentence = {
        "none": "a and b have the same score for every image of task 'anomaly'",
        "labels": "Image 'i0' has y_true 0 in a and 1 in b for task 'anomaly' (200 such images)",
        "patients": "Image 'i0' has patient_id '0' in a and 'i0' in b (200 such images)",
    }[change]
    assert main(["report", *map(str, folders), f"--out={tmp_path / 'o'}"]) == 2
    printed = capsys.readouterr().err.strip()
    assert "\n" not in printed and not (tmp_path / "o").exists()
    assert sentence in printed
