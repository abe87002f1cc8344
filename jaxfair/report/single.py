"""One run as a report sees it: predictions, tables, and the statement that heads every report."""

import dataclasses
import pathlib
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from jaxfair.fairness.frame import GroupFrame, MetricFn
from jaxfair.fairness.groups import OVERALL, natural
from jaxfair.files import slug
from jaxfair.report import plots
from jaxfair.report.mitigated import cost_lines
from jaxfair.report.statement import caveats, of_number, opening, price
from jaxfair.schema import PHANTOM

__all__ = ["Run"]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run folder holds.

    Attributes:
      name: folder name, or file name for predictions from elsewhere.
      path: where it was read.
      predictions: checked rows (docs/contracts.md).
      fairness: the table of fairness.csv.
      privacy: privacy.json; None only for predictions from elsewhere.
      config, env, card, model: the further JSON files, {} where absent.
      thresholds: thresholds.json, or fitted anew on the validation rows.
      leakage: what probes read from the embedding (leakage.csv); None where it was not probed.
      remarks: sentences about what was lost in reading the predictions, for the page.
      scales: scales.json, of scores that were brought to one scale for groups; {} elsewhere.
      site: site.json, where a trained run was scored on a second site's data; {} elsewhere.
    """

    name: str
    path: pathlib.Path
    predictions: pd.DataFrame
    fairness: pd.DataFrame
    privacy: dict[str, Any] | None
    config: dict[str, Any]
    env: dict[str, Any]
    card: dict[str, Any]
    thresholds: dict[str, dict[str, Any]]
    model: dict[str, Any] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    site: dict[str, Any] = dataclasses.field(default_factory=dict)
    leakage: pd.DataFrame | None = None
    scales: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def tasks(self) -> list[str]:
        """The tasks with test rows, in natural order."""
        test = self.predictions[self.predictions["split"] == "test"]
        return sorted(test["task"].astype(str).unique(), key=natural)

    @property
    def attributes(self) -> list[str]:
        """The attributes of the table, without 'overall', in its order."""
        names = self.fairness["attribute"].drop_duplicates()
        return [str(name) for name in names if name != OVERALL]

    @property
    def phantom(self) -> bool:
        """True if the images that were scored are made up."""
        about = self.site or self.privacy
        return about is not None and about.get("data") == PHANTOM

    @property
    def epsilon(self) -> float | None:
        """The epsilon spent, or None without a guarantee."""
        value = None if self.privacy is None else self.privacy.get("epsilon")
        return None if value is None else float(value)

    @property
    def needs(self) -> tuple[str, ...] | None:
        """What the model needs at test time beside the image; None where nothing says."""
        return tuple(self.model.get("needs", ())) if self.model else None

    @property
    def seed(self) -> Any:
        """The seed of the config, or 'unknown'."""
        return _find(self.config, "seed", "unknown")

    def rows(self, task: str | None = None, split: str = "test") -> pd.DataFrame:
        """Returns the rows of one task (the first one by default) and split."""
        chosen = self.tasks[0] if task is None else task
        table = self.predictions
        return table[(table["task"] == chosen) & (table["split"] == split)].reset_index(drop=True)

    def frame(self, attribute: str, task: str | None = None, **options: Any) -> GroupFrame:
        """Returns the test rows of one task sliced by an attribute."""
        chosen = self.tasks[0] if task is None else task
        thresholds = self.thresholds.get(chosen, {})
        return GroupFrame(self.rows(chosen), attribute, thresholds=thresholds, **options)

    def by_group(self, attribute: str, metric: MetricFn | str = "auroc") -> pd.DataFrame:
        """Returns a metric by group: from the table by name, or any f(y_true, y_score).

        Columns value, ci_low, ci_high, n, n_images, n_positive for a name of the table;
        value alone for a function.
        """
        if callable(metric):
            return self.frame(attribute).by_group(metric).to_frame("value")
        table = self.fairness
        rows = table[(table["attribute"] == attribute) & (table["metric"] == metric)]
        columns = ["value", "ci_low", "ci_high", "n", "n_images", "n_positive"]
        return rows[rows["task"] == self.tasks[0]].set_index("group")[columns]

    def plot_roc(self, attribute: str, task: str | None = None) -> Figure:
        """Returns the ROC curves of the groups of an attribute."""
        return plots.roc_by_group(self.frame(attribute, task))

    def plot_scores(self, attribute: str, task: str | None = None) -> Figure:
        """Returns the score histograms of the groups of an attribute."""
        chosen = self.tasks[0] if task is None else task
        return plots.histogram_by_group(self.frame(attribute, task), self.threshold(chosen))

    def threshold(self, task: str) -> float:
        """Returns the threshold of a label's decisions (Youden, from validation), or NaN."""
        value = self.thresholds.get(task, {}).get("youden")
        return float("nan") if value is None else float(value)

    def maps(self, *, with_images: bool = False) -> dict[str, bytes]:
        """Returns {image id: PNG of the image and its anomaly map}, if there are any.

        Pixels are patients: those of real data come out only `with_images`.
        """
        if not (with_images or self.phantom):
            return {}
        ids = {slug(image): image for image in self.predictions["image_id"].unique()}
        paths = sorted((self.path / "maps").glob("*.png"), key=lambda path: natural(path.stem))
        return {ids.get(path.stem, path.stem): path.read_bytes() for path in paths}

    def title(self) -> str:
        """Returns one line: the name, and PHANTOM where the images are made up."""
        return f"PHANTOM data: {self.name}" if self.phantom else self.name

    def opening(self) -> list[str]:
        """Returns the first lines of every report: what the guarantee covers, and what not."""
        return opening(self.name, self.privacy, self.site.get("lines", ()), self.phantom)

    def statement(self) -> list[str]:
        """Returns all that is to be said of the run before its numbers."""
        lines = self.opening()
        if self.privacy is None:
            return lines
        lines += [*price(self.privacy), *caveats(self.privacy), self.provenance()]
        lines += [self.model["note"]] if "note" in self.model else []
        lines += cost_lines(self.privacy, self.model)
        return [*lines, *([self.at_test_time()] if self.model else [])]

    def provenance(self) -> str:
        """Returns the claim in numbers, rounded up, and which seed and code made the run."""
        claim = self.privacy or {}
        commit = self.env.get("commit") or "unknown"
        return (
            f"epsilon {of_number(claim.get('epsilon'))}, delta {of_number(claim.get('delta'))},"
            f" unit {claim.get('unit', 'unknown')}, seed {self.seed}, commit {commit}."
        )

    def at_test_time(self) -> str:
        """Returns what the model needs to score an image, as a sentence."""
        if self.needs is None:
            return f"What {self.name} needs at test time is not known."
        if not self.needs:
            return "At test time the model needs the image alone."
        return f"At test time the model needs, beside the image: {', '.join(self.needs)}."


def _find(tree: Any, key: str, default: Any) -> Any:
    """The value of `key`, nearest to the root of nested dicts."""
    level = [tree]
    while level:
        for node in level:
            if isinstance(node, dict) and key in node and not isinstance(node[key], dict):
                return node[key]
        level = [v for node in level if isinstance(node, dict) for v in node.values()]
    return default
