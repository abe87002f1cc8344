"""One static page of the highest scores: no script, no request, every text escaped."""

import base64
import heapq
import itertools
import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np

from jaxfair import files
from jaxfair.model_file.model import Model
from jaxfair.predict.output import picture_bytes
from jaxfair.schema import CAUTION, PHANTOM

__all__ = ["SHOWN", "Highest", "write"]

DRAWN = "PHANTOM: the model was trained on images drawn by a program, and knows no patient."
SHOWN = 24
"""Cases of a label that are shown."""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ name }}: highest scores</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 0 auto; padding: 1rem; }
h1, h2, figcaption { overflow-wrap: anywhere; }
.caution { border-left: 4px solid #c0392b; padding: .3rem 1rem; font-weight: 600; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; }
figure { margin: 0; } img { width: 100%; image-rendering: pixelated; background: #000; }
figcaption { font-size: .85rem; }
</style></head><body>
<h1>{{ name }}: highest scores</h1>
<p class="caution">{{ caution }}{% if drawn %} {{ drawn }}{% endif %}</p>
<p>{{ rows }} scores; {{ aside|length }} files set aside. Images of patients: do not pass on.
{%- if dicom %}
Files in dicom/ name the patient and are as identifying as the input.
{%- endif %}
{%- if maps %}
A map stands beside its image, black up to its median and white at its own highest value.
{%- endif %}</p>
{% for task, cases in tasks %}<h2>{{ task }}</h2>
<div class="cases">{% for case in cases %}
<figure><img alt="{{ case.row.image_id }}, score {{ '%.3g'|format(case.row.score) }}"
 src="data:image/png;base64,{{ case.picture }}">
<figcaption>{{ case.row.image_id }}: {{ '%.4g'|format(case.row.score) }}
{%- if case.row.threshold_of %},
{{ 'at or above' if case.row.positive else 'below' }} {{ '%.4g'|format(case.row.threshold) }}
({{ case.row.threshold_of }}){% endif %}{% if case.row.notes %}<br>{{ case.row.notes }}{% endif %}
</figcaption></figure>{% endfor %}
</div>{% endfor %}
{% if aside %}<h2>Set aside</h2><ul>{% for one in aside %}
<li>{{ one.image_id }}: {{ one.reason }}</li>{% endfor %}</ul>{% endif %}
</body></html>
"""


class Shown(NamedTuple):
    """A case on the page: its row of the predictions, and a PNG as base64."""

    row: dict[str, Any]
    picture: str


class Highest:
    """The SHOWN cases of each label with the highest scores; what is lower is let go."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[float, int, Shown]]] = {}
        self._count = itertools.count()

    def offer(self, row: dict[str, Any], pixels: np.ndarray, maps: np.ndarray | None) -> None:
        """Takes a case if it is among the highest of its label; NaN never is."""
        kept, score = self._kept.setdefault(row["task"], []), row["score"]
        if math.isnan(score):
            return
        if len(kept) == SHOWN and not score > kept[0][0]:
            return
        picture = base64.b64encode(picture_bytes(pixels, maps)).decode()
        entry = (score, next(self._count), Shown(row, picture))
        if len(kept) == SHOWN:
            heapq.heapreplace(kept, entry)
        else:
            heapq.heappush(kept, entry)

    def tasks(self) -> list[tuple[str, list[Shown]]]:
        """Returns (task, cases), the highest first."""
        return [(t, [case for *_, case in sorted(kept, key=lambda entry: -entry[0])])
                for t, kept in sorted(self._kept.items())]  # fmt: skip


def write(
    path: pathlib.Path,
    model: Model,
    highest: Highest,
    rows: int,
    aside: Sequence[dict[str, str]],
    *,
    dicom: bool = False,
) -> None:
    """Writes the page, whole; with `dicom` it says what files of that folder tell."""
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(_PAGE)
    text = page.render(
        name=model.about["name"],
        caution=CAUTION,
        drawn=DRAWN if model.about["data"] == PHANTOM else "",
        rows=rows,
        aside=aside,
        dicom=dicom,
        maps=model.about["maps"] and model.about["images"]["kind"] == "picture",
        tasks=highest.tasks(),
    )
    files.write_text(path, text)
