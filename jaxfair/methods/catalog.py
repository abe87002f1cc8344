"""The Methods by name; a new one is a file beside this one and a line here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxfair.errors import InputError, nearest
from jaxfair.methods import (
    adversarial,
    classifier,
    deepsvdd,
    distillation,
    fae,
    fairread,
    fcro,
    gaussian,
    pca,
    probe,
    ssim_autoencoder,
)
from jaxfair.methods.adversarial import AdversarialConfig, make_adversarial
from jaxfair.methods.base import Method
from jaxfair.methods.classifier import ClassifierConfig, make_classifier
from jaxfair.methods.deepsvdd import DeepSVDDConfig, make_deepsvdd
from jaxfair.methods.distillation import DistillationConfig, make_distillation
from jaxfair.methods.fae import FAEConfig, make_fae
from jaxfair.methods.fairread import FairreadConfig, make_fairread
from jaxfair.methods.fcro import FcroConfig, make_fcro
from jaxfair.methods.gaussian import GaussianConfig, make_gaussian
from jaxfair.methods.pca import PCAConfig, make_pca
from jaxfair.methods.probe import ProbeConfig, make_probe
from jaxfair.methods.ssim_autoencoder import SSIMAutoencoderConfig, make_ssim_autoencoder

__all__ = ["METHODS", "Entry", "make_method"]


class Entry(NamedTuple):
    """What the house knows of a Method.

    Attributes:
      config: its frozen config class, `config.method` of a config file.
      make: `(config, **parts) -> Method`.
      describe: `(config) -> {...}`, what a report must say: random or pretrained, checksum.
      parts: `optim.parts` of parameters that only one optimiser serves, as sums that are added up.
    """

    config: Any
    make: Callable[..., Method]
    describe: Callable[[Any], dict[str, Any]]
    parts: Mapping[str, Mapping[str, Any]] = MappingProxyType({})


METHODS: dict[str, Entry] = {
    "fae": Entry(FAEConfig, make_fae, fae.describe),
    "classifier": Entry(ClassifierConfig, make_classifier, classifier.describe),
    "adversarial": Entry(AdversarialConfig, make_adversarial, adversarial.describe),
    "fcro": Entry(FcroConfig, make_fcro, fcro.describe),
    "fairread": Entry(FairreadConfig, make_fairread, fairread.describe),
    "gaussian": Entry(GaussianConfig, make_gaussian, gaussian.describe, gaussian.MOMENT),
    "pca": Entry(PCAConfig, make_pca, pca.describe, gaussian.MOMENT),
    "deepsvdd": Entry(DeepSVDDConfig, make_deepsvdd, deepsvdd.describe),
    "reverse_distillation": Entry(DistillationConfig, make_distillation, distillation.describe),
    "ssim_autoencoder": Entry(
        SSIMAutoencoderConfig, make_ssim_autoencoder, ssim_autoencoder.describe
    ),
    "linear_probe": Entry(ProbeConfig, make_probe, probe.describe),
}


def make_method(name: str, config: Any, **parts: Any) -> Method:
    """Returns the Method `name` built from its config; raises InputError for an unknown name.

    `parts` are functions that a config cannot hold, such as the classifier's `augment`.
    """
    if name not in METHODS:
        known = ", ".join(METHODS)
        raise InputError(f"There is no method {name!r}; known are {known}.{nearest(name, METHODS)}")
    return METHODS[name].make(config, **parts)
