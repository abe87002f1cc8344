"""Two hosts (two processes on loopback) train the run that one process with two devices trains."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from jaxfair import train
from jaxfair.privacy.seals import digests
from tests import test_walk
from tests.small import CONFIG, OVERRIDES, small_config

pytestmark = pytest.mark.slow
SEED = {"dp.insecure_seed": 5, "dp.clipping": "vmap"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("hosts")


@pytest.fixture(scope="module")
def one_process(home):
    """The run of one process with two devices: its parameters and its folder."""
    config = small_config(home, dp__insecure_seed=5, dp__clipping="vmap")
    train.run(config, home / "one", num_devices=2, progress=False)
    return test_walk.params_of(config, home / "one"), home / "one"


def start_hosts(home, workdir):
    """Starts both hosts; each sees one CPU device."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    overrides = OVERRIDES | SEED | {"data.root": home / "phantoms"}
    line = [f"--config.{name}={value}" for name, value in overrides.items()]
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    hosts = []
    for host in (0, 1):
        where = [f"--coordinator=localhost:{port}", "--hosts=2", f"--host={host}"]
        command = [sys.executable, "-m", "jaxfair.train", "--config", CONFIG, *line]
        command += [*where, f"--workdir={workdir}"]
        with open(home / f"{workdir.name}-{host}.log", "w") as log:
            hosts.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    return hosts


def finish(hosts, home, workdir):
    for host, process in enumerate(hosts):
        status = process.wait(timeout=400)
        assert status == 0, (home / f"{workdir.name}-{host}.log").read_text()[-3000:]


def params_of(home, workdir):
    config = small_config(home, dp__insecure_seed=5, dp__clipping="vmap")
    return test_walk.params_of(config, workdir)


def assert_same_run(home, workdir, one_process):
    params, folder = one_process
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params_of(home, workdir), params
    )
    theirs, ours = (json.loads((f / "privacy.json").read_text()) for f in (workdir, folder))
    assert theirs["parameters_digest"] == digests(workdir)["parameters_digest"]
    own = {"config_digest", "parameters_digest"}  # of other folders, and of other last bits
    assert {k: v for k, v in theirs.items() if k not in own} == {
        k: v for k, v in ours.items() if k not in own
    }
    assert (workdir / "ledger.jsonl").read_bytes() == (folder / "ledger.jsonl").read_bytes()


def test_two_hosts_train_the_run_of_one(home, one_process):
    hosts = start_hosts(home, home / "two")
    finish(hosts, home, home / "two")
    assert_same_run(home, home / "two", one_process)
    assert len((home / "two" / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_host_that_dies_ends_the_run_and_it_resumes(home, one_process):
    workdir = home / "dying"
    hosts = start_hosts(home, workdir)
    test_walk.wait_for(workdir / "checkpoints" / "seal-2.json", hosts[0])
    hosts[1].send_signal(signal.SIGKILL)
    hosts[1].wait()
    end = time.monotonic() + 200
    while hosts[0].poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    assert hosts[0].poll() not in (None, 0), "the surviving host did not end"
    finish(start_hosts(home, workdir), home, workdir)
    assert_same_run(home, workdir, one_process)
