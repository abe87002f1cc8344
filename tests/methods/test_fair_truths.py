"""What fair representations do on drawn numbers that show a finding and, linked with it, the sex.

The short form of tests/test_fair_effects.py, with wider limits: arms of the studies, one training
each, on numbers instead of films. The finding is seen under noise and the sex clearly, and they
agree in nine of ten, so that plain training takes the sex for the finding. What the adversarial
method unlearns, and that its adversary learns where nobody evades it, test_adversarial.py holds.
"""

import functools

import jax
import numpy as np
import pandas as pd

from experiments.arms.features import reading_features
from experiments.e06_fairread import study as e06
from jaxfair import engine
from jaxfair.engine.assembly import join
from jaxfair.engine.chunk import abstract_randomness, zeros
from jaxfair.engine.optim import OptimConfig, averaged_params, make_optimizer
from jaxfair.engine.stages import ends_of, enter, stages_of
from jaxfair.fairness.levels import spreads
from jaxfair.fairness.metrics import auroc
from jaxfair.fairness.odds import decisions
from jaxfair.fairness.resamples import Resamples
from jaxfair.methods.adversarial import AdversarialConfig, make_adversarial
from jaxfair.methods.fairread import FairreadConfig, make_fairread
from jaxfair.privacy.plan import PrivacyConfig, make_plan

SMALL = {"backbone": "features", "size": 36, "patterns": 4, "colours": 4}
WIDTH, TRAINED, HELD = 72, 1000, 4000
AGREE, APART = 0.9, 0.5
KINDS = {
    "adversarial": (AdversarialConfig, make_adversarial),
    "fairread": (FairreadConfig, make_fairread),
}


def drawn(count, agree, seed):
    """Raw examples whose label is the sex with the probability `agree`."""
    rng = np.random.default_rng(seed)
    sex = rng.integers(0, 2, count)
    label = np.where(rng.random(count) < agree, sex, 1 - sex)
    x = np.zeros((count, WIDTH), np.float32)
    x[:, 0] = 1.5 * (2 * label - 1) + rng.standard_normal(count)
    x[:, 1] = 2 * sex - 1 + rng.standard_normal(count) / 2
    return {
        "image": np.zeros((count, 36, 36, 1), np.float32),
        "features": x,
        "label": label[:, None].astype(np.float32),
        "label_mask": np.ones((count, 1), bool),
        "group": sex[:, None].astype(np.int32),
    }


@functools.cache
def trained(study, name, steps, rate, **changes):
    """Returns (method, params, frozen) of a study's arm, every step with everybody."""
    arm = next(arm for arm in study.ARMS if arm.name == name)
    fields = {**arm.method, **SMALL, **changes, "labels": ("y",), "attributes": {"sex": 2}}
    kind, make = KINDS[fields.pop("name")]
    raw = drawn(TRAINED, AGREE, seed=0)
    readers = {n: a.__getitem__ for n, a in raw.items()}
    spec = {n: jax.ShapeDtypeStruct(a.shape[1:], a.dtype) for n, a in raw.items()}
    method = reading_features(make(kind(**fields)))
    plan = make_plan(
        PrivacyConfig(enabled=False), steps=steps, expected_batch_size=TRAINED, public_size=TRAINED
    )
    optim = OptimConfig("nadam", learning_rate=rate, average="ema", ema_decay=0.9, **arm.optim)
    made = join(
        plan, method, make_optimizer(optim, everywhere=False), spec=spec, microbatch=TRAINED,
        mesh=engine.make_mesh(1), variables=method.init(jax.random.key(0), spec),
    )  # fmt: skip
    stages = stages_of(made, join)
    here, state = stages[0], stages[0].begin()
    for number, end in enumerate(ends_of(method, steps)):
        if number:
            here = enter(stages, number, here, state)
            state = here.begin()._replace(step=state.step)
        chunk = here.chunk(readers, range(TRAINED))
        keys = zeros(abstract_randomness(here.num_leaves, here.num_queries))
        for step in range(int(state.step), end):
            now = keys._replace(examples=np.array([0, step], np.uint32))
            state, _ = here.update(state, chunk, now)
    return here.method, averaged_params(state.params, state.opt_state), here.frozen


def held(agree):
    """People to validate and to test, and their examples."""
    split = np.repeat(["validation", "test"], HELD)
    parts = [drawn(HELD, agree, seed) for seed in (1, 2)]
    raw = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
    ids, label = [f"p{i}" for i in range(2 * HELD)], raw["label"][:, 0]
    sex = np.where(raw["group"][:, 0], "F", "M")
    told = {"patient_id": ids, "image_id": ids, "split": split, "sex": sex, "task": "y"}
    return pd.DataFrame({**told, "y_true": label}), raw


def scored(model, agree):
    people, raw = held(agree)
    method, params, frozen = model
    scores = np.asarray(method.score(params, frozen, raw)["y"], np.float64)
    return people.assign(y_score=scores)


def ranked(model, agree):
    """The AUROC of the label."""
    people = scored(model, agree)
    return auroc(people["y_true"], people["y_score"])


def excess(model):
    """The difference in equalized odds at one threshold for all, less what chance gives."""
    resamples = Resamples(scored(model, AGREE), seed=0, n_draws=19)
    gap = spreads(decisions(resamples, "sex", n_permutations=19).levels)["delta-EO, worst case"]
    return gap.value - gap.null_mean


def test_re_fusion_without_attributes_halves_the_gap_and_costs_nothing_elsewhere():
    erm = trained(e06, "erm", 100, 1e-2)
    fair = trained(e06, "dropped", 150, 1e-2, alpha=3.0)
    assert excess(erm) > 0.15
    assert excess(fair) < excess(erm) / 2
    assert ranked(fair, AGREE) > ranked(erm, AGREE) - 0.02
    assert ranked(fair, APART) >= ranked(erm, APART)
