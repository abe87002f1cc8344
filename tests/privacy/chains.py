"""Run folders without any training: the files by which a chain of runs is priced and compared."""

import json
from unittest import mock

import numpy as np

from jaxfair import files
from jaxfair.privacy import accounting, seals
from jaxfair.privacy.accounting import library_version
from jaxfair.privacy.config import PrivacyConfig
from jaxfair.privacy.descent import read_earlier, units_of, worst
from jaxfair.privacy.plan import make_plan
from jaxfair.privacy.secret import insecure_secret
from jaxfair.privacy.statement import covered
from jaxfair.run.checkpoint import Checkpoint, save

SIZES = {"steps": 4, "expected_batch_size": 10, "public_size": 100}
PEOPLE = {"unit": "patient", "population": "clinic", "data": "real", "selection": "independent"}

__all__ = ["PEOPLE", "SIZES", "change", "made", "read"]


def made(
    folder, start_from=None, *, sizes=None, sigma=8.0, checkpoint=False, split=None,
    mitigation=None, rule=None, group_probs=(), **words,
):  # fmt: skip
    """Writes a finished run and returns its folder; `words` are of its people and its promise.

    The noise is given and not sought, which takes time.
    """
    folder.mkdir()
    sizes, people = SIZES | (sizes or {}), {n: words.pop(n, v) for n, v in PEOPLE.items()}
    promise = {"epsilon": 8.0} | words
    earlier = None if start_from is None else read_earlier(start_from)
    with mock.patch.object(accounting, "noise_multiplier_from_epsilon", lambda *a: sigma):
        asked = {"rule": rule, "group_probs": group_probs}
        plan = make_plan(PrivacyConfig(**promise), **sizes, earlier=earlier, **asked)
    config = {
        "name": folder.name,
        "seed": 0,
        "data": {"public_size": sizes["public_size"]} | (split or {}),
        "dp": {"enabled": True, "tuning_runs": 1, "insecure_seed": None, "l2_clip_norm": 1.0}
        | promise,
        "train": {n: sizes[n] for n in ("steps", "expected_batch_size")}
        | {"start_from": None if start_from is None else str(start_from)},
    }
    config |= {} if mitigation is None else {"mitigation": mitigation}
    files.write_json(folder / "config.json", config)
    files.write_json(folder / "population.json", people)
    files.write_json(folder / "env.json", {"versions": {"dp-accounting": library_version()}})
    files.write_text(folder / "metrics.jsonl", json.dumps({"step": sizes["steps"]}) + "\n")
    ledger = plan.open_ledger(folder / "ledger.jsonl", writes=plan.private)
    draws = insecure_secret(abs(hash(folder.name)) % 2**30)
    pay = {"stage": "train", "population": people["population"], "draws": draws}
    plan.charge(ledger, **pay, first_step=0, steps=sizes["steps"])
    if checkpoint:
        params = {"w": np.full(3, hash(folder.name) % 97, np.float32)}
        save(folder / "checkpoints", Checkpoint(params, {}, sizes["steps"]), ledger)
    told = plan.statement(ledger, sizes["steps"])
    source = "insecure_seed" if config["dp"]["insecure_seed"] is not None else "os"
    grade = {"os": "private", "insecure_seed": "research"}[source]
    own = people | {
        "noise_source": source if plan.private else None,
        "grade": grade if plan.private else "none",
    }
    told |= {"seed": 0, "population": people["population"]} | worst(own, told["earlier"])
    told["covered"] = covered(units_of(own, told["earlier"]))
    files.write_json(folder / "privacy.json", told | seals.digests(folder))
    return folder


def read(folder, name="privacy"):
    return json.loads((folder / f"{name}.json").read_text())


def change(folder, name="privacy", **values):
    """Rewrites keys of a JSON file of a run, as a mistake or a hand would."""
    files.write_json(folder / f"{name}.json", read(folder, name) | values)
