# Every target makes the virtual environment first, if there is none.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

.PHONY: setup demo test test-all browser check format clean dist docs mutations fuzz fairness-study phantom-study disentangle disentangle-quick fairread fairread-quick dp-gap dp-gap-quick mitigation mitigation-quick bench bench-peers

# A step frees its buffers when it ends; taken anew from the system in pages of 4 KiB they cost
# a sixth of its processor time (glibc on Linux; peers are measured with it too).
demo bench bench-peers: export GLIBC_TUNABLES := glibc.malloc.hugetlb=1

setup: $(READY)

$(READY): requirements.txt pyproject.toml setup.py
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet --editable ".[dev,oracles]"
	touch $(READY)

# Films of others than the demo's model was trained on.
STRANGERS := --config.data.phantom.seed=1 --config.data.phantom.n_images=60 --config.data.public_size=20

demo: setup
	$(RUN) -m jaxfair.train --config configs/rsna_fae.py:phantom --workdir runs/demo/private
	$(RUN) -m jaxfair.train --config configs/rsna_fae.py:phantom --config.dp.enabled=False --workdir runs/demo/plain
	$(RUN) -m jaxfair.report runs/demo/plain runs/demo/private --out runs/demo/report
	$(RUN) -m jaxfair.export runs/demo/private --out runs/demo/model.jaxfair
	$(RUN) -m jaxfair.prepare --config configs/rsna_fae.py:phantom $(STRANGERS)
	rm -rf runs/demo/predicted
	$(RUN) -m jaxfair.predict runs/demo/model.jaxfair runs/phantoms/phantom-60x256px-seed1-*/stage_2_train_images --out runs/demo/predicted

test: setup
	$(RUN) -m pytest -n 2

test-all: setup
	$(RUN) -m pytest -n 2 -m "slow or not slow"

# Reports in Chromium (apt-get install chromium), with axe-core's rules of accessibility.
.browser/node_modules/axe-core/axe.min.js:
	npm install --silent --no-audit --no-fund --prefix .browser axe-core@4.14.1

browser: setup .browser/node_modules/axe-core/axe.min.js
	$(RUN) -m pytest -n 0 tests/report/test_html.py

check: setup
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(MAKE) test

# An sdist and a wheel in dist/. setuptools reads what a build before left, so that goes first.
dist: setup
	rm -rf build dist jaxfair.egg-info
	$(RUN) -m build --no-isolation

docs: setup
	$(RUN) -m pdoc jaxfair $(patsubst jaxfair/%/__init__.py,jaxfair.%,$(wildcard jaxfair/*/__init__.py)) -o docs/api

mutations: setup
	$(RUN) -m tests.privacy.mutations

# 2,000 damaged files of every format for the readers, a minute on two cores; FUZZ="--seed 7".
fuzz: setup
	$(RUN) -m tests.fuzz $(FUZZ)

fairness-study: setup
	$(RUN) experiments/e02_fairness_study/study.py

phantom-study: setup
	$(RUN) experiments/e09_phantom_study/study.py

# Hours on two cores, resumable; the quick forms take minutes and run the same code.
disentangle: setup
	$(RUN) -m experiments.e05_disentangle.study

disentangle-quick: setup
	$(RUN) -m experiments.e05_disentangle.study --quick

fairread: setup
	$(RUN) -m experiments.e06_fairread.study

fairread-quick: setup
	$(RUN) -m experiments.e06_fairread.study --quick

# Two processes share the runs, as one keeps little more than one core busy; one of them is seen.
in_two = $(RUN) -m $(1) >/dev/null 2>&1 & $(RUN) -m $(1); code=$$?; wait; exit $$code

dp-gap: setup
	$(call in_two,experiments.e01_dp_gap.study)

dp-gap-quick: setup
	$(call in_two,experiments.e01_dp_gap.study --quick)

mitigation: setup
	$(call in_two,experiments.e08_mitigation.study)

mitigation-quick: setup
	$(call in_two,experiments.e08_mitigation.study --quick)

bench: setup
	$(RUN) -m jaxfair.benchmark --config configs/throughput.py --out experiments/e07_throughput/results/benchmark.json
	$(RUN) -m jaxfair.benchmark --config configs/throughput.py:devices --devices 2,4,8 --out experiments/e07_throughput/results/benchmark.json
	$(RUN) experiments/e07_throughput/loop.py --out experiments/e07_throughput/results/loop.json
	$(RUN) experiments/e07_throughput/tables.py

.venv-peers/.ready: experiments/e07_throughput/peers/requirements.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -r $<
	touch $@

bench-peers: .venv-peers/.ready
	.venv-peers/bin/python experiments/e07_throughput/peers/run.py --out experiments/e07_throughput/results/peers.json
	$(PYTHON) experiments/e07_throughput/tables.py

format: setup
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

clean:
	rm -rf runs build dist docs/api .pytest_cache .mypy_cache .ruff_cache .hypothesis
