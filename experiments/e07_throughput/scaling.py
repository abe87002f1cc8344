"""What adding up over many devices should cost, on paper: no device is needed.

    python experiments/e07_throughput/scaling.py

A step's totals are two float32 numbers for each parameter, and every device gets those of all
(`engine/step.py`), so that all add them in one order and have the same bits. The link's rates are
those of data sheets; the seconds of a sum alone were measured on one card.
"""

import json
import pathlib
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
WORKS = {
    "fae": {"batch": 512, "parameters": 10_285_048, "sum_ms": 36.6},
    "resnet18_224": {"batch": 128, "parameters": 11_180_616, "sum_ms": 25.3},
}
"""Examples a device, parameters, and the prototype's sum in TF32 on one H200 (first figures)."""

LINKS = {8: ("NVLink, 450 GB/s", 450e9), 64: ("8 nodes, 50 GB/s a card", 50e9)}
"""What a card sends and receives in a second, by the number of devices."""


def scaled(work: str, devices: int) -> dict[str, Any]:
    """Returns bytes that each device receives in a step of one chunk, and what they take, in ms.

    `gathered`: as it is, the totals of all others. `exchanged`: each device would add one share of
    all totals and send that to the rest, the same bits for 2 (n - 1) / n totals; not built.
    `reduced`: float32 by a ring, which adds without the second number (protocol P14 forbids it).
    """
    about, (link, rate) = WORKS[work], LINKS[devices]
    total, others = 8 * about["parameters"], devices - 1
    moved = {
        "gathered": others * total,
        "exchanged": 2 * others * total // devices,
        "reduced": others * total // devices,
    }
    took = {f"{name}_ms": 1e3 * count / rate for name, count in moved.items()}
    share = about["sum_ms"] / (about["sum_ms"] + took["gathered_ms"])
    row = {"work": work, "devices": devices, "link": link, **about}
    return row | {f"{name}_bytes": count for name, count in moved.items()} | took | {"share": share}


def main() -> None:
    rows = [scaled(work, devices) for work in WORKS for devices in LINKS]
    out = HERE / "results" / "scaling.json"
    out.write_text(json.dumps({"source": "data sheets", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
