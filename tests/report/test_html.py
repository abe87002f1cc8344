"""The HTML report in a real browser: nothing from outside, nothing cut off, light and dark."""

import html.parser
import pathlib

import numpy as np
import pytest
from PIL import Image

from jaxfair import report
from jaxfair.report.__main__ import main
from tests.made_runs import make_run
from tests.report.browser import axe_findings, browse, in_browser, places, with_axe

SIZES = [(1280, 900), (390, 844)]
SCHEMES = {"light": 1, "dark": 0}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("html")
    rates = {"0.01": 0.1381, "0.001": 0.0393}
    every = ("sex", "sex x age_group")
    run = make_run(root / "private", attributes=every, true_positive_rates=rates)
    return report.run([run], root / "out") / "report.html"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("html2")
    rates = {"0.01": 0.1381, "0.001": 0.0393}
    runs = [
        make_run(root / "plain", n=400, epsilon=None, maps=False),
        make_run(root / "private", n=400, seed=1, maps=False, true_positive_rates=rates),
    ]
    return report.run(runs, root / "out") / "report.html"


class _Reader(html.parser.HTMLParser):
    """Collects what a browser would fetch, all ids, and tags left open."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [found["id"]] if "id" in found else []
        if tag != "a":
            names = ("src", "href", "xlink:href", "srcset", "data")
            self.fetched += [found[name] for name in names if name in found]


def test_the_page_fetches_nothing_and_runs_nothing(page):
    reader = _Reader()
    reader.feed(page.read_text())
    assert reader.scripts == 0
    outside = [url for url in reader.fetched if not url.startswith(("data:", "#"))]
    assert outside == []
    assert "@import" not in page.read_text()


def test_ids_are_unique_so_that_figures_do_not_borrow_from_each_other(page):
    reader = _Reader()
    reader.feed(page.read_text())
    own = [name for name in reader.ids if not name.startswith("DejaVu")]
    twice = {name for name in own if own.count(name) > 1}
    assert not {name for name in twice if not _is_matplotlib_group(name)}


def _is_matplotlib_group(name: str) -> bool:
    """Groups such as axes_1 repeat in every figure and nothing refers to them."""
    return name.rsplit("_", 1)[-1].isdigit()


def test_words_from_files_cannot_become_markup(tmp_path):
    table = tmp_path / "t.csv"
    rows = [f"{i % 2},{i},<script>alert(1)</script>" for i in range(20)]
    table.write_text("y_true,y_score,site\n" + "\n".join(rows))
    argv = ["report", "--predictions", str(table), "--groups", "site", "--out", str(tmp_path)]
    assert main([*argv, "--bootstraps", "5"]) == 0
    text = (tmp_path / "report.html").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


@in_browser
@pytest.mark.parametrize(
    ("width", "scheme", "paper"),
    [(1280, 1, 255), (390, 0, 24)],
    ids=["desktop in light", "phone in dark"],
)
def test_the_page_renders_without_a_word_on_the_console(page, tmp_path, width, scheme, paper):
    shot = tmp_path / "shot.png"
    done = browse(
        page,
        f"--screenshot={shot}",
        f"--window-size={width},2400",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    assert "CONSOLE" not in done.stderr
    pixels = np.asarray(Image.open(shot).convert("L"))
    assert pixels.shape == (2400, width)
    assert abs(int(np.median(pixels)) - paper) < 10
    assert pixels.std() > 10


@in_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_but_tables_scrolls_sideways(page, tmp_path, width):
    probe = tmp_path / "probe.html"
    probe.write_text(
        f'<iframe id=f width={width} height=900 src="{page.as_uri()}"></iframe><script>'
        "onload = () => { const d = f.contentDocument.documentElement;"
        " document.title = `wide ${d.scrollWidth} of ${d.clientWidth}`; }</script>"
    )
    done = browse(probe, "--dump-dom", "--virtual-time-budget=5000", "--window-size=1600,1000")
    found = done.stdout.split("<title>")[1].split("</title>")[0].split()
    assert int(found[1]) <= int(found[3]), found


@in_browser
@pytest.mark.parametrize("which", ["page", "comparison"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_three_verdicts_lie_on_the_first_screen(
    request, tmp_path, which, scheme, width, height
):
    page = request.getfixturevalue(which)
    found = places(page, tmp_path, width, height, SCHEMES[scheme])
    assert set(found) == {"verdict-good", "verdict-fair", "verdict-private"}
    for left, top, right, bottom in found.values():
        assert 0 <= left < right <= width and 0 <= top < bottom <= height, found


@with_axe
@pytest.mark.parametrize("which", ["page", "comparison"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_axe_has_no_serious_finding(request, tmp_path, which, scheme, width, height):
    page = request.getfixturevalue(which)
    found = axe_findings(page, tmp_path, width, height, SCHEMES[scheme])
    assert [one for one in found if one[0] in ("serious", "critical")] == []
