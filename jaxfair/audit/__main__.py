"""Attacks the training of a config with canaries and four detectors.

    jaxfair audit --config rsna_fae:phantom

Trains the config's Method, plan and step for a few steps on a small phantom, with canaries
among the patients, and prints what an attacker could prove about epsilon beside the claim,
what he could have proved at most, and what he proves about the same training without
privacy; then what four detectors of a broken claim say. No patient's data is opened, so an
audit costs no privacy. `--planted-faults` plants ten faults in a tiny training, counts how
many the detectors find, and how often they cry wolf in twenty clean ones.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxfair import files
from jaxfair.audit.bench import Bench, reference, under_audit
from jaxfair.audit.faults import self_test
from jaxfair.audit.trials import Size, canary_scores, examine
from jaxfair.cli import Command, Flag, Line, execute
from jaxfair.config import Settings, sections, settings_from_config
from jaxfair.data.dataset import Dataset
from jaxfair.engine.assembly import join
from jaxfair.engine.compiling import keep_compilations
from jaxfair.engine.features import training_fields
from jaxfair.errors import InputError
from jaxfair.methods.mitigations.catalog import clip_rule
from jaxfair.phantom.write import PhantomConfig
from jaxfair.privacy import accounting, canaries
from jaxfair.privacy.accounting import Event
from jaxfair.privacy.canaries import Bound
from jaxfair.privacy.detectors import CanaryScores
from jaxfair.privacy.plan import PrivacyPlan, make_plan
from jaxfair.privacy.secret import Secret, insecure_secret, os_secret
from jaxfair.run.log import progress_bar
from jaxfair.start import first_variables, open_data, optimizer_of, population_of

__all__ = ["COMMAND", "main", "run"]

CLAIM = 2.0
"""The largest epsilon that canaries are sent against: above it they could show too little."""

CONFIDENCE = 0.95
SIDE = 64
"""Side of the phantom's images, where the Method takes it and the config's is larger."""

_STEPS = 40
_IMAGES = 200
_MICROBATCH = 8
_LEAST_SIGMA = 0.5
"""Less noise than this is priced as if it were this: nobody claims an epsilon up there."""


def run(
    config: ConfigDict,
    out: str | os.PathLike[str],
    *,
    size: Size | None = None,
    planted_faults: bool = False,
    seed: int | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Audits `config`, writes `audit.json` into `out` and returns its content.

    Args:
      size: how much is done.
      planted_faults: test the detectors on ten faults and twenty clean runs as well.
      seed: None for fresh randomness; a number repeats an audit, and its alarms.
      progress: show a progress bar.
    """
    settings, size, out = settings_from_config(config), size or Size(), pathlib.Path(out)
    if clip_rule(settings.mitigation_name, settings.mitigation) is not None:
        raise InputError(
            f"The mitigation {settings.mitigation_name!r} changes how the step clips, and the "
            "detectors know the ordinary clip alone: leave mitigation.name out."
        )
    if settings.dp.mechanism != "gradients":
        raise InputError(
            f"dp.mechanism is {settings.dp.mechanism!r}, and the detectors know noisy gradients "
            "alone: audit a config with dp.mechanism='gradients'."
        )
    claim = _claim(settings)
    bench = _bench(settings, claim, _small_data(settings, out, progress))
    with progress_bar(2 * claim.steps, what="audit", hidden=not progress) as bar:
        tried, coins = under_audit(bench), np.random.default_rng(seed)
        verdicts, scores = examine(
            bench,
            tried,
            _secret(seed),
            reference(bench),
            size,
            coins=coins,
            probe=True,
            tick=bar.update,
        )
        plain = bench._replace(assembly=bench.assembly.with_parts(plan=_plain(settings, claim)))
        power = canary_scores(
            plain, under_audit(plain), _secret(seed), size.canaries, coins=coins, tick=bar.update
        )
    result = {
        "config": config.name,
        "method": bench.method.name,
        "stages": 1 + len(bench.method.stages),
        "data": f"phantom, {len(bench.units)} units",
        "claim": _claimed(settings, claim),
        "confidence": CONFIDENCE,
        "canaries": size.canaries,
        "bounds": _bounds(claim, scores, power),
        "detectors": [verdict._asdict() for verdict in verdicts],
        "planted_faults": None,
    }
    if planted_faults:
        result["planted_faults"] = self_test(seed=seed, progress=progress)
    files.write_json(out / "audit.json", result)
    return result


def describe(result: dict[str, Any]) -> str:
    """Returns the content of audit.json as a page of text."""
    claim, share = result["claim"], f"{100 * result['confidence']:.0f} %"
    lines = [
        f"Audit of {result['config']} ({result['method']}, {result['data']}): {claim['steps']} "
        f"steps, q {claim['sampling_prob']:.4f}, sigma {claim['noise_multiplier']:.4f}.",
        f"Claim: epsilon {claim['epsilon']:.3f} at delta {claim['delta']:.2g} (the config asks "
        f"for {claim['config_epsilon']:g}; canaries are sent against {CLAIM:g} at most).",
        f"Lower bounds on epsilon, {share} confidence, {result['canaries']} canaries:",
        f"  {'':<20}{'private':>10}{'claim':>10}{'reachable':>11}{'non-private':>13}",
    ]
    if result["stages"] > 1:
        lines.insert(1, f"Of the {result['stages']} stages of the training the first is attacked.")
    for bound in result["bounds"]:
        lines.append(
            f"  {bound['name']:<20}{bound['epsilon']:>10.3f}{claim['epsilon']:>10.3f}"
            f"{bound['reachable']:>11.3f}{bound['non_private']:>13.3f}"
        )
    lines += ["Detectors, each with 1 % false alarms:"]
    for verdict in result["detectors"]:
        said = "ALARM" if verdict["alarm"] else "quiet"
        lines.append(f"  {verdict['detector']:<14} {said}  {verdict['finding']}")
    return "\n".join(lines + _planted_lines(result["planted_faults"]))


def _planted_lines(planted: dict[str, Any] | None) -> list[str]:
    if planted is None:
        return []
    lines = ["Planted faults:"]
    for fault in planted["faults"]:
        found = "caught" if fault["caught"] else "MISSED"
        lines.append(f"  {found}  {fault['name']} -> {fault['detector']} ({fault['finding']})")
    alarms = planted["false_alarms"]
    parts = ", ".join(f"{name} {count}" for name, count in alarms.items())
    caught, total = planted["caught"], len(planted["faults"])
    return lines + [
        f"{caught}/{total} caught; false alarms in {planted['clean_runs']} clean runs: "
        f"{sum(alarms.values())} ({parts})."
    ]


def _claim(settings: Settings) -> PrivacyPlan:
    """The config's plan for a few steps, at epsilon CLAIM if it asks for more."""
    if not settings.dp.enabled:
        raise InputError(
            "dp.enabled is False, so there is no claim to audit: leave it True; the non-private "
            "run for comparison is part of every audit."
        )
    modest = dataclasses.replace(settings.dp, epsilon=min(settings.dp.epsilon, CLAIM))
    return make_plan(
        modest,
        steps=min(settings.train.steps, _STEPS),
        expected_batch_size=settings.train.expected_batch_size,
        public_size=settings.data.public_size,
    )


def _plain(settings: Settings, claim: PrivacyPlan) -> PrivacyPlan:
    return make_plan(
        dataclasses.replace(settings.dp, enabled=False),
        steps=claim.steps,
        expected_batch_size=claim.expected_batch_size,
        public_size=claim.public_size,
    )


def _small_data(settings: Settings, out: pathlib.Path, progress: bool) -> Dataset:
    side = min(settings.data.stored.image_size, SIDE)
    phantom = PhantomConfig(n_images=_IMAGES, seed=0, pixels=max(32, side))
    stored = dataclasses.replace(settings.data.stored, image_size=side)
    home = str(out / "phantom")
    data = dataclasses.replace(settings.data, stored=stored, root=home, prepared=None)
    small = dataclasses.replace(settings, data=data, phantom=phantom)
    return open_data(small, progress=progress)


def _bench(settings: Settings, claim: PrivacyPlan, dataset: Dataset) -> Bench:
    method, *variables = first_variables(settings)
    made = join(
        claim,
        method,
        optimizer_of(settings, method, tuple(variables)),
        spec=dataset.spec,
        variables=tuple(variables),
        microbatch=_MICROBATCH,
    )
    population = population_of(settings, dataset)
    rows = population.all_rows
    return Bench(
        claim=claim,
        assembly=made,
        fields=training_fields(made.method, made.frozen, dataset.fields, rows, progress=False),
        units=population.rows,
        population=population,
    )


def _bounds(claim: PrivacyPlan, scores: CanaryScores, power: CanaryScores) -> list[dict[str, Any]]:
    """Each bound with its name, what it found, what it could have found, and without privacy."""
    pairs = zip(_all_bounds(claim, scores), _all_bounds(claim, power))
    return [ours._asdict() | {"non_private": plain.epsilon} for ours, plain in pairs]


def _all_bounds(claim: PrivacyPlan, scores: CanaryScores) -> list[Bound]:
    ratios, level = (scores.ratios_in, scores.ratios_out), 1 - CONFIDENCE
    found = canaries.bounds_from_scores(*ratios, delta=claim.delta, level=level)
    sigma = canaries.noise_upper_bound(
        scores.sums_in,
        scores.sums_out,
        sampling_prob=claim.sampling_prob,
        steps=claim.steps,
        level=level,
    )
    price = lambda sigma: accounting.epsilon(
        [Event(claim.sampling_prob, sigma, claim.steps)], claim.delta
    )
    epsilon = price(max(sigma, _LEAST_SIGMA)) if sigma < math.inf else 0.0
    return [*found, Bound("noise level", epsilon, price(_LEAST_SIGMA))]


def _claimed(settings: Settings, claim: PrivacyPlan) -> dict[str, float]:
    names = ("epsilon", "delta", "sampling_prob", "noise_multiplier", "steps")
    stated = {name: getattr(claim, name) for name in names}
    return stated | {"config_epsilon": settings.dp.epsilon}


def _secret(seed: int | None) -> Secret:
    return os_secret() if seed is None else insecure_secret(seed)


COMMAND = Command(
    name="audit",
    about=__doc__,
    flags=(
        Flag("out", str, None, "folder for audit.json; else runs/NAME-audit"),
        Flag("planted-faults", bool, False, "plant ten faults and count the found"),
        Flag("canaries", int, Size().canaries, "how many canaries"),
        Flag("seed", int, None, "repeats an audit; left out: fresh randomness"),
    ),
    sections=sections,
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns 0 if all is quiet, 1 after an alarm or a miss, 2 if refused."""
    keep_compilations()
    _two_cpu_devices()
    return execute(COMMAND, argv, _act)


def _act(line: Line) -> int:
    result = run(
        line.config,
        line.flags["out"] or f"runs/{files.slug(settings_from_config(line.config).name)}-audit",
        size=Size(canaries=line.flags["canaries"]),
        planted_faults=line.flags["planted-faults"],
        seed=line.flags["seed"],
    )
    print(describe(result))
    planted = result["planted_faults"]
    missed = planted is not None and planted["caught"] < len(planted["faults"])
    return 1 if missed or any(verdict["alarm"] for verdict in result["detectors"]) else 0


def _two_cpu_devices() -> None:
    """Noise that is added on each device can be seen on two devices, so the CPU poses as two."""
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # jax has started; then with what there is
            jax.config.update("jax_num_cpu_devices", 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
