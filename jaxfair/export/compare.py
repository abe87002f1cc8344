"""Whether an exported program says what the run said."""

import numpy as np
import pandas as pd

from jaxfair.data.dataset import Dataset
from jaxfair.errors import InputError
from jaxfair.model_file.model import Model

__all__ = ["TOLERANCE", "check_scores"]

TOLERANCE = 1e-5
"""By how much a score of the file may differ from the run's."""
COMPARED = 64
"""Images on which the file is compared with the run."""


def check_scores(model: Model, dataset: Dataset, scored: pd.DataFrame) -> None:
    """Scores COMPARED images again.

    Args:
      scored: predictions.parquet of the run.

    Raises InputError where a score is more than TOLERANCE from the run's, or is no finite number,
    and where for a label there is no image to compare.
    """
    place = pd.Series(range(len(dataset)), dataset.manifest["image_id"])
    there = scored[scored["image_id"].isin(place.index)]
    ids = there["image_id"].drop_duplicates().iloc[:COMPARED]
    rows = place[ids].to_numpy()
    groups = {name: list(dataset.manifest[name].iloc[rows]) for name in model.groups}
    found = model.score(np.asarray(dataset.pixels[rows]), groups)
    for task in model.tasks:
        mine = pd.Series(found[task], ids)
        theirs = there[there["task"] == task].drop_duplicates("image_id").set_index("image_id")
        both = theirs.index.intersection(mine.index)
        if both.empty:
            raise InputError(
                f"The run's predictions.parquet has no score of {task} for an image of its data, "
                "so its program cannot be compared: evaluate the run again, then export it."
            )
        apart = np.abs(mine[both].to_numpy() - theirs.loc[both, "y_score"].to_numpy()).max()
        if not apart <= TOLERANCE:
            raise InputError(
                f"The exported program scores {task} up to {apart:.2g} apart from the run's "
                "predictions.parquet: evaluate the run again by this jax, then export it."
            )
