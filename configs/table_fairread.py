"""Private FairREAD on any table of images: an embedding free of attributes, then re-fused.

    python -m jaxfair.train --config configs/table_fairread.py --config.data.root=DIR
    python -m jaxfair.train --config configs/table_fairread.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/table_fairread.py:phantom
    python -m jaxfair.train --config configs/table_fairread.py:phantom --config.dp.enabled=False

Name the columns of your table in `data.table`, and in `data.groups` the attributes that are freed
and re-fused: sex, age_group, or a column of `data.table.attributes` whose public values
`data.table.values` lists. Stages, arms and training are those of configs/chexpert_fairread.py.

`plain` trains without privacy, `phantom` privately on drawn thoraxes in the layout of such a
table, eighty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_COLUMNS, DRAWN_GROUPS, experiment, variant

FAIRREAD = {
    "name": "fairread",
    "backbone": "resnet9",
    "activation": "mish",
    "row_weight": 0.0,  # it reads other images of a batch
}
PLAIN = {
    "method": {"row_weight": 500.0},
    "dp": {"enabled": False, "microbatch": 128},  # which the row loss sees at once
}
PHANTOM = {**DRAWN_GROUPS, "train": {**DRAWN_GROUPS["train"], "steps": 80}}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain" or "phantom"."""
    chosen = {**DP_CXR, "method": FAIRREAD, "dp": {**DP_CXR["dp"], "l2_clip_norm": 1.0}}
    config = experiment(
        "table_fairread",
        data={
            "source": "table",
            "table": {**DRAWN_COLUMNS, "labels": ("cardiomegaly",)},
            "image_size": 224,
            "resize": "stretch",
            "equalize": True,
            "groups": ("sex", "age_group"),
            "split": "random",
            "public_size": 10_000,  # training patients, rounded by you; fixes q and delta
        },
        **chosen,
    )
    return variant(config, arg, plain=PLAIN, phantom=PHANTOM)
