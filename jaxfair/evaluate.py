"""Scores a trained run again, there or on a second site's data, and writes its report.

    jaxfair evaluate --workdir RUN
    jaxfair evaluate --workdir RUN --config.data.source=mimic_cxr --config.data.root=DIR --out DIR
    jaxfair evaluate --workdir RUN --config table_resnet --config.data.table.file=... --out DIR
    jaxfair evaluate --workdir RUN --release.epsilon=1

A second site is another source, or the run's with other fields of `data`; with --config its
section `data` is that config's. Labels are matched by name, images prepared as the run's, and
thresholds are the run's. Everybody there is tested, but for those who trained or validated in the
run; --config.data.split=RULE takes that rule's test set alone. Nothing in RUN changes.
--calibrate-by ATTRIBUTE also brings scores of its groups to one scale, by validation images without
the finding. --release.epsilon writes RUN/release instead: tables that may be published.

Validation and test images become `predictions.parquet`, one row per image and task; what
is right of that table (thresholds, groups, intervals) needs neither jax nor this file.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict
from PIL import Image

from jaxfair import files, report
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, sections, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.optim import averaged_params
from jaxfair.errors import InputError
from jaxfair.fairness.normal_scores import fit_scales, write_scales
from jaxfair.fairness.predictions import checked
from jaxfair.fairness.table import fairness_table, fit_thresholds
from jaxfair.privacy.seals import digests
from jaxfair.publish.flags import FLAGS, asks_release, release_command
from jaxfair.run.folder import RunFolder
from jaxfair.run.log import Board
from jaxfair.schema import CROSSED, PHANTOM
from jaxfair.scores import evaluated_rows, predictions_table, score_rows
from jaxfair.site import Asked, Site, config_of_run, config_to_change, open_site
from jaxfair.start import description, open_data, trained_assembly

__all__ = ["COMMAND", "main", "run", "run_site", "score_rows"]

_MAPS = 12


def run(
    config: ConfigDict,
    workdir: str | os.PathLike[str],
    *,
    with_images: bool = False,
    calibrate_by: str = "",
    progress: bool = True,
) -> None:
    """Writes predictions, thresholds, the fairness table and, where allowed, anomaly maps.

    Maps are images of patients: they are written for phantom data or `with_images` only. Scores on
    one scale for the groups of `calibrate_by` are written beside, or removed where it is "".

    Raises InputError where somebody else trains or evaluates in the folder, and for an attribute
    that is not there.
    """
    settings, folder = settings_from_config(config), RunFolder(pathlib.Path(workdir))
    dataset = open_data(settings, progress=progress)
    if not folder.path.is_dir():
        raise InputError(f"{folder.path} holds no run; train one first.")
    with folder.locked():
        scored = _scored(settings, folder, dataset, progress=progress)
        scales = fit_scales(scored.predictions, calibrate_by) if calibrate_by else {}
        groups, show = [*settings.data.attributes, CROSSED], with_images or dataset.data == PHANTOM
        thresholds = fit_thresholds(scored.predictions, attributes=groups)
        files.write_json(folder.thresholds, thresholds)
        table = _write(settings, folder, dataset, scored, thresholds, groups, with_maps=show)
        write_scales(scored.predictions, scales, folder.scales, folder.calibrated)
        if settings.train.tensorboard:
            _write_board(folder, table, scored.step, private=settings.dp.enabled)


def run_site(
    workdir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    asked: Asked,
    *,
    with_images: bool = False,
    progress: bool = True,
) -> RunFolder:
    """Scores a run on a second site's data and writes all of it, and a report, into `out`.

    The run's folder is read and never written: thresholds are its own, and so is the claim.

    Raises InputError as `site.open_site`, where `out` holds something else or lies in the run,
    and where the run has not been evaluated or somebody is at work in it.
    """
    folder, target = RunFolder(pathlib.Path(workdir)), RunFolder(pathlib.Path(out))
    settings = settings_from_config(config_of_run(folder))
    with folder.read():
        for path in (folder.privacy, folder.thresholds, folder.data_card):
            if not path.is_file():
                raise InputError(
                    f"{folder.path} has no {path.name}, which a second site is scored with: end "
                    f"the run with python -m jaxfair.evaluate --workdir={folder.path} first."
                )
        _check_free(folder, target)
        site = open_site(settings, folder, asked, progress=progress)
        about = _about_site(folder, site)
        _check_same(target, about)
        scored = _scored(settings, folder, site.dataset, progress=progress)
    target.path.mkdir(parents=True, exist_ok=True)
    with target.locked():
        files.write_json(target.site, about)
        for ours, theirs in (
            (target.privacy, folder.privacy),
            (target.thresholds, folder.thresholds),
        ):
            files.write_bytes(ours, theirs.read_bytes())
        show = with_images or site.dataset.data == PHANTOM
        thresholds, groups = files.read_json(folder.thresholds), [*site.attributes, CROSSED]
        _write(settings, target, site.dataset, scored, thresholds, groups, with_maps=show)
    report.run([target.path], target.path, with_images=with_images)
    return target


class _Scored(NamedTuple):
    """What a run says of images: a row per image and task; maps of the rows, or None; its step.

    `model` is what model.json says of it.
    """

    predictions: pd.DataFrame
    maps: np.ndarray | None
    rows: np.ndarray
    step: int
    model: dict[str, Any]


def _scored(settings: Settings, folder: RunFolder, dataset: Dataset, *, progress: bool) -> _Scored:
    stage, trained = trained_assembly(settings, folder)
    method, frozen = stage.method, jax.device_get(stage.frozen)
    rows = evaluated_rows(dataset, method)
    params = jax.device_get(averaged_params(trained.params, trained.opt_state))
    distinct = np.unique(rows["row"])
    scores = score_rows(method, params, frozen, dataset, distinct, progress=progress)
    maps = scores.pop("maps", None)
    predictions = predictions_table(dataset, rows, scores)
    checked(predictions)  # before anything of it is written
    model = description(settings) | {"embeds": method.embed is not None}  # what can be probed
    if learned := method.learned(params, frozen) if method.learned else "":
        model["note"] = f"{model['note']} {learned}"
    return _Scored(predictions, maps, distinct, int(trained.step), model)


def _write(
    settings: Settings,
    folder: RunFolder,
    dataset: Dataset,
    scored: _Scored,
    thresholds: dict[str, Any],
    attributes: Sequence[str],
    *,
    with_maps: bool,
) -> pd.DataFrame:
    """Writes predictions, card, model, maps and the fairness table, which is returned."""
    files.write_table(folder.predictions, scored.predictions)
    files.write_json(folder.data_card, dataset.card)
    files.write_json(folder.model, scored.model)
    table = fairness_table(
        scored.predictions, thresholds=thresholds, attributes=attributes, seed=settings.seed
    )
    files.write_table(folder.fairness, table)
    if scored.maps is not None and with_maps:
        _write_maps(folder, dataset, scored.predictions, scored.rows, scored.maps)
    return table


def _about_site(folder: RunFolder, site: Site) -> dict[str, Any]:
    """site.json: what was scored where, in sentences and in digests."""
    return {
        "run": folder.path.resolve().name,
        "lines": site.lines,
        "labels": site.labels,
        "data": site.dataset.data,
        "population": site.dataset.population,
        "parameters_digest": digests(folder.path)["parameters_digest"],
        "data_digest": site.dataset.digest,
        "config": files.read_json(folder.config),
        "env": files.read_json(folder.env) if folder.env.is_file() else {},
    }


def _check_free(folder: RunFolder, target: RunFolder) -> None:
    """Refuses a place for the results that is the run's, or holds something else."""
    run, out = folder.path.resolve(), target.path.resolve()
    if out == run or run in out.parents:
        raise InputError(f"--out is {out}, in the run itself, which stays as it is: name another.")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not target.site.is_file())):
        raise InputError(f"--out is {out}, which holds something else: name a new folder.")


def _check_same(target: RunFolder, about: dict[str, Any]) -> None:
    names = ("parameters_digest", "data_digest")
    before = files.read_json(target.site) if target.site.is_file() else about
    if any(before[name] != about[name] for name in names):
        raise InputError(
            f"--out is {target.path}, which holds the scores of another run or another site: name "
            "a new folder."
        )


def _write_board(folder: RunFolder, table: pd.DataFrame, step: int, *, private: bool) -> None:
    """Adds the AUROC of every group to the TensorBoard files."""
    board = Board(folder.board, private=private)
    shown = table[(table["metric"] == "auroc") & table["value"].notna()]
    names = shown["split"] + "/" + shown["task"] + "/" + shown["attribute"] + "/" + shown["group"]
    board.write(step, dict(zip("auroc/" + names, shown["value"])), covered=False)
    board.close()


def _write_maps(
    folder: RunFolder,
    dataset: Dataset,
    predictions: pd.DataFrame,
    rows: np.ndarray,
    maps: np.ndarray,
) -> None:
    """Writes image and map side by side for the highest test scores."""
    place = {image_id: i for i, image_id in enumerate(dataset.manifest.iloc[rows]["image_id"])}
    test = predictions[predictions["split"] == "test"].nlargest(_MAPS, "y_score")
    folder.maps.mkdir(exist_ok=True)
    top = float(np.quantile(maps, 0.999))
    for image_id in test["image_id"]:
        image = dataset.images(rows[[place[image_id]]])[0, ..., 0]
        both = np.concatenate([image, np.clip(maps[place[image_id]] / top, 0, 1)], axis=1)
        with files.whole(folder.maps / f"{files.slug(image_id)}.png") as draft:
            Image.fromarray(np.uint8(np.round(255 * both))).save(draft)


COMMAND = Command(
    name="evaluate",
    about=__doc__,
    flags=(
        Flag("workdir", str, ".", "folder of the run"),
        Flag("out", str, None, "folder for the scores of a second site"),
        Flag("labels", list, [], "labels that a second site calls otherwise, as OURS=THEIRS"),
        Flag("calibrate-by", str, "", "also write scores on one scale for the groups of this"),
        Flag("with-images", bool, False, "write maps of real images"),
        *FLAGS,
    ),
    sections=lambda config: [s for s in sections(config) if s.name.partition(".")[0] == "data"],
    needs_config=False,
    base=lambda flags: config_to_change(RunFolder(pathlib.Path(flags["workdir"]))),
)


def main(argv: Sequence[str]) -> int:
    """Evaluates a trained run again; returns the exit status: 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    if asks_release(line):
        return release_command(line)
    folder, images = RunFolder(pathlib.Path(line.flags["workdir"])), line.flags["with-images"]
    if line.config is None:
        if {"out", "labels"} & line.given:
            raise InputError(
                "--out and --labels go with a second site: name its data, as "
                "--config.data.source=... or --config FILE."
            )
        by = line.flags["calibrate-by"]
        run(config_of_run(folder), folder.path, with_images=images, calibrate_by=by)
        report.run(report.compared(folder.path), folder.path, with_images=images)
        return 0
    if "calibrate-by" in line.given:
        raise InputError("--calibrate-by needs validation images, and a second site has none.")
    if not line.flags["out"]:
        raise InputError("The scores of a second site need a folder of their own: give --out DIR.")
    asked = Asked(line.config, line.overrides, line.named is not None, _pairs(line.flags["labels"]))
    made = run_site(folder.path, line.flags["out"], asked, with_images=images)
    print(f"Report: {made.report}")
    return 0


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """OURS=THEIRS, several of them, as a mapping."""
    pairs = [word.partition("=") for word in words]
    for own, equal, theirs in pairs:
        if not (own and equal and theirs):
            raise InputError(f"--labels has {own + equal + theirs!r}; it takes OURS=THEIRS.")
    return {own: theirs for own, _, theirs in pairs}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
