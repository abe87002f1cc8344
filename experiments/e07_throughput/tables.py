"""Writes the measured tables into the pages: `python tables.py`, or `--check` to compare alone.

Results lie in results/*.json. A page holds each table between `<!-- NAME -->` and
`<!-- end -->`; what stands there is replaced, so no number is copied by hand.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
PAGES = (HERE / "README.md", HERE.parents[1] / "README.md")
WORKS = {
    "fae": "FAE, cached features, B={}",
    "fae_pixels": "FAE from pixels, B={}",
    "resnet9_64": "ResNet9 64 px, B={}",
    "resnet9_128": "ResNet9 128 px, B={}",
    "resnet9_512": "ResNet9 512 px, B={}",
    "resnet18_224": "ResNet-18 GN 224 px, B={}",
    "resnet9_3d": "ResNet9 3D 32^3, B={}",
}

Row = dict[str, Any]


def read(name: str) -> list[Row]:
    """Returns the rows of results/NAME.json, works in the order of WORKS."""
    rows = json.loads((HERE / "results" / f"{name}.json").read_text())["rows"]
    order = {work: i for i, work in enumerate(WORKS)}
    return sorted(rows, key=lambda row: (order.get(row["work"], 0), row.get("devices", 1)))


def speeds() -> Iterator[Sequence[str]]:
    """One sum of gradients: every work and way on one device."""
    yield ("work", "way", "examples/s", "x non-private (spread)", "by CPU time", "MiB",
           "compile s", "largest batch", "error", "GFLOP", "% GEMM", "% copy")  # fmt: skip
    for row in read("benchmark"):
        if row["devices"] > 1:
            continue
        low, high = row["ratio_spread"]["min"], row["ratio_spread"]["max"]
        largest = row["largest_batch"]
        if largest and largest > 1000 * row["batch"]:
            largest = None  # a line through two small batches says nothing so far out
        yield (name(row), row["way"], number(row["examples_per_second"]),
               f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})", f"{row['cpu_ratio']:.2f}",
               f"{row['memory_mib']:,.0f}", f"{row['compile_seconds']:.1f}",
               "" if largest is None else f"{largest:,}", f"{row['relative_error']:.0e}",
               number(row["useful_gflop"]), f"{row['percent_of_gemm']:.0f}",
               f"{row['percent_of_copy']:.0f}")  # fmt: skip


def devices() -> Iterator[Sequence[str]]:
    """The same sums on several devices of one machine."""
    yield ("work", "way", "devices", "examples/s", "error of the sum", "error of one row alone")
    rows = read("benchmark")
    several = {row["work"] for row in rows if row["devices"] > 1}
    for row in rows:
        if row["work"] in several:
            yield (name(row), row["way"], str(row["devices"]),
                   number(row["examples_per_second"]), f"{row['relative_error']:.0e}",
                   f"{row['isolation_error']:.0e}")  # fmt: skip


def peers() -> Iterator[Sequence[str]]:
    """Every way of a model in a process of its own."""
    yield ("work", "way", "examples/s", "seconds (min-max)", "fast is faster by", "by CPU time",
           "process MiB")  # fmt: skip
    for row in read("peers"):
        low, high = row["seconds_min"], row["seconds_max"]
        yield (name(row), row["way"], number(row["examples_per_second"]),
               f"{row['seconds_median']:.2f} ({low:.2f}-{high:.2f})",
               f"{row['fast_is_x_faster']:.2f}", f"{row['fast_is_x_faster_cpu']:.2f}",
               f"{row['peak_process_mib']:,.0f}")  # fmt: skip


def loop() -> Iterator[Sequence[str]]:
    """Whole steps of training runs."""
    yield ("run", "microbatch", "steps", "seconds a step", "device waits", "compiles of the step")
    for row in read("loop"):
        yield (row["work"], str(row["microbatch"]), str(row["steps"]),
               f"{row['seconds_per_step']:.2f}", f"{100 * row['waiting_share']:.2f} %",
               str(row["compiles_of_the_step"]))  # fmt: skip


def predicted() -> Iterator[Sequence[str]]:
    """What each leaf should cost on a GPU; leaves below a hundredth of the work in one line."""
    yield ("work, TF32", "leaf", "way", "groups, positions, rows, columns", "predicted ms")
    rows = read("predicted")
    for work in dict.fromkeys(row["work"] for row in rows):
        mine = [row for row in rows if row["work"] == work]
        total = sum(row["predicted_ms"] for row in mine)
        large = [row for row in mine if row["predicted_ms"] >= total / 100]
        for row in large:
            shape = [row[n] for n in ("groups", "positions", "rows", "cols")]
            told = ", ".join(f"{size:,}" for size in shape if size)
            yield (name(row), f"`{row['leaf']}`", row["way"], told, f"{row['predicted_ms']:.2f}")
        rest = total - sum(row["predicted_ms"] for row in large)
        yield name(mine[0]), f"{len(mine) - len(large)} others", "", "", f"{rest:.2f}"
        yield name(mine[0]), "all", "", "", f"{total:.1f}"


def scaling() -> Iterator[Sequence[str]]:
    """What the devices tell each other in a step, on paper."""
    yield ("work, examples a device", "devices", "link", "sum alone, ms", "MB gathered", "ms",
           "share of the sum", "exchanged (not built): MB", "ms", "float32 ring (forbidden): MB",
           "ms")  # fmt: skip
    for row in read("scaling"):
        told = [(f"{row[f'{how}_bytes'] / 1e6:,.0f}", f"{row[f'{how}_ms']:.1f}")
                for how in ("gathered", "exchanged", "reduced")]  # fmt: skip
        yield (name(row), str(row["devices"]), row["link"], f"{row['sum_ms']:.1f}", *told[0],
               f"{row['share']:.0%}", *told[1], *told[2])  # fmt: skip


def summary() -> Iterator[Sequence[str]]:
    """What the project's first page shows."""
    yield ("examples per second", "no privacy", "private", "ratio of the times",
           "beside peers: private", "Opacus, best way", "jax_privacy",
           "torch, no privacy")  # fmt: skip
    ours = {(r["work"], r["way"]): r for r in read("benchmark") if r["devices"] == 1}
    theirs = {(r["work"], r["way"]): r for r in read("peers")}
    for work in dict.fromkeys(work for work, _ in theirs):
        plain, fast = ours[work, "non-private"], ours[work, "fast"]
        opacus = [r for (w, way), r in theirs.items() if w == work and way.startswith("opacus")]
        beside = [theirs[work, way] for way in ("jaxfair-fast", "jax-privacy", "torch")]
        beside.insert(1, max(opacus, key=lambda row: row["examples_per_second"]))
        shown = [row["examples_per_second"] for row in (plain, fast, *beside)]
        yield (name(plain), *map(number, shown[:2]), f"{fast['ratio']:.2f}",
               *map(number, shown[2:]))  # fmt: skip


TABLES = {
    "speeds": speeds,
    "devices": devices,
    "peers": peers,
    "loop": loop,
    "predicted": predicted,
    "scaling": scaling,
    "summary": summary,
}


def name(row: Row) -> str:
    """The work in words."""
    return WORKS[row["work"]].format(row["batch"])


def number(value: float) -> str:
    """Three digits, never an exponent."""
    return f"{float(f'{value:.3g}'):,g}"


def filled(page: str) -> str:
    """Returns the text of a page with every table made anew."""

    def table(found: re.Match[str]) -> str:
        head, *rows = TABLES[found[1]]()
        lines = [head, ["---"] * len(head), *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"<!-- {found[1]} -->\n{text}\n<!-- end -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main(argv: Sequence[str]) -> int:
    """Returns 0; with --check 1 where a page differs from the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, differ = parser.parse_args(list(argv)).check, False
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if filled(text) != text:
            differ = True
            print(f"{page.name} in {page.parent.name}/ {'differs' if check else 'is written'}")
            if not check:
                page.write_text(filled(text), encoding="utf-8")
    return int(check and differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
