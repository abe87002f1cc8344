"""What a config file is written with: whole sections from what is chosen, and settings of papers.

    config = experiment("mine", data={"source": "chexpert", ...}, **DP_CXR)
    return variant(config, arg, phantom=DRAWN_FILMS)

Every field of a section stands in the config, so that `--config.section.field=value` reaches it.
"""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from jaxfair.config import TrainConfig
from jaxfair.data.config import data_classes
from jaxfair.data.sources.columns import TableConfig
from jaxfair.data.transforms import AugmentConfig
from jaxfair.engine.optim import OptimConfig
from jaxfair.methods.catalog import METHODS
from jaxfair.methods.mitigations.catalog import MITIGATIONS
from jaxfair.privacy.config import PrivacyConfig

__all__ = [
    "DP_CXR",
    "DRAWN_COLUMNS",
    "DRAWN_FILMS",
    "DRAWN_GROUPS",
    "DRAWN_LINK",
    "DRAWN_SCANS",
    "DRAWN_TABLE",
    "HAM10000",
    "PANCREAS_CT",
    "PRIVATE_RECIPE",
    "RESNET9",
    "data_section",
    "experiment",
    "film_probe",
    "mitigation_section",
    "section",
    "variant",
]

Section = Mapping[str, Any]

RESNET9 = {"name": "classifier", "backbone": "resnet9", "activation": "mish"}
"""The network of DP_CXR and of most private training since; for films and, with ndim=3, volumes."""

PRIVATE_RECIPE: dict[str, Section] = {
    "method": {"standardise": True, "norm": "unscaled", "multiplicity": 4},
    "optim": {
        "name": "sgd",
        "momentum": 0.0,
        "learning_rate": 2.0,  # for a clip of 1, constant
        "unit_normed": True,
        "average": "ema",
        "ema_decay": 0.99,
        "ema_warm_up": True,
    },
    "mitigation": {"name": "refit_head", "share": 0.1, "averaged": True},
}
"""What De et al. 2022 (arXiv 2204.13650) train private networks with, beside large draws; `method`
needs an augmentation. The head's last stage is after Mehta et al. 2023 (arXiv 2205.02973)."""

DP_CXR: dict[str, Section] = {
    "method": RESNET9,
    "optim": {"name": "nadam", "learning_rate": 0.0005, "average": "ema"},  # an average is free
    "dp": {"epsilon": 7.89, "l2_clip_norm": 1.5},
    "train": {"steps": 20_000, "expected_batch_size": 128, "checkpoint_every": 500},
}
"""Model, optimiser, clip, batch and learning rate of "Private, fair and accurate" (Tayebi Arasteh
et al. 2024) at its top epsilon. It trains its private model without augmentation."""

PANCREAS_CT: dict[str, Section] = {
    "data": {
        "source": "volumes",
        "table": {"file": "table.csv", "image": "image", "patient": "patient", "sex": "sex",
                  "age": "age", "labels": ("lesion",)},
        "volume": (64, 128, 128),  # d, h, w
        "spacing": (4.0, 2.0, 2.0),  # mm, to which a volume is resampled
        "window": (-160.0, 240.0),  # Hounsfield units that become black and white
        "split": "random",
        "public_size": 1_000,  # of 1,625 scans, rounded; fixes q and delta
    },
    "optim": {"name": "nadam", "learning_rate": 0.0002, "average": "ema"},
    "dp": {"epsilon": 8.0, "l2_clip_norm": 1.0},
    "train": {"steps": 800, "expected_batch_size": 64, "checkpoint_every": 50},
}  # fmt: skip
"""Data and training of the pancreas task of the same paper, whose private code was never
published: batch 64, clip 1, NAdam at 2e-4 and 50 epochs are our reading of it."""

HAM10000: Section = {
    "source": "table",
    "table": {
        "file": "metadata.csv", "stack": "images_48_rgb.npz", "id": "image_id",
        "patient": "lesion_id", "unit": "lesion", "sex": "sex", "age": "age",
        "labels": ("malignant",), "name": "ham10000",
        "title": "HAM10000 skin lesions, 48 x 48",
        "licence": "CC BY-NC-SA 4.0 (Tschandl, Rosendahl, Kittler 2018)",
    },
    "image_size": 48,
    "channels": 3,
    "split": "folds",
    "public_size": 4_200,  # 70 % of 5,984, rounded; fixes q and delta
}  # fmt: skip
"""Skin lesions as a table with a stack of images; the unit of privacy is the lesion."""

DRAWN_COLUMNS: Section = {"file": "table.csv", "image": "image", "patient": "patient",
                          "sex": "sex", "age": "age", "view": "view"}  # fmt: skip
"""The columns of the table that comes with drawn films."""

DRAWN_FILMS: dict[str, Section] = {
    "data": {
        "image_size": 64,
        "public_size": 500,
        "phantom": {"n_images": 1_200, "seed": 0, "pixels": 96},
    },
    "optim": {"learning_rate": 1e-3},
    "dp": {"microbatch": 16},
    "train": {"steps": 40, "expected_batch_size": 64, "checkpoint_every": 20},
}
"""What shrinks an experiment with films to the stand-in: forty steps on two CPU cores."""

DRAWN_GROUPS: dict[str, Section] = {
    **DRAWN_FILMS,
    "data": {
        **DRAWN_FILMS["data"],
        "public_size": 1_500,
        "phantom": {**DRAWN_FILMS["data"]["phantom"], "n_images": 3_600},
    },
}
"""The same with enough patients to compare: some 140 women and 180 men are tested."""

DRAWN_LINK: Section = {
    "n_images": 4_000,
    "seed": 0,
    "pixels": 48,
    "gap_group": "",
    "link_label": "cardiomegaly",
    "link": 0.8,
    "link_cause": 0.5,
    "link_contrast": 0.35,
    "link_site": "selected",  # "independent" is the second site, with other patients
}
"""A phantom, `data.phantom`, in which women have a finding far more often; docs/phantoms.md."""

DRAWN_TABLE: Section = {
    **DRAWN_GROUPS["data"],
    "image_size": 48,
    "channels": 1,
    "table": {
        **DRAWN_COLUMNS,
        "labels": ("cardiomegaly", "pleural_effusion_right", "pleural_effusion_left"),
    },
}
"""Data that stand in for HAM10000: drawn films with a table of three labels."""

DRAWN_SCANS: dict[str, Section] = {
    "data": {
        "volume": (16, 24, 28),
        "spacing": (6.25, 5.6, 5.6),
        "public_size": 250,
        "phantom": {"n_images": 400, "seed": 0, "pixels": 64, "slices": 32},
    },
    "optim": {"learning_rate": 1e-3},
    "dp": {"microbatch": 8},
    "train": {"steps": 40, "expected_batch_size": 32, "checkpoint_every": 20},
}
"""The same for volumes: the middle of drawn abdomens."""


def experiment(
    name: str,
    *,
    data: Section,
    method: Section,
    optim: Section,
    dp: Section,
    train: Section,
    augment: Section | None = None,
    mitigation: Section | None = None,
) -> ConfigDict:
    """Returns the config of an experiment: every field of every section, with what is chosen.

    Args:
      name: of the experiment, and so of its run folders.
      data: `source`, and fields of its classes (`data_classes`).
      method: `name`, a key of METHODS, and fields of its config class.
      optim, dp, train, augment: fields of OptimConfig, PrivacyConfig, TrainConfig, AugmentConfig.
      mitigation: `name`, a key of MITIGATIONS, and fields of its config class; without a name there
        is none, and every field of any of them stays open for the command line.

    Nothing is checked here but the names of source and method; `settings_from_config` does that.
    """
    options = {key: value for key, value in method.items() if key != "name"}
    config = ConfigDict({"name": name, "seed": 1})
    config.data = data_section(data)
    config.method = section(METHODS[method["name"]].config, **options)
    config.method.name = method["name"]
    config.mitigation = mitigation_section(mitigation or {})
    config.augment = section(AugmentConfig, **(augment or {}))
    config.optim = section(OptimConfig, **optim)
    config.dp = section(PrivacyConfig, **dp)
    config.train = section(TrainConfig, **train)
    return config


def variant(config: ConfigDict, arg: str, **variants: Mapping[str, Any]) -> ConfigDict:
    """Returns the variant of a config that `arg`, what follows the colon, names.

    Args:
      config: the whole experiment, which "" stands for; it is changed.
      arg: the name.
      variants: name -> section -> the fields that it has instead. A field that is a section itself
        is replaced as a whole. The "phantom" carries its name.

    Raises ValueError for a name that is none of these.
    """
    known = {"": {}, **variants}
    if arg not in known:
        names = ", ".join(map(repr, known))
        raise ValueError(f"the variant {arg!r} does not exist; known are {names}.")
    for part, fields in known[arg].items():
        for name, value in fields.items():
            if value is None:  # and yet open for the command line
                value = config_dict.placeholder(type(config[part][name]))
            config[part][name] = ConfigDict(dict(value)) if isinstance(value, Mapping) else value
    if arg == "phantom":
        config.name = f"{config.name}_phantom"
    return config


def film_probe(name: str, arg: str, data: Section) -> ConfigDict:
    """Returns the private linear probe of films, or its "phantom": full batches, 60 steps."""
    drawn = DRAWN_GROUPS["data"]
    config = experiment(
        name,
        data=data,
        method={"name": "linear_probe", "size": 64, "symmetric": False},
        optim={"name": "sgd", "momentum": 0.9, "average": "late", "average_from": 45},
        dp={"epsilon": 8.0, "l2_clip_norm": 1.0, "microbatch": 512},
        train={"steps": 60, "expected_batch_size": data["public_size"], "checkpoint_every": 60},
    )
    config.optim.learning_rate = 2.0 * config.dp.get_ref("epsilon")  # less noise, longer strides
    batch = {"expected_batch_size": drawn["public_size"]}
    return variant(config, arg, phantom={"data": drawn, "dp": {"microbatch": 128}, "train": batch})


def data_section(chosen: Section) -> ConfigDict:
    """Returns the section `data` of a config: every field of its source, with what is chosen."""
    fields = dict(chosen)
    if "table" in fields:
        fields["table"] = section(TableConfig, **fields["table"])
    return section(*data_classes(fields["source"]), **fields)


def mitigation_section(chosen: Section) -> ConfigDict:
    """Returns the section of a mitigation, by default none: every field of any of them is open.

    Args:
      chosen: `name`, a key of MITIGATIONS, and fields of its config class; {} for none.
    """
    found = ConfigDict({"name": ""})
    for entry in MITIGATIONS.values():
        for name, hint in typing.get_type_hints(entry.config).items():
            if name not in ("attributes", "labels", "private"):  # those of the data and of dp
                found[name] = config_dict.placeholder(typing.get_origin(hint) or hint)
    found.update(chosen)
    return found


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
        if field.default_factory is dict:
            found[field.name] = ConfigDict()
        if field.name in chosen or field.default is dataclasses.MISSING:
            continue
        plain = [
            kind for kind in typing.get_args(hints[field.name]) if kind in (str, int, float, bool)
        ]
        if field.default is not None:
            found[field.name] = field.default
        elif plain:
            found[field.name] = config_dict.placeholder(plain[0])
    found.update(chosen)
    return found
