"""The door: a config file and its overrides, checked into frozen dataclasses.

A config file is Python with `get_config(arg)`; `file.py:arg` selects a variant and
`--config.dp.epsilon=4` overrides a field.
"""

import dataclasses
import importlib.util
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from jaxfair.cli.command import Command, Line
from jaxfair.cli.fields import Section, built, checked, meanings, refuse_unknown, section_of
from jaxfair.cli.parser import parse
from jaxfair.cli.sections import EXTRACTOR, all_sections, choices
from jaxfair.cli.sources import load_config
from jaxfair.data.config import PARTS, DataConfig, data_classes, make_data_config
from jaxfair.data.sources.catalog import SOURCES
from jaxfair.data.transforms import AugmentConfig, make_augment
from jaxfair.engine.optim import OptimConfig
from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method
from jaxfair.methods.catalog import METHODS, make_method
from jaxfair.methods.labels import check_exclusive
from jaxfair.methods.mitigations import catalog as mitigations
from jaxfair.phantom.config import PhantomConfig
from jaxfair.privacy.descent import read_earlier
from jaxfair.privacy.plan import PrivacyConfig, PrivacyPlan, make_plan

__all__ = [
    "Settings",
    "TrainConfig",
    "load_config",
    "method_from_settings",
    "parse_command",
    "plan_from_settings",
    "sections",
    "settings_from_config",
]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long a run trains, in what batches, and from where.

    Attributes:
      steps: updates of the whole run.
      expected_batch_size: mean number of units in a draw.
      checkpoint_every: steps between checkpoints; a ledger line pays for as many.
      start_from: folder of a run with whose last parameters (not their average) this one
        begins; what that run spent stands first in this one's ledger, and the budget covers both.
      tensorboard: write TensorBoard event files beside metrics.jsonl.
      leakage: probe after the evaluation what the embedding tells of each attribute; left out, it
        is done where data.groups names attributes and the Method has an embedding.
    """

    steps: int
    expected_batch_size: int
    checkpoint_every: int = 50
    start_from: str | None = None
    tensorboard: bool = False
    leakage: bool | None = None

    def __post_init__(self) -> None:
        if self.tensorboard and importlib.util.find_spec("tensorboardX") is None:
            raise InputError(
                "train.tensorboard needs tensorboardX: pip install tensorboardX, or leave it False."
            )
        for name in ("steps", "expected_batch_size", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} is {getattr(self, name)}; it must be at least 1.")


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole config, checked. `method` is the config class of METHODS[method_name].

    Attributes:
      name: of the experiment; a run's folder is called after it.
      seed: of the first parameters and of the bootstrap; a public constant, never of the noise.
      data: which data, prepared and split how.
      phantom: what `config.data.phantom` asks to draw; `phantom.write.ready` takes it.
      method_name: a key of METHODS.
      method: its own choices.
      mitigation_name: a key of mitigations.MITIGATIONS, or "" for none.
      mitigation: its own choices; None for none.
      augment: how examples are changed in training.
      optim: the optimiser.
      dp: what is promised to patients.
      train: how long, and in what batches.
    """

    name: str
    seed: int
    data: DataConfig
    phantom: PhantomConfig | None
    method_name: str
    method: Any
    mitigation_name: str
    mitigation: Any
    augment: AugmentConfig
    optim: OptimConfig
    dp: PrivacyConfig
    train: TrainConfig


_PLAIN = {"name": str, "seed": int}
_SECTIONS = {"augment": AugmentConfig, "optim": OptimConfig, "dp": PrivacyConfig,
             "train": TrainConfig}  # fmt: skip
_OPTIONAL = ("augment", "extractor", "mitigation")


def settings_from_config(config: ConfigDict) -> Settings:
    """Checks every field of a config. Raises InputError that names the field and the rule."""
    tree = _checked_tree(config)
    method = dict(tree["method"])
    method |= {f"{EXTRACTOR}{name}": value for name, value in tree.get("extractor", {}).items()}
    method_name = method.pop("name", None)
    method_class = _method_class(method_name)
    data = dict(tree["data"])
    drawn = data.pop("phantom", None)
    given = built(make_data_config, data, "data")
    private = bool(tree["dp"].get("enabled", True))
    mitigation_name, mitigation = _mitigation(tree.get("mitigation", {}), given, private)
    sets = mitigations.own_sections(mitigation_name, mitigation, tree)
    checked_data = built(make_data_config, data | sets.get("data", {}), "data")
    method |= sets.get("method", {})
    optim = {**tree["optim"], **sets.get("optim", {})}
    optim["parts"] = {**METHODS[method_name].parts, **optim.get("parts", {})}
    _fill(method, method_class, checked_data)
    settings = Settings(
        name=tree["name"],
        seed=tree["seed"],
        data=checked_data,
        phantom=None if drawn is None else checked(PhantomConfig, drawn, "data.phantom"),
        method_name=method_name,
        method=checked(method_class, method, "method"),
        mitigation_name=mitigation_name,
        mitigation=mitigation,
        augment=checked(AugmentConfig, tree.get("augment", {}), "augment"),
        optim=checked(OptimConfig, optim, "optim"),
        dp=checked(PrivacyConfig, tree["dp"], "dp"),
        train=checked(TrainConfig, tree["train"], "train"),
    )
    findings = SOURCES[given.source].SPEC["tasks"]
    check_exclusive(getattr(settings.method, "target", ""), given.source, findings)
    if settings.dp.enabled:
        mitigations.check_private(mitigation_name)
    if 0 < settings.optim.decay_steps < settings.train.steps:
        raise InputError(
            f"optim.decay_steps is {settings.optim.decay_steps}, so the last of train.steps = "
            f"{settings.train.steps} would spend and learn nothing: use train.steps, or 0."
        )
    return settings


def _mitigation(fields: Mapping[str, Any], data: DataConfig, private: bool) -> tuple[str, Any]:
    """The name and checked config of `config.mitigation`; "" and None for none."""
    fields = {name: value for name, value in fields.items() if value is not None}
    name = fields.pop("name", "")
    if not name:
        refuse_unknown(fields, (), "mitigation")
        return "", None
    cls = mitigations.entry_of(name).config
    _fill(fields, cls, data)
    if "private" in [field.name for field in dataclasses.fields(cls)]:
        fields.setdefault("private", private)
    return name, checked(cls, fields, "mitigation")


def _method_class(name: Any) -> Any:
    if name in tuple(METHODS):
        return METHODS[name].config
    known, hint = ", ".join(METHODS), nearest(str(name), METHODS)
    raise InputError(f"method.name is {name!r}; known methods are {known}.{hint}")


def _checked_tree(config: ConfigDict) -> dict[str, Any]:
    """The config as a tree that has a name, a seed, and every section that a run needs."""
    tree = config.to_dict()
    inner = ("data", *_SECTIONS, "method", "extractor", "mitigation")
    refuse_unknown(tree, (*_PLAIN, *inner), "config")
    for name, kind in _PLAIN.items():
        if type(tree.get(name)) is not kind:
            said = f"is {tree[name]!r}" if name in tree else "is missing"
            meaning = meanings(Settings)[name]
            raise InputError(f"config.{name} {said}; it must be {kind.__name__}: {meaning}")
    for name in inner:
        if name not in tree and name not in _OPTIONAL:
            raise InputError(
                f"The config has no section {name!r}: add config.{name} = ConfigDict() and its "
                f"fields, which --help lists (known sections are {', '.join(inner)})."
            )
        if name in tree and not isinstance(tree[name], Mapping):
            raise InputError(
                f"config.{name} is {tree[name]!r}; it must be a section of fields, a ConfigDict."
            )
    return tree


def method_from_settings(settings: Settings) -> Method:
    """Returns the Method of a config, with its augmentation and its mitigation where it has them.

    Raises InputError where the Method is asked for other labels than the data carry, or is
    one that cannot augment.
    """
    for name, carried in _of_the_data(settings.data).items():
        asked = getattr(settings.method, name, carried)
        if repr(asked) != repr(carried):  # of a dict the order too: it is that of an example
            where = {"labels": "labels", "attributes": "groups"}[name]
            raise InputError(
                f"method.{name} are {asked}, but an example carries {carried}: leave "
                f"method.{name} out, and choose in data.{where}."
            )
    method = _unmitigated(settings)
    if not settings.mitigation_name:
        return method
    return mitigations.mitigated(settings.mitigation_name, settings.mitigation, method)


def _fill(fields: dict[str, Any], cls: type, data: DataConfig) -> None:
    """Puts in what a config class asks for and only the data know, where it is left out."""
    for name, value in _of_the_data(data).items():
        if name in [field.name for field in dataclasses.fields(cls)]:
            fields.setdefault(name, value)


def _of_the_data(data: DataConfig) -> dict[str, Any]:
    """What a Method is told of the data: its labels, and how many values each group may have."""
    sizes = {name: len(values) for name, values in data.group_values.items()}
    return {"labels": data.tasks, "attributes": sizes}


def _unmitigated(settings: Settings) -> Method:
    augment = make_augment(settings.augment, settings.data.tasks)
    if augment is None:
        return make_method(settings.method_name, settings.method)
    if "augment" not in inspect.signature(METHODS[settings.method_name].make).parameters:
        raise InputError(
            f"config.augment changes images, and the method {settings.method_name!r} prepares each "
            "image once: leave augment out, or use the method 'classifier'."
        )
    return make_method(settings.method_name, settings.method, augment=augment)


def plan_from_settings(settings: Settings) -> PrivacyPlan:
    """Returns the privacy plan of a config; no data is read for it."""
    train, size = settings.train, settings.data.public_size
    rate = train.expected_batch_size / (size or train.expected_batch_size)
    return make_plan(
        settings.dp,
        steps=train.steps,
        expected_batch_size=train.expected_batch_size,
        public_size=size,
        earlier=None if train.start_from is None else read_earlier(train.start_from),
        group_probs=mitigations.own_rates(settings.mitigation_name, settings.mitigation, rate),
        rule=mitigations.clip_rule(settings.mitigation_name, settings.mitigation),
        linear=lambda: method_from_settings(settings).linear,
    )


def parse_command(argv: Sequence[str]) -> tuple[ConfigDict, Line]:
    """Returns the config of `--config FILE[:ARG]` with its overrides, and the line; for scripts."""
    line = parse(Command(name=argv[0], about="", sections=sections), argv)
    return line.config, line


def sections(config: ConfigDict | None = None) -> list[Section]:
    """Returns every section and field with its meaning, for `--help`.

    Args:
      config: its values stand beside the fields, and only its source and its method are shown;
        None shows the defaults, of all sources and methods.
    """
    tree = None if config is None else config.to_dict()
    methods = {name: entry.config for name, entry in METHODS.items()}
    chosen = {name: (e.config, e.standing) for name, e in mitigations.MITIGATIONS.items()}
    found = all_sections(Settings, _PLAIN, _SECTIONS, methods, tree)
    if tree is None:
        return [*found, *_data_sections(None), *choices("mitigation", chosen, None)]
    data, mitigation = (dict(tree.get(name) or {}) for name in ("data", "mitigation"))
    return [*found, *_data_sections(data), *choices("mitigation", chosen, mitigation)]


def _data_sections(given: dict[str, Any] | None) -> list[Section]:
    """The flat section `data` of a config: of its own source, or of all sources."""
    sources = list(SOURCES) if given is None else [given.get("source", DataConfig.source)]
    shared = data_classes(sources[0])[:-1]
    common = [part for cls in shared for part in section_of(cls, "data", given)]
    fields = [f for s in common if s.name == "data" for f in s.fields if f.name not in PARTS]
    found = [Section("data", "Which data, kept how, divided how.", tuple(fields))]
    for source in sources:
        own, *inner = section_of(data_classes(source)[-1], "data", given)
        named = own._replace(summary=f"options of the source {source!r}")
        found += [named, *inner] if own.fields else inner
    drawn = None if given is None else given.get("phantom")
    return found + (section_of(PhantomConfig, "data.phantom", drawn) if drawn or not given else [])
