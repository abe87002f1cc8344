"""The table of sources: a new data set is a module beside this one, and one line here."""

from jaxfair.data.sources import chexpert, cxr14, mimic_cxr, rsna, table, volumes
from jaxfair.data.sources.base import Source

__all__ = ["SOURCES"]

SOURCES: dict[str, Source] = {
    "rsna": rsna,
    "chexpert": chexpert,
    "cxr14": cxr14,
    "mimic_cxr": mimic_cxr,
    "table": table,
    "volumes": volumes,
}
