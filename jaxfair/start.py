"""What a config begins with: its data, its network (fresh, or train.start_from), its training."""

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxfair.config import Settings, method_from_settings, plan_from_settings, settings_from_config
from jaxfair.data.dataset import Dataset, open_dataset
from jaxfair.data.overlap import Places, check_places, places_of
from jaxfair.engine.assembly import Assembly, assemble, join
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.optim import check_parts, make_optimizer
from jaxfair.engine.population import Population, make_population
from jaxfair.engine.rates import at_epsilon
from jaxfair.engine.stages import restore, shapes_of_stages, stages_of
from jaxfair.engine.step import DEFAULT_MICROBATCH, TrainState
from jaxfair.errors import InputError
from jaxfair.files import read_json
from jaxfair.methods.base import Method, PyTree
from jaxfair.methods.catalog import METHODS
from jaxfair.methods.labels import check_one_true
from jaxfair.methods.mitigations.catalog import MITIGATIONS, described
from jaxfair.methods.mitigations.upsampling import groups_of_units
from jaxfair.phantom.write import ready
from jaxfair.privacy.seals import digests
from jaxfair.run.folder import RunFolder

__all__ = [
    "assembly_of",
    "check_stages",
    "description",
    "earlier_stages",
    "first_variables",
    "open_data",
    "optimizer_of",
    "places_of_run",
    "population_of",
    "shapes_of",
    "trained_assembly",
]

_HEAD = "['head']"


def assembly_of(settings: Settings, mesh: Mesh | None = None) -> Assembly:
    """Returns the training of a config without its data, checked (`assembly.assemble`)."""
    return _assembly(settings, mesh, assemble)


def shapes_of(settings: Settings, mesh: Mesh | None = None) -> Assembly:
    """Returns `assembly_of` with shapes for values, but for those of `train.start_from`."""
    if settings.train.start_from is not None:
        return assembly_of(settings, mesh)
    method = method_from_settings(settings)
    init = lambda: method.init(jax.random.key(settings.seed), settings.data.spec)
    return _join(settings, mesh, assemble, method, jax.eval_shape(init))


def population_of(settings: Settings, dataset: Dataset) -> Population:
    """Returns who may be drawn: the units of the training split that the config protects."""
    unit = settings.dp.unit or dataset.unit
    return make_population(
        *dataset.units(unit),
        groups=_groups(settings, dataset, unit),
        unit=unit,
        name=dataset.population,
        data=dataset.data,
        selection=dataset.selection,
        digest=dataset.digest,
    )


def _groups(settings: Settings, dataset: Dataset, unit: str) -> np.ndarray | None:
    """The group of each unit where a mitigation draws them at rates of their own, else None."""
    name, config = settings.mitigation_name, settings.mitigation
    if not name or MITIGATIONS[name].rates is None:
        return None
    return groups_of_units(config, lambda attribute: dataset.unit_groups(unit, attribute))


def trained_assembly(settings: Settings, folder: RunFolder) -> tuple[Assembly, TrainState]:
    """Returns the network of a run's last stage and the state that its last checkpoint holds.

    Raises InputError where the run holds no checkpoint, or one that its claim is not about.
    """
    assembly = _assembly(settings, make_mesh(1), join)
    ledger = assembly.plan.open_ledger(folder.ledger, writes=False)
    _, stage, state = restore(stages_of(assembly), folder, ledger)
    if not int(state.step):
        raise InputError(f"{folder.path} holds no checkpoint; train it first.")
    _check_claimed(folder)
    return stage, state


def _check_claimed(folder: RunFolder) -> None:
    """Refuses parameters that lie in the folder of a claim about others."""
    claim = read_json(folder.privacy) if folder.trained() else {}
    named = claim.get("parameters_digest")  # which a run of an older version has not
    if named and named != digests(folder.path)["parameters_digest"]:
        raise InputError(
            f"The last checkpoint in {folder.path} is not the one that its privacy.json is about: "
            "put the right one back, or train the run again."
        )


def first_variables(settings: Settings) -> tuple[Method, PyTree, PyTree]:
    """Returns the Method of a config, and the parameters and the frozen part it begins with.

    With `train.start_from` both come from the last checkpoint of that run (its parameters, not
    their average): what was trained there may be frozen here, and the other way round. A head
    is taken over where both runs have the same tasks, and begins anew where they differ.

    Raises InputError where that run holds no checkpoint or another network, or had stages: the
    network of its last one is not that with which a training begins, though it may look alike.
    """
    method = method_from_settings(settings)
    if settings.train.start_from is None:
        return method, *method.init(jax.random.key(settings.seed), settings.data.spec)
    folder = RunFolder(pathlib.Path(settings.train.start_from))
    before = _settings_of(folder)
    if stages := method_from_settings(before).stages:
        raise InputError(
            f"train.start_from is {folder.path}, a run of {before.name} that trained in "
            f"{1 + len(stages)} stages, the last of which is not what a training begins with: "
            "start from a run of one stage."
        )
    variables = method.init(jax.random.key(settings.seed), settings.data.spec)
    theirs = _leaves(_last_variables(folder, before))
    fresh_head = before.data.tasks != settings.data.tasks

    def taken(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path)
        if fresh_head and name.startswith(_HEAD):
            return leaf
        found = theirs.get(name)
        if found is None or found.shape != leaf.shape:
            what = "nothing" if found is None else f"the shape {found.shape}"
            raise InputError(
                f"train.start_from is {folder.path}, a run of {before.name}: for {name} it has "
                f"{what}, and this network needs {leaf.shape}. Start from a run of the same "
                "network."
            )
        return found

    return method, *(jax.tree_util.tree_map_with_path(taken, tree) for tree in variables)


def open_data(settings: Settings, *, progress: bool = True) -> Dataset:
    """Returns the data of a config, drawn first where it asks for a phantom, and prepared.

    Raises InputError as `phantom.write.ready`, `open_dataset` and `labels.check_one_true`.
    """
    drawn = ready(settings.phantom, settings.data, progress=progress)
    dataset = open_dataset(drawn, progress=progress)
    check_one_true(getattr(settings.method, "target", ""), dataset.manifest, dataset.tasks)
    return dataset


def check_stages(settings: Settings, dataset: Dataset) -> None:
    """Refuses a run whose people are held out here and trained in an earlier stage, or the reverse.

    All runs that it descends from are read, each by its own config and data, where they drew from
    the same population; drawn people of another drawing are others.

    Raises InputError as `overlap.check_places`, and where a stage's config or data are gone.
    """
    now = Places(dataset.manifest, dataset.population, dataset.unit)
    for named, before in earlier_stages(settings):
        people = read_json(RunFolder(pathlib.Path(named)).privacy)["population"]
        drawn = [(one.phantom, one.phantom and one.data.source) for one in (before, settings)]
        if people == now.population and drawn[0] == drawn[1]:
            places = places_of_run(before, f"train.start_from is {named}")
            check_places(places, now, where=named)


def earlier_stages(settings: Settings) -> Iterator[tuple[str, Settings]]:
    """Yields folder and config of each run that this one descends from, the nearest first.

    Raises InputError where one of the folders is gone.
    """
    named = settings.train.start_from
    while named is not None:
        before = _settings_of(RunFolder(pathlib.Path(named)))
        yield named, before
        named = before.train.start_from


def places_of_run(before: Settings, named: str) -> Places:
    """Returns who trained, validated and tested in a run.

    Args:
      named: the beginning of the sentence: which run it is.

    Raises InputError where its data are gone.
    """
    try:
        return places_of(ready(before.phantom, before.data, progress=False))
    except InputError as error:
        raise InputError(
            f"{named}, and whether somebody who trained there tests here cannot be said, since its "
            f"data are not to be found: {error}"
        ) from error


def description(settings: Settings) -> dict[str, Any]:
    """Returns what a report must say about the model: where its first weights are from.

    After `train.start_from` the words of the run before, whose weights they were. A mitigation is
    named, with how it stands to privacy, and groups drawn at rates of their own by their codes.
    """
    told, name, config = _origin(settings), settings.mitigation_name, settings.mitigation
    if not name:
        return told
    told = described(name, config, told)
    if MITIGATIONS[name].rates is None:
        return told
    values = itertools.product(*(settings.data.group_values[one] for one in config.by))
    return told | {"sampled_groups": [", ".join(group) for group in values]}


def _origin(settings: Settings) -> dict[str, Any]:
    if settings.train.start_from is None:
        return dict(METHODS[settings.method_name].describe(settings.method))
    folder = RunFolder(pathlib.Path(settings.train.start_from))
    before, claim = _settings_of(folder), read_json(folder.privacy)
    told = description(before)
    spent = "without privacy" if claim["epsilon"] is None else f"at epsilon {claim['epsilon']:.3g}"
    note = (
        f"{told['note']} So began a run of {before.name} on {claim['data']} data {spent} (config "
        f"{claim['config_digest'][:12]}), with whose last parameters this one began."
    )
    return told | {"start_from": claim["config_digest"], "note": note}


def optimizer_of(
    settings: Settings, method: Method, variables: tuple[PyTree, ...]
) -> optax.GradientTransformation:
    """Returns the optimiser of a config, for each stage of its Method that has none of its own.

    Args:
      variables: (params, frozen) that training begins with, or their shapes.

    Raises InputError for a path of `optim.parts` that is in no stage.
    """
    if settings.optim.parts and method.stages:
        shapes = shapes_of_stages(method, (variables[0], variables[1]), settings.data.spec)
        check_parts(settings.optim, [params for params, _ in shapes])
    dp = settings.dp
    epsilon, clip = (dp.epsilon, dp.l2_clip_norm) if dp.enabled else (None, 1.0)
    optim = at_epsilon(settings.optim, epsilon)
    return make_optimizer(optim, everywhere=not method.stages, l2_clip_norm=clip)


def _assembly(settings: Settings, mesh: Mesh | None, make: Any) -> Assembly:
    method, *variables = first_variables(settings)
    return _join(settings, mesh, make, method, tuple(variables))


def _join(
    settings: Settings, mesh: Mesh | None, make: Any, method: Method, variables: tuple[PyTree, ...]
) -> Assembly:
    return make(
        plan_from_settings(settings),
        method,
        optimizer_of(settings, method, variables),
        spec=settings.data.spec,
        variables=variables,
        microbatch=settings.dp.microbatch or DEFAULT_MICROBATCH,
        mesh=mesh,
    )


def _settings_of(folder: RunFolder) -> Settings:
    """The config of an earlier run. Raises InputError where the folder is gone."""
    if not folder.config.is_file():
        raise InputError(
            f"train.start_from is {folder.path}, which is not there: what this run begins with "
            "cannot be told without it; put it back."
        )
    return settings_from_config(ConfigDict(read_json(folder.config)))


def _last_variables(folder: RunFolder, settings: Settings) -> tuple[PyTree, PyTree]:
    try:
        stage, state = trained_assembly(settings, folder)
    except InputError as error:
        raise InputError(f"train.start_from is {folder.path}: {error}") from error
    return jax.device_get((state.params, stage.frozen))


def _leaves(trees: tuple[PyTree, ...]) -> dict[str, np.ndarray]:
    pairs = [pair for tree in trees for pair in jax.tree_util.tree_leaves_with_path(tree)]
    return {jax.tree_util.keystr(path): leaf for path, leaf in pairs}
