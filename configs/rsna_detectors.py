"""Private anomaly detectors beside the feature autoencoder, on RSNA chest X-rays.

    python -m jaxfair.train --config configs/rsna_detectors.py --config.data.root=DIR
    python -m jaxfair.train --config configs/rsna_detectors.py:pca --config.data.root=DIR
    python -m jaxfair.train --config configs/rsna_detectors.py:gaussian_phantom
    python -m jaxfair.train --config configs/rsna_detectors.py:deepsvdd_phantom

The variants are `gaussian` (also ""), `pca`, `deepsvdd`, `reverse_distillation` and
`ssim_autoencoder`; with `_phantom` each is sized for two CPU cores, on the drawn thoraxes of
`rsna_fae:phantom`. `gaussian` and `pca` train no network: every step adds up a second moment of all
patients (q = 1), and the epsilon of many full batches is that of one with the same noise. The
others are trained as the autoencoder is.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxfair.experiment import experiment

DATA = {
    "source": "rsna",
    "image_size": 128,
    "anomaly": "opacity",
    "split": "patient",
    "public_size": 6_000,  # normals for training, rounded; fixes q and delta
}
PHANTOM = {
    "public_size": 600,
    "phantom": ConfigDict({"n_images": 2_400, "seed": 0, "pixels": 256}),
}
SUMS = {"steps": 30, "checkpoint_every": 10}
TRAINED = {"steps": 20_000, "expected_batch_size": 512, "checkpoint_every": 500}
TRAINED_PHANTOM = {"steps": 100, "expected_batch_size": 32, "checkpoint_every": 25}

METHODS: dict[str, dict[str, Any]] = {  # name -> fields, and those of the phantom
    "gaussian": {"full": {"dims": 32}, "phantom": {"dims": 16}},
    "pca": {"full": {"dims": 32, "directions": 16}, "phantom": {"dims": 16, "directions": 8}},
    "deepsvdd": {"full": {}, "phantom": {"hidden_dims": (8, 16, 32, 64), "dims": 32}},
    "reverse_distillation": {
        "full": {"feature_dtype": "bfloat16"},
        "phantom": {"feature_dtype": "bfloat16", "width": 16},
    },
    "ssim_autoencoder": {"full": {}, "phantom": {"hidden_dims": (8, 16, 32, 64)}},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is a method, with "_phantom" for the stand-in."""
    name, drawn = arg.removesuffix("phantom").removesuffix("_") or "gaussian", "phantom" in arg
    if name not in METHODS or arg not in ("", name, "phantom", f"{name}_phantom"):
        known = ", ".join(repr(method) for method in METHODS)
        raise ValueError(
            f"the variant {arg!r} does not exist; known are '', {known}, and each with '_phantom'."
        )
    data = {**DATA, **PHANTOM} if drawn else DATA
    sums = name in ("gaussian", "pca")
    train = TRAINED_PHANTOM if drawn else TRAINED
    return experiment(
        f"rsna_{name}_phantom" if drawn else f"rsna_{name}",
        data=data,
        method={"name": name, **METHODS[name]["phantom" if drawn else "full"]},
        optim={"learning_rate": 1e-3 if drawn else 2e-4},  # sums take no rate
        dp={
            "epsilon": 8.0,
            "l2_clip_norm": 1.0 if sums else 0.01,
            "microbatch": (128 if sums else 32) if drawn else 0,
        },
        train={**SUMS, "expected_batch_size": data["public_size"]} if sums else train,
    )
