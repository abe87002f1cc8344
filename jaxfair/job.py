"""One training as it is opened: what is asked for, on what data, keyed by what, paid from where."""

import json
from typing import Any, NamedTuple

from jax.sharding import Mesh

from jaxfair import files
from jaxfair.config import Settings
from jaxfair.data.dataset import Dataset
from jaxfair.engine.mesh import first_then_others, is_first_host
from jaxfair.errors import InputError
from jaxfair.privacy import release
from jaxfair.privacy.ledger import Ledger
from jaxfair.privacy.plan import PrivacyPlan
from jaxfair.privacy.secret import Secret
from jaxfair.privacy.statement import COVERED
from jaxfair.run.folder import RunFolder, code_digest
from jaxfair.run.log import environment

__all__ = ["Job", "close_job", "open_job", "pay"]

_STAGE = "train"


class Job(NamedTuple):
    """One training: what is asked for, on what data and devices, and where it goes."""

    settings: Settings
    plan: PrivacyPlan
    dataset: Dataset
    unit: str
    mesh: Mesh
    microbatch: int
    folder: RunFolder
    ledger: Ledger
    secret: Secret
    progress: bool


def open_job(
    settings: Settings,
    plan: PrivacyPlan,
    dataset: Dataset,
    folder: RunFolder,
    mesh: Mesh,
    microbatch: int,
    recharge: bool,
    progress: bool,
) -> Job:
    """Opens the ledger and the secret, and checks that the secret is this run's."""
    unit = settings.dp.unit or dataset.unit
    if recharge and settings.dp.insecure_seed is not None:
        raise InputError(
            "--recharge needs fresh randomness, and dp.insecure_seed fixes it: the same noise "
            "on other data would cancel. Start a new --workdir."
        )
    if recharge and is_first_host():
        folder.forget_secret()
    may_create = recharge or not folder.ledger.exists()
    secret = first_then_others(
        lambda: plan.open_secret(
            folder.secret,
            seed=settings.seed,
            insecure_seed=settings.dp.insecure_seed,
            may_create=may_create,
        )
    )
    ledger = plan.open_ledger(folder.ledger, writes=is_first_host())
    job = Job(settings, plan, dataset, unit, mesh, microbatch, folder, ledger, secret, progress)
    env = environment([f"{device.platform} {device.device_kind}" for device in mesh.devices.flat])
    first_then_others(lambda: folder.check_fingerprint(secret, _fingerprint_parts(job, env)))
    if is_first_host():
        files.write_json(folder.env, env)
    return job


def close_job(job: Job, steps: int) -> None:
    """Writes the statement, which says that training is over, and forgets the secret."""
    if is_first_host():
        files.write_json(
            job.folder.privacy, release.allowed("privacy.json", _statement(job, steps))
        )
        job.folder.forget_secret()


def pay(job: Job, first: int, count: int) -> float | None:
    """Pays for `count` draws from step `first` on; returns epsilon spent, None without privacy."""
    return job.plan.charge(
        job.ledger,
        stage=_STAGE,
        population=job.dataset.population,
        draws=job.secret.tag("draws", ""),
        first_step=first,
        steps=count,
    )


def _fingerprint_parts(job: Job, env: dict[str, Any]) -> dict[str, str]:
    """What has to be equal for a replay to be bit-equal (protocol P6)."""
    return {
        "data": job.dataset.digest,
        "config": job.folder.config.read_text(),
        "code": code_digest(),
        "versions": f"{env['python']} {env['versions']}",
        "devices": f"{env['devices']} {env['usable_cpus']}",
        "clipping": f"{job.plan.clipping} {job.microbatch}",
        "place of the secret": job.secret.identity,
    }


def _statement(job: Job, steps: int) -> dict[str, Any]:
    """Returns privacy.json: what is promised, to whom, and by what."""
    private, source = job.plan.private, job.secret.source
    grade = {"os": "private", "insecure_seed": "research"}[source] if private else "none"
    return job.plan.statement(job.ledger, steps) | {
        "unit": job.unit,
        "covered": COVERED.format(unit=job.unit),
        "population": job.dataset.population,
        "data": job.dataset.data,
        "selection": job.dataset.selection,
        "noise_source": source if private else None,
        "grade": grade,
        "seed": job.settings.seed,
        "config_digest": files.json_digest(json.loads(job.folder.config.read_text())),
    }
