"""How a network reads images: at which side, and from where in the network on.

Where only the last blocks of an EfficientNet-Lite are trained and no view is drawn anew, the maps
before them are the same in every step. They are computed once and held in memory, as pooled
features are where the head alone is trained, and a step costs what the last blocks cost.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxfair.methods.base import Example, PyTree
from jaxfair.models import heads, lite

__all__ = ["MAPS", "Reading", "blocks_before"]

MAPS = "maps"
"""What an example has instead of `image` where the first blocks were read before."""

SMALLEST = 5
"""The stage whose first block halves the maps for the last time."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """A network and what it is given.

    Attributes:
      network: whose `features` are asked for.
      side: to which images are brought by linear interpolation; 0 as they are.
      blocks: how many blocks are read before the training, of `blocks_before`; 0 for none.
    """

    network: heads.Network
    side: int = 0
    blocks: int = 0

    def features(self, variables: PyTree, batch: Example) -> jax.Array:
        """Returns what `network.features` does, of a batch of images or of `maps` of theirs."""
        network = self.network
        if MAPS in batch:
            backbone: Any = network.backbone
            network = network.clone(backbone=backbone.clone(begins=self.blocks))
            read = batch[MAPS]
        else:
            read = self._images(batch)
        found: Any = network.apply(variables, read, method="features")
        return found

    def maps(self, variables: PyTree, batch: Example) -> jax.Array:
        """Returns the maps (b, h, w, c) before block number `blocks`."""
        backbone: Any = self.network.backbone
        first = self.network.clone(backbone=backbone.clone(begins=self.blocks, gives="block"))
        found: Any = first.apply(variables, self._images(batch), method="features")
        return found

    def _images(self, batch: Example) -> jax.Array:
        images = batch["image"].astype(jnp.float32)
        if not self.side:
            return images
        shape = (len(images), self.side, self.side, images.shape[-1])
        return jax.image.resize(images, shape, "linear")


def blocks_before(backbone: str, freeze: tuple[str, ...]) -> int:
    """Returns the number of the first block of which anything is trained; 0 for none to save.

    Only blocks on the smallest maps, a thirty-second of the image's side, are worth it: those
    before them are as large as the image or larger, and memory is what is paid.

    >>> kept = ("conv_stem", "bn0", "blocks_0", "blocks_10", "blocks_11")
    >>> blocks_before("lite0", kept), blocks_before("lite0", kept[:-1])
    (12, 0)
    """
    if backbone not in lite.VARIANTS:
        return 0
    depths = [stage.blocks for stage in lite.stage_table(backbone)]
    names = ["conv_stem", "bn0", *(f"blocks_{number:02}" for number in range(sum(depths)))]
    stay = [name.startswith(freeze or ("\0",)) for name in names]
    whole = [*stay, False].index(False) - len(names) + sum(depths)
    return whole if whole > sum(depths[:SMALLEST]) else 0
