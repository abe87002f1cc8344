"""Trains a network on drawn images alone, so that its weights are public, and writes them.

    jaxfair pretrain --config pretrain_drawn --out drawn.safetensors
    jaxfair pretrain --config pretrain_drawn:quick --out /tmp/drawn.safetensors
    jaxfair train --config derm_resnet --config.method.weights=drawn.safetensors

Images are drawn on the device while it trains (jaxfair/pretrain/images.py); no data is read. The
network learns to call two views of an image the same and views of different images not (Wang and
Isola 2020; Baradad et al. 2021). FILE has the names of torchvision, in bfloat16, and is read by
`method.weights` of the same backbone. WORKDIR holds the training, which the same command resumes.
"""

import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from jaxfair import engine, files
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.engine.compiling import keep_compilations
from jaxfair.engine.optim import averaged_params, make_optimizer
from jaxfair.errors import InputError
from jaxfair.methods.base import PyTree
from jaxfair.model_file.tensors import tensors_to_bytes
from jaxfair.models.pretrained import torch_name
from jaxfair.pretrain.config import PretrainConfig, read_config, sections
from jaxfair.pretrain.contrast import make_contrast
from jaxfair.privacy import PrivacyConfig, make_plan

__all__ = ["COMMAND", "main", "run", "weights_file"]

COMMAND = Command(
    name="pretrain",
    about=str(__doc__),
    flags=(
        Flag("out", str, None, "where the weights go, a .safetensors"),
        Flag("workdir", str, None, "folder of the training; left out: runs/NAME"),
    ),
    sections=sections,
)


def run(
    config: ConfigDict,
    out: str | os.PathLike[str],
    workdir: str | os.PathLike[str],
    *,
    progress: bool = True,
) -> pathlib.Path:
    """Trains, or resumes what was begun in `workdir`, and writes the weights; returns their file.

    Raises InputError for a config or a file that will not do, before anything is trained.
    """
    path, settings = pathlib.Path(out), read_config(config)
    if path.suffix != ".safetensors":
        raise InputError(f"--out is {path.name!r}; give a name that ends in .safetensors.")
    _check_place(path)
    keep_compilations()
    params = _trained(settings, config, workdir, progress)
    files.write_bytes(path, weights_file(params["backbone"]))
    return path


def weights_file(backbone: PyTree) -> bytes:
    """Returns parameters as safetensors in bfloat16, with the names and axes of torchvision."""
    found = {}
    for names, leaf in traverse_util.flatten_dict(backbone).items():
        value = np.asarray(leaf, np.float32)
        if value.ndim > 1:  # (*window, in, out) -> (out, in, *window)
            value = np.moveaxis(value, (-2, -1), (1, 0))
        found[torch_name(names)] = np.ascontiguousarray(value).astype(ml_dtypes.bfloat16)
    return tensors_to_bytes(found)


def _trained(
    settings: PretrainConfig, config: ConfigDict, workdir: str | os.PathLike[str], progress: bool
) -> PyTree:
    numbers, train = np.arange(settings.images, dtype=np.int32), settings.train
    plan = make_plan(
        PrivacyConfig(enabled=False),
        steps=train.steps,
        expected_batch_size=train.expected_batch_size,
        public_size=settings.images,
    )
    trainer = engine.open(
        plan,
        make_contrast(settings.network),
        make_optimizer(settings.optim),
        engine.population_from_ids(numbers, unit="image", name="drawn images"),
        {"number": numbers.__getitem__},
        workdir,
        spec={"number": jax.ShapeDtypeStruct((), np.int32)},
        config=_told(config),
        options=engine.Options(
            save_every=train.checkpoint_every,
            microbatch=2 * train.expected_batch_size,  # all of a draw: views are compared within
            seed=settings.seed,
            progress=progress,
        ),
    )
    with trainer:
        for _ in trainer.steps():
            pass
        return jax.device_get(averaged_params(trainer.state.params, trainer.state.opt_state))


def _check_place(path: pathlib.Path) -> None:
    """Raises InputError where the weights could not be written after hours of training."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: no file can lie at {path} ({error.strerror}).") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out: {path} cannot be written; name a file in a folder of yours.")


def _told(config: ConfigDict) -> dict[str, Any]:
    """What config.json holds beside what the plan and the options say."""
    tree = config.to_dict()
    return {"pretraining": {name: tree[name] for name in ("name", "images", "network", "optim")}}


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit status: 0, or 2 for refused input."""
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    if not line.flags["out"]:
        raise InputError("Give --out FILE.safetensors: it holds the weights.")
    workdir = line.flags["workdir"] or pathlib.Path("runs", line.config.name)
    print(run(line.config, line.flags["out"], workdir))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
