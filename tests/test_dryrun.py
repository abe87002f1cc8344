"""What a dry run says: shapes, cost, noise, and the way of every parameter leaf."""

import os
import pathlib
import re
import sys

import jax
import numpy as np
import pytest

from jaxfair import dryrun, train
from jaxfair.config import load_config, method_from_settings, settings_from_config
from jaxfair.errors import InputError
from tests.small import small_config
from tests.test_phantoms import FILMS, FOLDER

MIB = 2**20
VMAP = {"dp.clipping": "vmap"}
_WATCHES: list[tuple[str, set[str]]] = []


def _hear(event: str, args: tuple) -> None:
    """Notes every path below a watched folder that Python is about to open, list or make."""
    for root, seen in _WATCHES:
        for value in args:
            if isinstance(value, str | bytes | os.PathLike):
                path = os.path.abspath(os.fsdecode(value))
                if path == root or path.startswith(root + os.sep):
                    seen.add(f"{event} {path}")


@pytest.fixture(scope="module")
def watch():
    """`watch(folder)` returns the set of what is touched there from now on.

    An audit hook cannot be taken away, so there is one, and it hears nothing after the module.
    """
    sys.addaudithook(_hear)

    def start(folder: pathlib.Path) -> set[str]:
        seen: set[str] = set()
        _WATCHES.append((os.path.abspath(folder), seen))
        return seen

    yield start
    _WATCHES.clear()


@pytest.fixture(scope="module")
def dry(tmp_path_factory, watch):
    """(lines, what was touched below the folder of the data, its files afterwards)."""
    home = tmp_path_factory.mktemp("untouched")
    config = small_config(home)
    (home / "phantoms").mkdir()
    (home / "phantoms" / "image.dcm").write_bytes(b"nobody reads me")
    touched = watch(home)
    lines = dryrun.describe(config, num_devices=1).splitlines()
    seen = set(touched)
    return lines, seen, sorted(str(path.relative_to(home)) for path in home.rglob("*"))


@pytest.fixture(scope="module")
def lines(dry):
    return dry[0]


def mebibytes(lines) -> float:
    (found,) = [m for line in lines if (m := re.match(r" *memory\D*([\d,]+) MiB", line))]
    return float(found[1].replace(",", ""))


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


def test_no_data_is_touched(dry):
    lines, touched, files = dry
    assert lines[-1] == "No data was touched."
    assert touched == set()
    assert files == ["phantoms", "phantoms/image.dcm"]


def test_the_watch_that_finds_no_data_touched_does_hear(tmp_path, watch):
    seen = watch(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file").write_text("x")
    list((tmp_path / "made").iterdir())
    assert {entry.split()[0] for entry in seen} >= {"os.mkdir", "open"}
    assert any(entry.startswith(("os.listdir", "os.scandir")) for entry in seen)


def least_mebibytes(settings) -> float:
    """What must be held: parameters, optimiser, frozen part, the features of a microbatch."""
    method = method_from_settings(settings)
    params, frozen = jax.eval_shape(
        lambda key: method.init(key, settings.data.spec), jax.random.key(0)
    )
    example = jax.eval_shape(method.prepare, frozen, settings.data.spec)
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((params, frozen)))
    batch = sum(s.size * np.dtype(s.dtype).itemsize for s in jax.tree.leaves(example))
    return (held + settings.dp.microbatch * batch) / MIB


def test_the_memory_is_above_what_must_be_held(lines, tmp_path):
    least = least_mebibytes(settings_from_config(small_config(tmp_path)))
    assert least < mebibytes(lines) < 200 * least


@pytest.mark.parametrize("way", ["fast", "vmap"])
def test_the_estimated_memory_is_near_that_of_the_compiled_step(tmp_path, way):
    config = small_probe(tmp_path, **{"dp.clipping": way, "dp.microbatch": 128})
    estimate, exact = (
        mebibytes(dryrun.describe(config, num_devices=1, compiled=compiled).splitlines())
        for compiled in (False, True)
    )
    assert exact / 2 <= estimate <= 2 * exact


COMPILES_NO_STEP = [
    f"{path}{variant}"
    for path in sorted(FOLDER.glob("*.py"))
    if path.stem in ("ct_slices", "derm_resnet", "table_fae")
    for variant in ("", ":phantom")
][::2]


@pytest.mark.parametrize("name", COMPILES_NO_STEP, ids=lambda name: pathlib.Path(name).name)
def test_neither_the_network_nor_the_step_is_compiled(name, caplog):
    config = load_config(name)
    with config.unlocked():
        config.dp.enabled = False  # the noise is found elsewhere, and takes its time
    with jax.log_compiles(), caplog.at_level("WARNING"):
        dryrun.describe(config, num_devices=1)
    compiled = set(re.findall(r"XLA compilation of jit\((\w+)\)", caplog.text))
    assert not compiled & {"init", "update", "local_sum", "fun", "prepare"}


def small_probe(folder: pathlib.Path, **overrides):
    """A head on fixed features: little to compile."""
    config = load_config(f"{FOLDER / 'derm_probe'}.py:phantom")
    with config.unlocked():
        config.data.root = str(folder / "phantoms")
        config.update_from_flattened_dict(FILMS | overrides)
    return config


def test_the_memory_grows_with_the_microbatch(tmp_path):
    small, large = (
        dryrun.describe(small_probe(tmp_path, **VMAP | {"dp.microbatch": size}), num_devices=1)
        for size in (16, 512)
    )
    assert mebibytes(large.splitlines()) > 4 * mebibytes(small.splitlines())


def staged(**overrides):
    config = load_config(f"{FOLDER / 'derm_fairread'}.py:phantom")
    with config.unlocked():
        config.method.backbone = "features"
        config.update_from_flattened_dict({"dp.enabled": False} | overrides)
    return dryrun.describe(config, num_devices=1)


def test_every_stage_is_told_and_checked_as_the_run_will_check_it():
    parts = {"fusion/adversary": {"every": 1}}  # which the last stage has alone
    found = re.findall(r"stage (\d) of 4  (.*): (\d+) steps", staged(**{"optim.parts": parts}))
    assert [int(number) for number, _, _ in found] == [1, 2, 3, 4]
    assert [int(steps) for _, _, steps in found] == [24, 4, 24, 28]
    with pytest.raises(InputError, match="leaves one without a step"):
        staged(**{"train.steps": 3})
    with pytest.raises(InputError, match=r"optim\.parts\.advers is no part .* fusion"):
        staged(**{"optim.parts": {"advers": {"every": 1}}})


@pytest.mark.parametrize("override", [{"dp.enabled": False}, VMAP])
def test_other_ways_of_summing_have_no_leaves_to_list(tmp_path, override):
    text = dryrun.describe(small_probe(tmp_path, **override), num_devices=1)
    assert "leaves:" not in text
    assert ("none (dp.enabled=False)" in text) == ("dp.enabled" in override)


DRAWS = {"data.public_size": 100, "train.expected_batch_size": 10, "train.steps": 2}


@pytest.mark.parametrize(
    ("name", "fields", "said"),
    [
        ("averaging", {}, r"mitigation +averaging\. It fits privacy as it is: .* It costs nothing"),
        ("upsampling", {"by": ("sex",), "factors": (3.0, 1.0)},
         r"rates +0\.3 \(group 0\), 0\.1 \(group 1\); everybody is priced at 0\.3"),
    ],
)  # fmt: skip
def test_a_mitigation_is_named_with_what_it_asks_and_at_which_rates_it_draws(
    tmp_path, name, fields, said
):
    chosen = {f"mitigation.{field}": value for field, value in {"name": name, **fields}.items()}
    config = small_probe(tmp_path, **DRAWS, **chosen, **{"data.groups": ("sex",)})
    assert re.search(said, dryrun.describe(config, num_devices=1))


def test_what_is_asked_beside_the_gradient_stands_there_with_its_noise(tmp_path):
    chosen = {"mitigation.name": "quantile_clip", "mitigation.query_share": 0.25}
    text = dryrun.describe(small_probe(tmp_path, **DRAWS, **chosen), num_devices=1)
    gradient, asked = (float(sigma) for sigma in re.findall(r" sigma (\d\.\d+)", text))
    assert "asked beside  share_within_the_threshold: sigma" in text and "sensitivity 0.5" in text
    assert asked / gradient == pytest.approx(3**0.5, rel=1e-3)  # of shares 1/4 and 3/4


def test_the_command_prints_the_plan_and_makes_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = [f"--config.{name}={value}" for name, value in (FILMS | {"dp.enabled": False}).items()]
    asked = ["--config", f"{FOLDER / 'derm_probe'}.py:phantom", "--devices=1", "--dry-run"]
    assert train.main(["train", *asked, *line, f"--workdir={tmp_path / 'run'}"]) == 0
    text = capsys.readouterr().out
    assert "derm_probe_phantom: linear_probe on 1 x" in text and "No data was touched." in text
    assert not any(tmp_path.iterdir())


def test_the_ways_of_an_accelerator_are_listed_with_what_they_should_cost(tmp_path):
    config = small_config(tmp_path, **{"dp.precision": "tf32", "method.precision": "bfloat16"})
    text = dryrun.describe(config, num_devices=1)
    assert "network       convolutions in bfloat16 (parameters, norms and loss in float32)" in text
    assert "many examples at a time" in text
    assert re.search(r"operands in tf32, \d\.\d\d% of the clip", text)
    assert re.search(
        r"(product|ghost|kept) +\[.*us an example: ghost \S+, product \S+, kept \S+\)", text
    )
