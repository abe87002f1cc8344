"""Private anomaly detection on any table of films with a feature autoencoder.

    python -m jaxfair.train --config configs/table_fae.py --config.data.root=DIR
    python -m jaxfair.train --config configs/table_fae.py:phantom
    python -m jaxfair.train --config configs/table_fae.py:phantom --config.dp.enabled=False

The experiment of `rsna_fae` for whoever has films and not RSNA's: a CSV names each film, its
patient and what is seen on it, and the network learns from patients without any finding. Name
your columns in `data.table`; `anomaly` takes one or several columns of 0 and 1, and a film with a
1 in any of them is abnormal. The labels are only read to choose and to score: a film whose cell
is empty neither trains nor tests.

Give `--config.method.extractor_name=lite0` (docs/weights.md) or
`--config.method.extractor_weights=FILE` for ImageNet features; without it the extractor is random
and every report says so. `phantom` is the same on drawn thoraxes.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_COLUMNS, experiment, variant

FINDINGS = (
    "cardiomegaly",
    "congestion",
    "pleural_effusion_right",
    "pleural_effusion_left",
    "pneumonic_infiltrates_right",
    "pneumonic_infiltrates_left",
    "atelectasis_right",
    "atelectasis_left",
)

PHANTOM = {
    "data": {"public_size": 200, "phantom": {"n_images": 2_400, "seed": 0, "pixels": 128}},
    "method": {"hidden_dims": (25, 50, 75, 100)},
    "optim": {"learning_rate": 1e-3},
    "dp": {"microbatch": 32},
    "train": {"steps": 60, "expected_batch_size": 32, "checkpoint_every": 20},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "table_fae",
        data={
            "source": "table",
            "table": {**DRAWN_COLUMNS, "anomaly": FINDINGS},
            "image_size": 128,
            "split": "patient",
            "public_size": 5_000,  # patients without findings, rounded by you; fixes q and delta
        },
        method={
            "name": "fae",
            "hidden_dims": (100, 150, 200, 300),
            "dropout": 0.1,
            "feature_dtype": "bfloat16",
        },
        optim={"name": "adam", "learning_rate": 2e-4},
        dp={"epsilon": 8.0, "l2_clip_norm": 0.01},
        train={"steps": 20_000, "expected_batch_size": 512, "checkpoint_every": 500},
    )
    return variant(config, arg, phantom=PHANTOM)
