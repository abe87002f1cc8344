"""What a dry run says: shapes, cost, noise, and the way of every parameter leaf."""

import re

import pytest

from jaxfair import dryrun
from tests.small import small_config


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    config = small_config(tmp_path_factory.mktemp("nothing"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dryrun, "_memory", lambda *a: 0)  # it compiles the step
        return dryrun.describe(config, num_devices=1).splitlines()


def test_every_leaf_is_listed_with_its_way(lines):
    start = next(i for i, line in enumerate(lines) if line.startswith("  clipping "))
    leaves = [re.match(r"    (\w+) +(\[.*\]) \(.+\)$", line) for line in lines[start + 1 : -1]]
    assert all(leaves)
    ways = {leaf[2]: leaf[1] for leaf in leaves}
    assert f"{len(ways)} leaves" in lines[start]
    assert set(ways.values()) <= {"ghost", "product", "kept", "vmap"}
    assert ways["['down0_norm']['scale']"] == "vmap", "a leaf that falls back is listed too"
    assert sum(way == "vmap" for way in ways.values()) == int(
        re.search(r"(\d+) vmap", lines[start])[1]
    )


def test_no_data_is_touched(lines, tmp_path):
    assert lines[-1] == "No data was touched."
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("override", [{"dp__enabled": False}, {"dp__clipping": "vmap"}])
def test_other_ways_of_summing_have_no_leaves_to_list(tmp_path, monkeypatch, override):
    monkeypatch.setattr(dryrun, "_memory", lambda *a: 0)
    text = dryrun.describe(small_config(tmp_path, **override), num_devices=1)
    assert "leaves:" not in text
    assert ("none (dp.enabled=False)" in text) == ("dp__enabled" in override)
