"""A page in a real browser, asked from outside: where elements lie, and what axe-core finds.

Chromium is started anew for each question and has no network to talk to. What is asked is written
into the title of a page around the report, which --dump-dom prints.
"""

import html
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
from typing import Any

import pytest

__all__ = ["AXE", "axe_findings", "browse", "in_browser", "places", "with_axe"]

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FOLDER = pathlib.Path(__file__).resolve().parents[2] / ".browser"
AXE = _FOLDER / "node_modules" / "axe-core" / "axe.min.js"
"""Where `make browser` puts axe-core."""

in_browser = pytest.mark.skipif(
    _CHROMIUM is None, reason="no chromium here; apt-get install chromium"
)
with_axe = pytest.mark.skipif(
    not (_CHROMIUM and AXE.is_file()), reason="no chromium and axe-core here; make browser"
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--allow-file-access-from-files",
)
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
_RECTS = """onload = () => { const d = f.contentDocument; document.title = JSON.stringify(
Object.fromEntries([...d.querySelectorAll('[id^=verdict-]')].map(e => {
const r = e.getBoundingClientRect(); return [e.id, [r.left, r.top, r.right, r.bottom]]; }))); }"""
_AXE = """axe.run(document, {resultTypes: ['violations']}).then(found => {
parent.document.title = JSON.stringify(found.violations.map(v =>
[v.impact, v.id, v.nodes.length, v.nodes[0].html])); });"""


def browse(page: pathlib.Path, *options: str) -> subprocess.CompletedProcess:
    """Opens a page in a browser with a profile of its own, and returns what it printed."""
    with tempfile.TemporaryDirectory() as profile:
        line = [str(_CHROMIUM), *_FLAGS, f"--user-data-dir={profile}", *options, page.as_uri()]
        return subprocess.run(line, capture_output=True, text=True, timeout=300, check=True)


def places(
    page: pathlib.Path, folder: pathlib.Path, width: int, height: int, scheme: int
) -> dict[str, list[float]]:
    """Returns left, top, right and bottom of each verdict in a window of this size, by id.

    Args:
      folder: for the page around.
      scheme: 1 for light, 0 for dark.
    """
    return _asked(page, folder, width, height, scheme, _RECTS)


def axe_findings(
    page: pathlib.Path, folder: pathlib.Path, width: int, height: int, scheme: int
) -> list[tuple[str, str, int, str]]:
    """Returns (impact, rule, elements, the first of them) of each finding of axe-core.

    The page is asked in a copy without its policy, which would keep axe-core out, and with all
    folded sections open.
    """
    text = _POLICY.sub("", page.read_text()).replace("<details>", "<details open>")
    script = f"<script>{AXE.read_text()}</script><script>{_AXE}</script></body>"
    copy = folder / "with_axe.html"
    copy.write_text(text.replace("</body>", script))
    return [tuple(found) for found in _asked(copy, folder, width, height, scheme, "")]


def _asked(
    page: pathlib.Path, folder: pathlib.Path, width: int, height: int, scheme: int, script: str
) -> Any:
    around = folder / "around.html"
    around.write_text(
        f'<iframe id=f width={width} height={height} style="border:0" src="{page.as_uri()}">'
        f"</iframe><script>{script}</script>"
    )
    done = browse(
        around,
        "--dump-dom",
        "--virtual-time-budget=60000",
        "--window-size=1600,1200",
        f"--blink-settings=preferredColorScheme={scheme}",
    )
    return json.loads(html.unescape(done.stdout.split("<title>")[1].split("</title>")[0]))
