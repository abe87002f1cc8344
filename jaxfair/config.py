"""The door: a config file and its overrides, checked into frozen dataclasses.

A config file is Python with `get_config(arg)`; `file.py:arg` selects a variant and
`--config.dp.epsilon=4` overrides a field. Everything a person can get wrong ends here, in
one sentence.
"""

import dataclasses
import difflib
import importlib.util
import json
import pathlib
import runpy
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags

from jaxfair.data.config import DataConfig, make_data_config
from jaxfair.data.transforms import AugmentConfig, make_augment
from jaxfair.engine.optim import OptimConfig
from jaxfair.errors import InputError, nearest
from jaxfair.methods.base import Method
from jaxfair.methods.catalog import METHODS, make_method
from jaxfair.phantom.config import PhantomConfig
from jaxfair.privacy.ledger import Entry, read_entries
from jaxfair.privacy.plan import PrivacyConfig, PrivacyPlan, make_plan
from jaxfair.schema import PHANTOM

__all__ = [
    "Settings",
    "TrainConfig",
    "load_config",
    "method_from_settings",
    "parse_command",
    "plan_from_settings",
    "section",
    "settings_from_config",
]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """`config.train`.

    Attributes:
      steps: updates of the whole run.
      expected_batch_size: mean number of units in a draw.
      checkpoint_every: steps between checkpoints; a ledger line pays for as many.
      start_from: folder of a run with whose last parameters (not their average) this one
        begins; what that run spent stands first in this one's ledger, and the budget covers both.
      tensorboard: write TensorBoard event files beside metrics.jsonl.
    """

    steps: int
    expected_batch_size: int
    checkpoint_every: int = 50
    start_from: str | None = None
    tensorboard: bool = False

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

    `phantom` is what `config.data.phantom` asks to draw; `phantom.ready` takes it.
    """

    name: str
    seed: int
    data: DataConfig
    phantom: PhantomConfig | None
    method_name: str
    method: Any
    augment: AugmentConfig
    optim: OptimConfig
    dp: PrivacyConfig
    train: TrainConfig


def settings_from_config(config: ConfigDict) -> Settings:
    """Checks every field of a config. Raises InputError that names the field and the rule."""
    tree = config.to_dict()
    known = ("name", "seed", "data", "method", "extractor", "augment", "optim", "dp", "train")
    _refuse_unknown(tree, known, "config")
    method = dict(tree["method"])
    method |= {f"extractor_{name}": value for name, value in tree.get("extractor", {}).items()}
    method_name = method.pop("name")
    if method_name not in METHODS:
        hint = nearest(method_name, METHODS)
        raise InputError(
            f"method.name is {method_name!r}; known methods are {', '.join(METHODS)}.{hint}"
        )
    method_class = METHODS[method_name][0]
    drawn = tree["data"].pop("phantom", None)
    checked_data = _build(make_data_config, tree["data"], "data")
    if "labels" in [field.name for field in dataclasses.fields(method_class)]:
        method.setdefault("labels", checked_data.tasks)
    settings = Settings(
        name=tree["name"],
        seed=tree["seed"],
        data=checked_data,
        phantom=None if drawn is None else _build(PhantomConfig, drawn, "data.phantom"),
        method_name=method_name,
        method=_build(method_class, method, "method"),
        augment=_build(AugmentConfig, tree.get("augment", {}), "augment"),
        optim=_build(OptimConfig, tree["optim"], "optim"),
        dp=_build(PrivacyConfig, tree["dp"], "dp"),
        train=_build(TrainConfig, tree["train"], "train"),
    )
    if 0 < settings.optim.decay_steps < settings.train.steps:
        raise InputError(
            f"optim.decay_steps is {settings.optim.decay_steps}, so the last of train.steps = "
            f"{settings.train.steps} would spend and learn nothing: use train.steps, or 0."
        )
    return settings


def section(*classes: type, **chosen: Any) -> ConfigDict:
    """Returns a section of a config file: every field of its classes that has a default.

    Args:
      classes: PrivacyConfig, OptimConfig, TrainConfig, ...; of data all of `data_classes(source)`.
      chosen: what differs from the defaults, and what has none.

    A field whose default is None stays open for the command line, by its type.
    """
    found = ConfigDict()
    hints = {name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items()}
    for field in [field for cls in classes for field in dataclasses.fields(cls)]:
        if field.name in chosen or field.default is dataclasses.MISSING:
            continue
        plain = [kind for kind in typing.get_args(hints[field.name]) if kind in (str, int, float)]
        if field.default is not None:
            found[field.name] = field.default
        elif plain:
            found[field.name] = config_dict.placeholder(plain[0])
    found.update(chosen)
    return found


def method_from_settings(settings: Settings) -> Method:
    """Returns the Method of a config, with its augmentation where one is switched on.

    Raises InputError where the Method is asked for other labels than the data carry, or is
    one that cannot augment.
    """
    labels = getattr(settings.method, "labels", settings.data.tasks)
    if labels != settings.data.tasks:
        raise InputError(
            f"method.labels are {labels}, but an example carries {settings.data.tasks}: leave "
            "method.labels out, and choose in data.labels."
        )
    augment = make_augment(settings.augment, settings.data.tasks)
    if augment is None:
        return make_method(settings.method_name, settings.method)
    if settings.method_name != "classifier":
        raise InputError(
            f"config.augment changes images, and the method {settings.method_name!r} prepares each "
            "image once: leave augment out, or use the method 'classifier'."
        )
    return make_method(settings.method_name, settings.method, augment=augment)


def plan_from_settings(settings: Settings) -> PrivacyPlan:
    """Returns the privacy plan of a config; no data is read for it."""
    return make_plan(
        settings.dp,
        steps=settings.train.steps,
        expected_batch_size=settings.train.expected_batch_size,
        public_size=settings.data.public_size,
        prior=_spent_before(settings),
    )


def _spent_before(settings: Settings) -> tuple[Entry, ...]:
    """The ledger of the run that this one starts from."""
    if settings.train.start_from is None:
        return ()
    folder = pathlib.Path(settings.train.start_from)
    if not (folder / "privacy.json").is_file():
        raise InputError(f"train.start_from is {folder}, which holds no finished run.")
    if settings.dp.enabled and _unprotected(folder):
        raise InputError(
            f"train.start_from is {folder}, a run without privacy: what is trained from its "
            "parameters cannot be private. Start from a private run, one on a PHANTOM, or none."
        )
    return tuple(read_entries(folder / "ledger.jsonl")[0])


def _unprotected(folder: pathlib.Path) -> bool:
    """Whether parameters may hold patients whom no guarantee covers: drawn images hold nobody."""
    claim = json.loads((folder / "privacy.json").read_text())
    drawn = claim["data"] == PHANTOM
    before = json.loads((folder / "config.json").read_text())["train"].get("start_from")
    return claim["grade"] == "none" and not (drawn and before is None)


def parse_command(
    argv: Sequence[str], define: Any = lambda flag_values: None
) -> tuple[ConfigDict, flags.FlagValues]:
    """Reads `--config FILE[:ARG]`, overrides, and the command's own flags.

    Args:
      argv: with the program's name first.
      define: `(flag_values) -> None`, defines the command's own flags.
    """
    values = flags.FlagValues()
    define(values)
    path, rest = _take_config(list(argv))
    config = load_config(path)
    _refuse_unknown_overrides(rest, config)
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=rest)
    try:
        left = values(rest)
    except (flags.Error, ValueError, TypeError, SyntaxError) as error:
        raise InputError(_one_line(f"{error}")) from error
    if len(left) > 1:
        raise InputError(f"{left[1]!r} is not an option; options start with --.")
    return config, values


def load_config(path: str) -> ConfigDict:
    """Returns `get_config(arg)` of `file.py:arg` (arg empty where there is none)."""
    name, _, argument = path.partition(":")
    file = pathlib.Path(name)
    if not file.is_file():
        siblings = [str(p) for p in sorted(file.parent.glob("*.py"))]
        raise InputError(f"The config file {name} does not exist.{nearest(name, siblings)}")
    get_config = runpy.run_path(str(file)).get("get_config")
    if not callable(get_config):
        raise InputError(f"{name} has no function get_config(arg), so it is no config file.")
    try:
        return get_config(argument)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


def _take_config(argv: list[str]) -> tuple[str, list[str]]:
    for place, argument in enumerate(argv[1:], start=1):
        if argument in ("--config", "-config") and place + 1 < len(argv):
            return argv[place + 1], argv[:place] + argv[place + 2 :]
        if argument.startswith(("--config=", "-config=")):
            return argument.partition("=")[2], argv[:place] + argv[place + 1 :]
    raise InputError("Which experiment? Give --config FILE, for instance configs/rsna_fae.py.")


def _refuse_unknown_overrides(argv: list[str], config: ConfigDict) -> None:
    known = {name for name, _ in _leaves(config)}
    for argument in argv[1:]:
        if not argument.startswith("--config."):
            continue
        name = argument.removeprefix("--config.").partition("=")[0]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise InputError(f"config.{name} does not exist. Did you mean config.{close[0]}?")


def _leaves(config: ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in config:
        value = config.get_oneway_ref(name).get() if name in config else None
        is_section = isinstance(value, ConfigDict)
        found += _leaves(value, f"{prefix}{name}.") if is_section else [(prefix + name, value)]
    return found


def _build(cls: Callable[..., Any], fields: Mapping[str, Any], section: str) -> Any:
    if dataclasses.is_dataclass(cls):
        _refuse_unknown(fields, [field.name for field in dataclasses.fields(cls)], section)
    try:
        return cls(**fields)
    except TypeError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"config.{section}: {_one_line(str(error))}.") from error


def _refuse_unknown(fields: Mapping[str, Any], known: Sequence[str], section: str) -> None:
    for name in fields:
        if name not in known:
            raise InputError(f"{section}.{name} is not a field.{nearest(name, known)}")


def _one_line(text: str) -> str:
    return " ".join(text.split())
