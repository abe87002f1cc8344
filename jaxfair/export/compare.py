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

    Raises InputError where one score is more than TOLERANCE from the run's.
    """
    place = pd.Series(range(len(dataset)), dataset.manifest["image_id"])
    ids = scored["image_id"].drop_duplicates().iloc[:COMPARED]
    ids = ids[ids.isin(place.index)]
    rows = place[ids].to_numpy()
    groups = {name: list(dataset.manifest[name].iloc[rows]) for name in model.groups}
    found = model.score(np.asarray(dataset.pixels[rows]), groups)
    for task in model.tasks:
        mine = pd.Series(found[task], ids)
        theirs = scored[scored["task"] == task].drop_duplicates("image_id").set_index("image_id")
        both = theirs.index.intersection(mine.index)
        apart = np.abs(mine[both] - theirs.loc[both, "y_score"]).max() if len(both) else 0.0
        if not apart <= TOLERANCE:
            raise InputError(
                f"The exported program scores {task} up to {apart:.2g} apart from the run's "
                "predictions.parquet: evaluate the run again by this jax, then export it."
            )
