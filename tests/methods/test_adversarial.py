"""The adversarial method: its losses in torch, what it unlearns, what one patient moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxfair.config import load_config, method_from_settings, settings_from_config
from jaxfair.engine.assembly import assemble, join
from jaxfair.engine.chunk import abstract_randomness, zeros
from jaxfair.engine.mesh import make_mesh
from jaxfair.engine.optim import OptimConfig, make_optimizer
from jaxfair.errors import InputError
from jaxfair.methods.adversarial import AdversarialConfig, describe, make_adversarial
from jaxfair.methods.mitigations.weights import GroupWeights, weigh_groups
from jaxfair.methods.orthogonality import covariance_loss
from jaxfair.privacy.sums import rounding
from tests.methods.made import made
from tests.privacy.toy import WILD, flat64, plan_of, recorder

LABELS, ATTRIBUTES = ("a", "b"), {"sex": 2, "age_group": 3}
FEATURES = {"backbone": "features", "size": 36, "patterns": 4, "colours": 4}
WIDTH, N = 72, 9
RNG = np.random.default_rng(0)
SPEC = {
    "image": jax.ShapeDtypeStruct((36, 36, 1), np.float32),
    "label": jax.ShapeDtypeStruct((2,), np.float32),
    "label_mask": jax.ShapeDtypeStruct((2,), np.bool_),
    "group": jax.ShapeDtypeStruct((2,), np.int32),
}
BATCH = {
    "features": RNG.standard_normal((N, WIDTH)).astype(np.float32),
    "label": (RNG.random((N, 2)) < 0.5).astype(np.float32),
    "label_mask": RNG.random((N, 2)) < 0.8,
    "group": RNG.integers(-1, (2, 3), (N, 2)).astype(np.int32),
}
STRENGTH = 0.7


def config_of(**fields):
    return AdversarialConfig(
        LABELS, ATTRIBUTES, **{"hidden": 8, "embedding": 5} | FEATURES | fields
    )


@functools.cache
def built(**fields):
    method = make_adversarial(config_of(**fields))
    params, frozen = made(method, SPEC)
    return method, params, {**frozen, "strength": jnp.float32(STRENGTH)}


def row(i):
    return {name: values[i] for name, values in BATCH.items()}


def in_torch(torch, params, example, config):
    """The same loss in torch, with a reversal of its own; returns it and all gradients."""

    class Reversal(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, grad):
            return -STRENGTH * grad

    weights = jax.tree.map(lambda a: torch.tensor(np.array(a), requires_grad=True), params)
    linear = lambda x, w: x @ w["kernel"] + w["bias"]
    mlp = lambda x, w: linear(torch.relu(linear(x, w["inner"])), w["outer"])
    features = torch.tensor(example["features"], requires_grad=True)
    disease, sensitive = mlp(features, weights["disease"]), mlp(features, weights["sensitive"])
    logits, label = linear(disease, weights["head"]), torch.tensor(example["label"])
    asked = torch.tensor(example["label_mask"])
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
    watched = {"embedding": disease, "features": features, "logit": logits}[config.adversary_on]
    given = Reversal.apply(watched)
    if config.conditional:
        given = torch.cat([given, torch.where(asked, 2 * label - 1, 0)])

    def told_apart(guess):
        parts = torch.split(guess, (2, 3))
        known = [(p, c) for p, c in zip(parts, example["group"], strict=True) if c >= 0]
        losses = [torch.nn.functional.cross_entropy(p, torch.tensor(int(c))) for p, c in known]
        return sum(losses) / max(len(losses), 1)

    cosine = torch.nn.functional.cosine_similarity(disease, sensitive, dim=0)
    loss = (
        (bce * asked).mean()
        + config.sensitive_weight * told_apart(linear(sensitive, weights["attributes"]))
        + config.adversary_weight * told_apart(mlp(given, weights["adversary"]))
        + config.embedding_weight * (disease**2).mean()
        + (config.orthogonality == "example") * config.orthogonality_weight * cosine**2
    )
    loss.backward()
    grads = lambda w: np.zeros(w.shape) if w.grad is None else w.grad.numpy()
    return loss.item(), jax.tree.map(grads, weights)


@pytest.mark.parametrize(
    "fields",
    [
        {"orthogonality": "example", "orthogonality_weight": 0.5, "sensitive_weight": 0.4},
        {"conditional": False, "adversary_weight": 2.0, "embedding_weight": 0.3},
        {"adversary_on": "logit"},
        {"adversary_on": "features", "conditional": False, "reversal": 0.0},  # set by `built`
    ],
    ids=["embedding", "unconditional", "AL", "LNTL"],
)
def test_loss_and_every_gradient_are_those_of_torch(fields):
    torch = pytest.importorskip("torch")
    method, params, frozen = built(**fields)
    grad = jax.jit(jax.value_and_grad(lambda p, e: method.loss(p, frozen, e, None)[0]))
    for i in range(4):
        loss, grads = grad(params, row(i))
        theirs, truth = in_torch(torch, params, row(i), config_of(**fields))
        assert float(loss) == pytest.approx(theirs, rel=1e-5)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), grads, truth
        )


def test_all_weights_zero_is_a_classifier_of_the_same_architecture():
    method, params, frozen = built(sensitive_weight=0.0, adversary_weight=0.0)
    grads = jax.grad(lambda p: method.loss(p, frozen, row(0), None)[0])(params)
    moved = {name for name, part in grads.items() if any(np.any(g) for g in jax.tree.leaves(part))}
    assert moved == {"disease", "head"} and params.keys() == {"encoder", "disease", "head"}
    full, everything, _ = built()
    batch = {"features": jnp.asarray(BATCH["features"])}
    for name, ours in method.score(params, frozen, batch).items():
        np.testing.assert_array_equal(ours, full.score(everything | params, frozen, batch)[name])


def test_the_strength_rises_by_the_published_schedule():
    method, _, frozen = built(reversal=3.0)
    at = lambda p: float(method.schedule(frozen, jnp.float32(p))["strength"])
    assert at(0.0) == 0 and at(1.0) == pytest.approx(3.0, rel=1e-4)
    assert at(0.3) == pytest.approx(3 * (2 / (1 + np.exp(-3.0)) - 1), rel=1e-5)


def test_predictions_rest_on_the_first_embedding():
    method, params, frozen = built()
    batch = {"features": jnp.asarray(BATCH["features"])}
    seen = method.embed(params, frozen, batch)
    assert {n: v.shape for n, v in seen.items()} == {
        "disease": (N, 5), "sensitive": (N, 5), "features": (N, WIDTH),
    }  # fmt: skip
    head = params["head"]
    logits = next(iter(seen.values())) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(
        method.score(params, frozen, batch)["a"], jax.nn.sigmoid(logits[:, 0]), rtol=1e-5
    )


# What it unlearns: of eight directions of the features one shows the label and one the attribute,
# which go together in four of five.

COUNT, TOLD = 600, 0.8


def toy(seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, COUNT)
    a = np.where(rng.random(COUNT) < TOLD, y, 1 - y)
    x = np.zeros((COUNT, WIDTH))
    x[:, :8] = rng.standard_normal((COUNT, 8)) / 2
    x[:, 0] += 2 * y - 1
    x[:, 1] += 2 * a - 1
    return {
        "features": jnp.asarray(x, jnp.float32),
        "label": jnp.asarray(y[:, None], jnp.float32),
        "group": jnp.asarray(a[:, None], jnp.int32),
    }


def trained(reversal, steps=2000):
    """Trains by full batches, five steps of a faster adversary to one of all else.

    Returns the Method, its variables, and those that it began with.
    """
    config = AdversarialConfig(
        ("y",), {"a": 2}, hidden=32, embedding=8, reversal=reversal, **FEATURES
    )
    method, batch = make_adversarial(config), toy(0)
    first, frozen = method.init(jax.random.key(0), SPEC)
    own = {"adversary": {"every": 1, "learning_rate": 1e-2}}
    optimizer = make_optimizer(OptimConfig(learning_rate=1e-3, every=5, parts=own))

    def step(carry, number):
        params, state = carry
        now = method.schedule(frozen, number / steps)
        loss = lambda p: jnp.mean(jax.vmap(lambda e: method.loss(p, now, e, None)[0])(batch))
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), jnp.arange(steps))[0][0])
    return method, run(first), first, frozen


def adversary_accuracy(method, params, frozen, batch):
    """Of the adversary itself, on what it is given: the embedding, and the label."""
    seen = method.embed(params, frozen, batch)["disease"]
    given = jnp.concatenate([seen, 2 * batch["label"] - 1], axis=1)
    w = params["adversary"]
    hidden = jax.nn.relu(given @ w["inner"]["kernel"] + w["inner"]["bias"])
    guess = hidden @ w["outer"]["kernel"] + w["outer"]["bias"]
    return float(jnp.mean(jnp.argmax(guess, axis=1) == batch["group"][:, 0]))


def auroc(truth, score):
    above = score[truth == 1][:, None] - score[truth == 0][None]
    return np.mean(above > 0) + np.mean(above == 0) / 2


def leak(method, params, frozen):
    """AUROC of a fresh linear probe for the attribute within each label value, on new rows."""
    x, a, y = [], [], []
    for seed in (1, 2):
        batch = toy(seed)
        x.append(np.asarray(method.embed(params, frozen, batch)["disease"], np.float64))
        a.append(np.asarray(batch["group"][:, 0]))
        y.append(np.asarray(batch["label"][:, 0]))
    found = []
    for value in (0, 1):
        fit, new = y[0] == value, y[1] == value
        centre, spread = x[0][fit].mean(0), x[0][fit].std(0) + 1e-9
        z = [(part - centre) / spread for part in x]
        weights = np.linalg.lstsq(z[0][fit], a[0][fit] - a[0][fit].mean(), rcond=None)[0]
        found.append(auroc(a[1][new], z[1][new] @ weights))
    return found


def test_the_adversary_learns_and_with_the_reversal_on_the_encoder_loses_what_it_reads():
    batch, leaks, accuracy, disease = toy(2), {}, {}, {}
    for reversal in (0.0, 5.0):
        method, params, first, frozen = trained(reversal)
        accuracy[reversal] = [adversary_accuracy(method, p, frozen, batch) for p in (first, params)]
        leaks[reversal] = leak(method, params, frozen)
        scores = np.asarray(method.score(params, frozen, batch)["y"])
        disease[reversal] = auroc(np.asarray(batch["label"][:, 0]), scores)
    assert accuracy[0.0][1] > TOLD + 0.05 > TOLD > accuracy[0.0][0]  # the label tells four of five
    assert accuracy[5.0][1] < TOLD + 0.03
    assert min(leaks[0.0]) > 0.9 and max(leaks[5.0]) < 0.7, leaks
    assert disease[5.0] > disease[0.0] - 0.01


# One clip and one draw pay for all.


@functools.cache
def private_step(devices, clipping):
    method, params, frozen = built(orthogonality="example", reversal=STRENGTH)
    plan = plan_of(clip=0.5, batch=4, clipping=clipping)
    method = method._replace(prepare=None, schedule=lambda frozen, progress: frozen)
    spec = {name: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for name, v in BATCH.items()}
    return join(
        plan, method, recorder(), spec=spec, variables=(params, frozen), microbatch=2,
        mesh=make_mesh(devices),
    )  # fmt: skip


def summed(made, batch, keep):
    """The clipped sum of the rows that are kept, by the step (its noise multiplier is zero)."""
    fields = {name: values.__getitem__ for name, values in batch.items()}
    keys, state = zeros(abstract_randomness(made.num_leaves)), made.begin()
    parts = [keep[i : i + made.chunk_size] for i in range(0, len(keep), made.chunk_size)]
    for rows in parts:
        chunk = made.chunk(fields, rows)
        state, _ = made.update(state, chunk, keys, is_last=rows is parts[-1])
    return flat64(state.opt_state) * made.plan.expected_batch_size


def looped(batch, keep):
    method, params, frozen = built(orthogonality="example", reversal=STRENGTH)
    grad = jax.jit(jax.grad(lambda p, e: method.loss(p, frozen, e, None)[0]))
    total, clip = 0, rounding.bound(0.5, plan_of(clip=0.5).max_draw) * (1 - 2.0**-12)
    for i in keep:
        g = flat64(grad(params, {name: v[i] for name, v in batch.items()}))
        total = total + g * min(1.0, clip / np.linalg.norm(g))
    return total


WAYS = [(1, "fast"), (2, "vmap"), (8, "fast")]


@pytest.mark.parametrize(("devices", "clipping"), WAYS)
def test_the_private_step_is_the_loop_over_single_examples_on_any_mesh(devices, clipping):
    truth = looped(BATCH, range(N))
    ours = summed(private_step(devices, clipping), BATCH, list(range(N)))
    np.testing.assert_allclose(ours, truth, atol=1e-5 * np.abs(truth).max())


@pytest.mark.parametrize(("devices", "clipping"), WAYS[:2])
def test_one_patient_moves_encoder_heads_and_adversary_together_by_at_most_c(devices, clipping):
    with np.errstate(over="ignore"):
        wild = np.float32(np.float64(BATCH["features"]) * np.resize(WILD, N)[:, None])
    made, everyone = private_step(devices, clipping), list(range(N))
    for batch in (BATCH, {**BATCH, "features": wild}):
        whole = summed(made, batch, everyone)
        without = [summed(made, batch, everyone[:i] + everyone[i + 1 :]) for i in everyone]
        moved = [np.linalg.norm(whole - other) for other in without]
        assert 0.1 < max(moved) <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize(("backbone", "shape"), [
    ("resnet50", (64, 64, 3)), ("densenet121", (64, 64, 1)), ("resnet9", (16, 16, 16, 1)),
    ("slices", (4, 32, 32, 1)),
])  # fmt: skip
def test_every_backbone_reads_images_volumes_and_slices(backbone, shape):
    fields = {"ndim": len(shape) - 1, "channels": shape[-1], "backbone": backbone}
    method = make_adversarial(AdversarialConfig(LABELS, ATTRIBUTES, **fields))
    spec = SPEC | {"image": jax.ShapeDtypeStruct(shape, np.float32)}
    variables = jax.eval_shape(lambda: method.init(jax.random.key(0), spec))
    loss, _ = jax.eval_shape(method.loss, *variables, spec, jax.random.key(0))
    assert loss.shape == () and loss.dtype == jnp.float32
    batch = {"image": jax.ShapeDtypeStruct((3, *shape), np.float32)}
    seen = jax.eval_shape(method.embed, *variables, batch)
    assert seen["disease"].shape == seen["sensitive"].shape == (3, 128)
    assert jax.eval_shape(method.score, *variables, batch)["b"].shape == (3,)


# The form over batches.


def covariance_of(first, second, cells):
    """The slow truth, a loop over cells in float64."""
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second)]
    found = []
    for cell in cells.T:
        if cell.sum() >= 2:
            a, b = (x[cell] - x[cell].mean(0) for x in unit)
            found.append(np.sum((a.T @ b / cell.sum()) ** 2))
    return np.mean(found)


def test_the_covariance_loss_is_the_loop_over_cells_and_knows_the_extremes():
    a, b = RNG.standard_normal((2, 40, 3))
    cells = RNG.random((40, 3)) < 0.5
    cells[:, 2] = np.arange(40) == 0  # one alone does not count
    ours = covariance_loss(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32), cells)
    assert float(ours) == pytest.approx(covariance_of(a, b, cells), rel=1e-4)
    sign = np.resize([1.0, -1.0], 40)[:, None] * np.array([[1.0, 0.0, 0.0]])
    everyone = np.ones((40, 1), bool)
    assert float(covariance_loss(jnp.asarray(sign), jnp.asarray(sign), everyone)) == pytest.approx(
        1
    )
    assert float(covariance_loss(jnp.asarray(sign), jnp.ones((40, 3)), everyone)) < 1e-12


@pytest.mark.parametrize("conditional", [True, False])
def test_the_batch_form_is_the_mean_loss_and_the_covariance_within_labels(conditional):
    weight = 3.0
    method, params, frozen = built(
        orthogonality="batch", orthogonality_weight=weight, conditional=conditional
    )
    plain, _, _ = built(conditional=conditional)
    mask = np.arange(N) != 4
    rows = [float(plain.loss(params, frozen, row(i), None)[0]) for i in np.flatnonzero(mask)]
    seen = plain.embed(params, frozen, {"features": jnp.asarray(BATCH["features"])})
    told = np.where(BATCH["label_mask"], 2 * BATCH["label"] - 1, 0)
    cells = np.concatenate([told > 0, told < 0], 1) if conditional else np.ones((N, 1), bool)
    embedded = [np.asarray(seen[n], np.float64)[mask] for n in ("disease", "sensitive")]
    truth = np.mean(rows) + weight * covariance_of(*embedded, cells[mask])
    batch = jax.tree.map(jnp.asarray, BATCH)
    ours = jax.jit(method.batch_loss)(params, frozen, batch, jnp.asarray(mask), None)
    assert float(ours) == pytest.approx(truth, rel=1e-4)
    assert float(method.loss(params, frozen, row(0), None)[0]) == 0


def test_the_batch_form_is_refused_by_name_under_privacy_and_by_weights_of_groups():
    method, params, frozen = built(orthogonality="batch")
    with pytest.raises(InputError, match=r"'adversarial' couples .* \(has a batch_loss\)"):
        assemble(plan_of(), method, None, spec=SPEC, variables=(params, frozen), microbatch=2)
    with pytest.raises(InputError, match="'adversarial' has a loss over batches"):
        weigh_groups(GroupWeights(attributes={"sex": 2}, weights=(1.0, 2.0)), method)
    assert built(orthogonality="batch", orthogonality_weight=0.0)[0].batch_loss is None


# The door.


def test_attributes_are_those_of_the_groups_of_the_data():
    config = load_config("chexpert_adversarial:phantom")
    settings = settings_from_config(config)
    assert settings.method.attributes == {"sex": 2, "age_group": 6}
    assert method_from_settings(settings).name == "adversarial"
    assert "lose sex, age_group" in describe(settings.method)["note"]
    config.data.groups = ()
    with pytest.raises(InputError, match=r"name them in data\.groups"):
        settings_from_config(config)
    config.data.groups = ("sex",)
    with config.unlocked():
        config.method.attributes = {"sex": 3}
    with pytest.raises(InputError, match=r"method\.attributes are .* choose in data\.groups"):
        method_from_settings(settings_from_config(config))


@pytest.mark.parametrize(
    "fields, sentence",
    [
        ({"adversary_on": "logits"}, "adversary_on = 'logits' is none of .* Did you mean 'logit'"),
        ({"orthogonality": "rows"}, "orthogonality = 'rows' is none of"),
        ({"reversal": -1.0}, "reversal = -1.0 must be 0 or more, and finite"),
        ({"adversary_weight": float("inf")}, "adversary_weight = inf must be"),
        ({"hidden": 0}, "hidden = 0 must be at least 1"),
        ({"embedding": 1, "orthogonality": "example"}, "embedding = 1 at least 2 .one number has"),
        ({"adversary_on": "features"}, "adversary_on = 'features' turns an adversary on what the"),
    ],
)
def test_a_wrong_config_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(InputError, match=sentence):
        config_of(**fields)


def test_data_without_groups_are_refused():
    method, _, _ = built()
    with pytest.raises(InputError, match=r"name its sensitive attributes in data\.groups"):
        method.init(jax.random.key(0), {"image": SPEC["image"]})
