"""What a model file of patients may hold (protocol P7): functions of parameters, claim, settings.

The way of all of these: two runs that agree in those and in nothing else give the same bytes.
"""

import contextlib
import pathlib
import tempfile
import types
from unittest import mock

import numpy as np
import pandas as pd
import pytest

from jaxfair.errors import InputError
from jaxfair.export import __main__ as command
from jaxfair.export import about
from jaxfair.files import write_json
from jaxfair.schema import NOT_COVERED
from tests.made_runs import PRIVACY, make_run
from tests.model_file.made import PARAMS, SPEC, tiny
from tests.small import small_config

CLAIM = PRIVACY | {"population": "rsna", "not_covered": NOT_COVERED, "data": "real"}


@contextlib.contextmanager
def run_of(moments: float = 0.0, **claim):
    """A hand-made run of patients, whose network is that of the model file's tests."""
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        folder = make_run(pathlib.Path(place) / "run")
        write_json(folder / "privacy.json", CLAIM | claim)
        write_json(folder / "data_card.json", {"patients": {"train": 321}})
        (folder / "secret").mkdir()
        (folder / "secret" / "key").write_bytes(b"\x01" * 32)
        config = small_config(folder.parent / "data", data__groups=("sex",), data__image_size=8)
        stage = types.SimpleNamespace(method=tiny(), frozen={"offset": np.float32(0)}, spec=SPEC)
        state = types.SimpleNamespace(params=PARAMS, opt_state={"first": np.full(3, moments)})
        for owner, name, value in (
            (command, "config_of_run", lambda folder: config),
            (command, "open_data", _gone),
            (about, "trained_assembly", lambda settings, folder: (stage, state)),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield folder


def _gone(settings, progress):
    raise InputError("The data have gone.")


def exported(folder, **options) -> bytes:
    out = folder.parent / "m.jaxfair"
    with mock.patch.object(command, "verify_run", lambda path: []):
        command.run(folder, out, progress=False, **options)
    return out.read_bytes()


def same_after(change) -> bool:
    """Whether a file is the same once `change` was done to what no guarantee covers."""
    with run_of() as folder:
        before = exported(folder)
        change(folder)
        return exported(folder) == before


def scored_otherwise(folder):
    rows = pd.read_parquet(folder / "predictions.parquet")
    rows.assign(y_score=rows["y_score"] / 3).to_parquet(folder / "predictions.parquet")


def test_edge_210_thresholds_and_tables_stay_in_the_house():
    def otherwise(folder):
        text = (folder / "thresholds.json").read_text()
        (folder / "thresholds.json").write_text(text.replace("0.", "0.0", 1))
        rows = pd.read_csv(folder / "fairness.csv")
        rows.assign(value=rows["value"] / 2).to_csv(folder / "fairness.csv", index=False)

    assert same_after(otherwise)


def test_edge_211_no_score_of_anybody_is_in_a_file():
    assert same_after(scored_otherwise)


def test_edge_212_the_optimiser_stays_in_the_house():
    """Its moments are sums of the noisy gradients of each step, and of no use to a score."""
    files = set()
    for moments in (1.0, 2.0):
        with run_of(moments=moments) as folder:
            files.add(exported(folder))
    assert len(files) == 1


def test_edge_213_the_secret_of_the_run_is_in_no_file():
    def another_secret(folder):
        (folder / "secret" / "key").write_bytes(b"\x02" * 32)

    assert same_after(another_secret)


def test_edge_214_how_many_trained_is_in_no_file():
    assert same_after(lambda folder: write_json(folder / "data_card.json", {"patients": {}}))


@pytest.mark.parametrize("grade", ["none", "research"])
def test_parameters_without_a_guarantee_are_refused(grade):
    with run_of(grade=grade) as folder, pytest.raises(InputError, match="--in-house"):
        exported(folder)


def test_edge_215_parameters_of_a_fixed_seed_stay_in_the_house():
    test_parameters_without_a_guarantee_are_refused("research")


def test_edge_216_a_claim_that_was_never_verified_is_not_exported():
    with run_of() as folder, pytest.raises(InputError, match="does not hold"):
        command.run(folder, folder.parent / "m.jaxfair", progress=False)


def test_edge_217_no_folder_of_the_house_is_named_in_a_file():
    """The program was traced from lines of code, whose paths may hold somebody's name."""
    with run_of() as folder:
        assert str(pathlib.Path(command.__file__).parents[1]).encode() not in exported(folder)
