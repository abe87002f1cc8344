"""Private classification of lung opacities on RSNA chest X-rays with a ResNet9.

    python -m jaxfair.train --config configs/rsna_resnet.py --config.data.root=DIR
    python -m jaxfair.train --config configs/rsna_resnet.py:phantom
    python -m jaxfair.train --config configs/rsna_resnet.py:phantom --config.dp.enabled=False

The data of `rsna_fae` with their labels: opacity or not, films of the third class ("No Lung
Opacity / Not Normal") counted as not normal with `--config.data.anomaly=any`, else left out.
Patients of every class train. Without RSNA's mapping file the unit of privacy is the image.

`phantom` is the same experiment on drawn thoraxes in RSNA's layout, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DRAWN_FILMS, RESNET9, experiment, variant


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty or "phantom"."""
    config = experiment(
        "rsna_resnet",
        data={
            "source": "rsna",
            "image_size": 224,
            "anomaly": "opacity",  # or "any"
            "split": "random",
            "public_size": 7_000,  # patients for training, rounded; fixes q and delta
        },
        method=RESNET9,
        augment={"flip": 0.5},
        optim={"name": "nadam", "learning_rate": 0.0005, "average": "ema"},
        dp={"epsilon": 8.0, "l2_clip_norm": 1.5},
        train={"steps": 5_000, "expected_batch_size": 128, "checkpoint_every": 250},
    )
    return variant(config, arg, phantom=DRAWN_FILMS)
