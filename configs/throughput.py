"""What a private step costs, model by model.

    python -m jaxfair.benchmark --config configs/throughput.py --out throughput.json
    python -m jaxfair.benchmark --config configs/throughput.py:quick --out quick.json
    python -m jaxfair.benchmark --config configs/throughput.py:devices --devices 1,2,4,8 --out FILE
    python -m jaxfair.benchmark --config configs/throughput.py:gpu --budget_s 240 --out gpu.json

On two CPU cores the full list takes about half an hour, `quick` about two minutes. `devices` is
one work, in few rounds: on CPU several devices share the cores and show that sums are right, not
that they are faster. One work alone: `--config.only="('fae',)"`. Results and what to expect:
experiments/e07_throughput.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "quick", "devices", "gpu")
GPU = ("fae", "resnet18_224", "resnet9_128", "resnet9_3d", "fae_pixels")
LABELS = tuple(f"label{i}" for i in range(8))


def get_config(arg: str = "") -> ConfigDict:
    """Returns the benchmark; `arg` is one of VARIANTS."""
    if arg not in VARIANTS:
        raise ValueError(f"the variant {arg!r} does not exist; known are {VARIANTS}.")
    config = ConfigDict()
    config.works = ConfigDict()
    config.works.fae = _fae(prepared=True, batch=32)
    config.works.fae_pixels = _fae(prepared=False, batch=32)
    config.works.resnet9_64 = _classifier("resnet9", (64, 64, 1), batch=32)
    config.works.resnet9_128 = _classifier("resnet9", (128, 128, 1), batch=16)
    config.works.resnet9_512 = _classifier("resnet9", (512, 512, 1), batch=4)
    config.works.resnet18_224 = _classifier("resnet18", (224, 224, 1), batch=8)
    config.works.resnet9_3d = _classifier("resnet9", (32, 32, 32, 1), batch=4)
    config.only = ()  # names of works; empty for all
    config.ways = ("non-private", "vmap", "fast")  # ratios are to the first
    config.precisions = ("float32",)
    config.l2_clip_norm = 0.01
    config.rounds = 9
    config.seconds = 60.0  # per work, after which no further round begins
    config.check = True  # errors against the loop over single examples
    config.check_rows = 0  # on all of them
    config.explain = False  # each leaf alone, predicted and measured
    config.largest_batch = True
    config.memory_gib = 16.0
    if arg == "quick":
        config.only = ("fae", "resnet9_64")
        config.works.fae.batch, config.works.resnet9_64.batch = 8, 8
        config.rounds, config.seconds, config.largest_batch = 3, 20.0, False
    if arg == "devices":
        config.only = ("resnet9_64",)
        config.rounds, config.seconds, config.largest_batch = 3, 20.0, False
    if arg == "gpu":
        config.only = GPU  # in order of worth
        config.precisions = ("tf32", "bfloat16", "float32")
        config.ways = ("non-private", "fast")
        config.rounds, config.seconds = 10, 8.0
        config.check_rows, config.largest_batch, config.memory_gib = 16, False, 64.0
        for work in config.works.values():
            work.batch *= 16
    return config


def _fae(*, prepared: bool, batch: int) -> ConfigDict:
    return ConfigDict(
        {
            "method": "fae",
            "options": {},
            "image": (128, 128, 1),
            "prepared": prepared,
            "batch": batch,
        }
    )


def _classifier(backbone: str, image: tuple[int, ...], *, batch: int) -> ConfigDict:
    options = {"labels": LABELS, "backbone": backbone, "ndim": len(image) - 1, "activation": "mish"}
    return ConfigDict(
        {
            "method": "classifier",
            "options": options,
            "image": image,
            "prepared": False,
            "batch": batch,
        }
    )
