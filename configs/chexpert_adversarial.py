"""Private fair embeddings on CheXpert: what an adversary can read of sex and age is unlearned.

    python -m jaxfair.train --config configs/chexpert_adversarial.py --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_adversarial.py:plain --config.data.root=DIR
    python -m jaxfair.train --config configs/chexpert_adversarial.py:phantom

One encoder, a disease head and a sensitive head (hidden 256, embeddings of 128), and an adversary
that learns to read sex and age group from the disease embedding, given the labels (equalized odds);
its gradient is reversed towards the encoder. All of it is one loss of one film, so one clip and one
draw pay for it. Network, optimiser, clip and batch are those of configs/chexpert_resnet.py, per
patient; `--config.method.backbone=resnet50` is the thesis's. Its plain classifier of the same
architecture has `--config.method.sensitive_weight=0 --config.method.adversary_weight=0
--config.method.orthogonality=none`, LNTL `adversary_on='features'`, AL `adversary_on='logit'`,
demographic parity `conditional=False`.

`plain` trains without privacy: there the covariance of both embeddings over a batch is driven down
too, and the adversary takes two steps to one of all else.

`phantom` is the private experiment on drawn thoraxes in CheXpert's layout, forty steps long.
"""

from ml_collections import ConfigDict

from jaxfair.experiment import DP_CXR, DRAWN_GROUPS, experiment, variant

ADVERSARIAL = {
    "name": "adversarial",
    "backbone": "resnet9",
    "activation": "mish",
    "orthogonality": "example",  # of each film by itself, which privacy allows
}
PLAIN = {
    "method": {"orthogonality": "batch"},
    "optim": {
        "every": 2,
        "parts": {"adversary": {"every": 1}},
    },  # two steps of the adversary to one
    "dp": {"enabled": False, "microbatch": 128},  # which the covariance sees at once
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the experiment; `arg` is empty, "plain" or "phantom"."""
    config = experiment(
        "chexpert_adversarial",
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
            "groups": ("sex", "age_group"),  # what the adversary reads; what is not known is masked
            "split": "random",
            "public_size": 45_000,  # 70 % of 64,540 patients, rounded; fixes q and delta
        },
        **{**DP_CXR, "method": ADVERSARIAL},
    )  # fmt: skip
    return variant(config, arg, plain=PLAIN, phantom=DRAWN_GROUPS)
