"""A second site: other data on which a trained run is scored, in the run's own terms.

What is another site's is where the files are, their labels and their people. What is the run's
stays so: the shape of an image and how it is prepared, labels by name, thresholds.
"""

import dataclasses
import pathlib
import types
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jaxfair.cli.fields import built, checked
from jaxfair.config import Settings
from jaxfair.data.checks import field_names
from jaxfair.data.config import DataConfig, data_classes, make_data_config
from jaxfair.data.dataset import Dataset, open_dataset
from jaxfair.data.overlap import Places
from jaxfair.data.site import Terms, in_terms_of, matched, without_people
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError
from jaxfair.experiment import data_section
from jaxfair.files import read_json
from jaxfair.phantom.config import PhantomConfig
from jaxfair.phantom.write import ready
from jaxfair.run.folder import RunFolder
from jaxfair.start import earlier_stages, places_of_run

__all__ = ["Asked", "Site", "config_of_run", "config_to_change", "open_site"]


class Asked(NamedTuple):
    """What a command asks of a second site.

    Attributes:
      config: with the section `data` of the site.
      overrides: names of its fields that were set on the command line.
      from_file: whether the section is another config's, and not the run's own with changes.
      labels: the run's label -> the site's, where their names do not tell.
    """

    config: ConfigDict
    overrides: frozenset[str] = frozenset()
    from_file: bool = False
    labels: Mapping[str, str] = types.MappingProxyType({})


class Site(NamedTuple):
    """A second site, opened.

    Attributes:
      dataset: its images in the run's terms; whoever may be scored is in the split test.
      attributes: the columns that group its people.
      labels: the run's label -> the site's.
      lines: sentences for the head of a report: what was trained and scored, and on whom.
    """

    dataset: Dataset
    attributes: tuple[str, ...]
    labels: dict[str, str]
    lines: list[str]


def config_of_run(folder: RunFolder) -> ConfigDict:
    """Returns the config of a run. Raises InputError where the folder holds none."""
    if not folder.config.exists():
        raise InputError(f"{folder.path} is no run folder: it has no config.json.")
    return ConfigDict(read_json(folder.config))


def config_to_change(folder: RunFolder) -> ConfigDict:
    """Returns the section `data` of a run's config, every field of it open to overrides."""
    given = config_of_run(folder).data.to_dict().items()
    known = {k: tuple(v) if isinstance(v, list) else v for k, v in given if v is not None}
    return ConfigDict({"data": data_section({"source": DataConfig.source, **known})})


def open_site(settings: Settings, folder: RunFolder, asked: Asked, *, progress: bool) -> Site:
    """Opens the data of a second site for a run.

    Everybody there is tested, but for people of the run's own population who trained or
    validated in it or in a run that it descends from; or the test set of the site's own split
    alone, where `data.split` was asked for.

    Raises InputError where the site cannot be scored by this run, or nobody there may test.
    """
    data, phantom = _data_of(settings, asked)
    stages = [(str(folder.path), settings), *earlier_stages(settings)]
    _refuse_same_drawing(stages, phantom, data.source)
    given = asked.config.data.to_dict() if "data.labels" in asked.overrides else {}
    labels = matched(settings.data.tasks, given.get("labels") or data.tasks, asked.labels)
    if not labels:
        raise InputError(
            f"The run has the labels {', '.join(settings.data.tasks)}, and the second site "
            f"{', '.join(data.tasks)}: none is in both; name pairs as --labels OURS=THEIRS."
        )
    data = dataclasses.replace(data, labels=tuple(dict.fromkeys(labels.values())))
    dataset = open_dataset(ready(phantom, data, progress=progress), progress=progress)
    terms = Terms(settings.data.tasks, settings.data.group_values, settings.data.attributes)
    dataset, said = in_terms_of(dataset, labels, terms, data.attributes)
    seen = list(_people_met(stages, dataset.population, phantom))
    dataset, gone = without_people(dataset, seen, tests="data.split" in asked.overrides)
    if not len(dataset.rows("test")):
        raise InputError(
            "Nobody of the second site may test: all who have one of its labels "
            + ("trained or validated in this run." if gone else "are left out by its split.")
        )
    names = tuple(n for n in dict.fromkeys([*terms.attributes, *data.attributes])
                  if n in dataset.manifest)  # fmt: skip
    head = _head(folder, dataset, bool(seen), gone)
    return Site(dataset, names, labels, [*head, *said])


def _data_of(settings: Settings, asked: Asked) -> tuple[DataConfig, PhantomConfig | None]:
    """The site's data section, with the run's shape and preparation of images."""
    for name in asked.overrides:
        if not name.startswith("data."):
            raise InputError(
                f"config.{name} is a choice of the training, which a second site does not change: "
                "override fields of config.data alone."
            )
    given = {"source": DataConfig.source, **asked.config.data.to_dict()}
    known = {name for cls in data_classes(given["source"]) for name in field_names(cls)}
    fields = {n: v for n, v in given.items() if n in {*known, "phantom"} and v is not None}
    for name in (name for name in field_names(Stored) if not name.startswith("max_")):
        own = getattr(settings.data.stored, name)
        if f"data.{name}" in asked.overrides and fields.get(name, own) != own:
            raise InputError(
                f"data.{name} is {fields[name]!r}, and the run was trained with {own!r}: a second "
                "site's images are prepared as the run's; leave it out."
            )
        fields[name] = own
    _forget(fields, settings, asked)
    drawn = fields.pop("phantom", None)
    data = built(make_data_config, fields, "data")
    return data, None if drawn is None else checked(PhantomConfig, drawn, "data.phantom")


def _forget(fields: dict[str, Any], settings: Settings, asked: Asked) -> None:
    """Takes out what is the run's own, or of no use where all are tested."""
    moved = {"data.source", "data.root"} | {
        name for name in asked.overrides if name.startswith("data.phantom.")
    }
    if not asked.from_file and moved & asked.overrides and "data.prepared" not in asked.overrides:
        fields.pop("prepared", None)
    if "data.split" not in asked.overrides:
        fields.pop("split", None)
        fields.pop("share_normals", None)
    curated = [n for n in fields if n.startswith("curate") and f"data.{n}" not in asked.overrides]
    for name in ("labels", "groups", "public_size", *curated):
        fields.pop(name, None)


Stages = list[tuple[str, Settings]]


def _refuse_same_drawing(stages: Stages, phantom: PhantomConfig | None, source: str) -> None:
    """Phantoms of one seed show the same people, under other names where the layout differs."""
    for named, stage in stages:
        drawn = stage.phantom
        same = drawn is not None and phantom is not None and drawn.seed == phantom.seed
        if drawn is not None and same and stage.data.source != source:
            raise InputError(
                f"{named} trained on a PHANTOM of {stage.data.source} with the seed {drawn.seed}, "
                f"whose people a PHANTOM of {source} with that seed shows again under other names: "
                f"give the second site another one, as --config.data.phantom.seed={drawn.seed + 1}."
            )


def _people_met(stages: Stages, population: str, phantom: PhantomConfig | None) -> Iterator[Places]:
    """Who was where in the run, and in those that it descends from, where they may be the same.

    Phantoms of another seed hold other people. Else the population tells, and another one is taken
    to be of other people.
    """
    for named, stage in stages:
        drawn, people = stage.phantom, read_json(RunFolder(pathlib.Path(named)).privacy)
        other = drawn is not None and phantom is not None and drawn.seed != phantom.seed
        if people["population"] == population and not other:
            yield places_of_run(stage, f"The run is {named}")


def _head(folder: RunFolder, dataset: Dataset, same: bool, gone: int) -> list[str]:
    """What was trained and scored, and whom the guarantee covers."""
    trained, scored = read_json(folder.data_card)["dataset"], dataset.card["dataset"]
    people = (
        f"Both are of the population {dataset.population!r}: {gone} who trained or validated in "
        "the run are left out, by their ids, and everybody who is scored is held out."
        if same
        else "Nobody of the second site is known to have trained; a population of another name "
        "counts as other people."
    )
    return [
        f"Second site: trained on {trained['title']}, scored on {scored['title']}.",
        "The guarantee covers those who trained, and nobody for being scored here: predictions, "
        "tables and data card of the second site are exact.",
        people,
        "Thresholds are those of the run, from its own validation; nothing is fitted here.",
    ]
