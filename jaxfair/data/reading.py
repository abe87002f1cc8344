"""Reads the files of a source, each where its death costs only itself."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxfair.data import sizes, workers
from jaxfair.data.pixels import Job, refusal
from jaxfair.data.stored import Stored
from jaxfair.errors import InputError

__all__ = ["read_files"]

Read = tuple[np.ndarray | None, dict[str, Any]]


def read_files(
    read_pixels: Callable[[Job], Read],
    jobs: Sequence[Job],
    how: Stored,
    *,
    label: str = "decode",
    progress: bool = False,
    processes: int | None = None,
) -> Iterator[Read]:
    """Yields what `read_pixels` gives for each job, in their order; a bad file never ends it.

    A decoder that raises, aborts its process, or takes more time or memory than `how` allows
    has its file set aside with the reason. A process may hold `sizes.WORKER` times
    `how.megabytes`, of which the largest file that is allowed takes the greater part.

    Args:
      read_pixels: of a source; sent by name.
      jobs: the files.
      how: whose limits hold; the same as that of the jobs.
      label: text of the progress bar.
      progress: draws it.
      processes: how many may decode at once; None for one a core.

    Yields:
      the stored pixels, uint8, and the header; or None and {"reason": one sentence}.

    Raises:
      OSError: the disk is full, which is no fault of a file.
    """
    return workers.parallel(
        functools.partial(_read, read_pixels),
        jobs,
        label=label,
        progress=progress,
        processes=processes,
        lost=_lost,
        limits=workers.Limits(how.seconds, sizes.WORKER * how.megabytes),
    )


def _read(read_pixels: Callable[[Job], Read], job: Job) -> Read:
    Image.MAX_IMAGE_PIXELS = None  # `sizes` stands for it; this process is nobody else's
    try:
        with sizes.at_most(job.how.megabytes):
            return read_pixels(job)
    except InputError as error:
        return None, refusal(job, error)


def _lost(job: Job, reason: str) -> Read:
    return None, {"reason": f"{os.path.basename(job.path)} cannot be read: {reason.rstrip('.')}."}
