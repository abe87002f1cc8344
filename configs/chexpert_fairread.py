"""Private FairREAD on CheXpert: an embedding free of sex and age, which are then re-fused.

    python -m jaxfair.train --config configs/chexpert_fairread.py --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_fairread.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_fairread.py:phantom

Four stages with one ledger, per patient: a network learns to tell sex and age group; the second
moment of its embedding within each label is added up, noise included; a second network learns the
labels with an embedding that is held out of the leading directions of that moment (FCRO); and
blocks scale and shift this embedding by the patient's attributes, while an adversary tries to read
them before that (FairREAD). At test time a prediction reads the attributes that are known, or
none with `--config.method.at_test=dropped`: each was dropped for a quarter of the training.

The publication's own arm, which re-fuses the maps of a DenseNet-121, has
`--config.method.arm=published --config.method.backbone=densenet121`; FCRO alone, without
re-fusion, is the method `fcro` of a copy of this file (`--config.method.name` would leave fields
that it lacks). Optimiser and batch are those of configs/chexpert_resnet.py, the clip norm is 1,
above which a second moment would get more noise and no more signal.

`plain` trains without privacy: there the published row loss, which reads other films of a batch,
is in force too. `phantom` is the private experiment on drawn thoraxes, eighty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_GROUPS, experiment, variant

FAIRREAD = {
    "name": "fairread",
    "backbone": "resnet9",
    "activation": "mish",
    "row_weight": 0.0,  # it reads other films of a batch
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
        "chexpert_fairread",
        data={
            "source": "chexpert",
            "image_size": 224,
            "resize": "stretch",
            "equalize": True,
            "labels": (
                "atelectasis", "cardiomegaly", "consolidation", "edema", "pleural_effusion",
            ),
            "uncertain": "ignore",
            "views": ("AP", "PA"),
            "groups": ("sex", "age_group"),  # what is freed and re-fused; the unknown is masked
            "split": "random",
            "public_size": 45_000,  # 70 % of 64,540 patients, rounded; fixes q and delta
        },
        **chosen,
    )  # fmt: skip
    return variant(config, arg, plain=PLAIN, phantom=PHANTOM)
