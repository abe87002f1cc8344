"""Compiled programs that outlive the process."""

import os
import pathlib

import jax

__all__ = ["keep_compilations"]


def keep_compilations() -> None:
    """Keeps compiled programs on disk, so that a command that starts again need not wait.

    They lie in JAX_COMPILATION_CACHE_DIR, or in `jaxfair/xla` of the user's cache folder
    (XDG_CACHE_HOME, else ~/.cache). A program is a function of code, shapes and constants, and no
    patient is in it.
    """
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        cache = os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", f"{cache}/jaxfair/xla")
