# Everything a newcomer needs: `make setup`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup run test test-servers versitygw minio helm chart-programs kube-servers chromium \
  cluster-programs e2e-smoke e2e wheels example-wheels examples crds roles chart-readme docs lint format lock \
  soak bench clean

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) tools/prepare.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# TPC-H query 5 at scale factor 1, in stages on this machine, checked against DuckDB.
run: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/crossdock run examples/tpch/q5.yaml --overwrite
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python examples/tpch/verify.py q5

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint versitygw kube-servers chart-programs chromium
	$(BIN)/pytest -n 2 --dist worksteal -m "not soak and not servers and not cluster"

# The S3 servers of the tests, and Helm, are built once, and kept in the user's cache.
versitygw minio helm: setup
	$(BIN)/python tests/build_servers.py $@

# Helm, kubeconform, and Prometheus' parser of rules: what the chart is tested with.
chart-programs: setup
	$(BIN)/python tests/build_servers.py chart

# etcd and Kubernetes' API server and controllers: some ten minutes, once. Not built where
# KUBEBUILDER_ASSETS says that they are there already.
kube-servers: setup
	test -n "$$KUBEBUILDER_ASSETS" || $(BIN)/python tests/build_servers.py kube

# A browser for the test of the operator's page; as root on Debian it is installed.
chromium:
	@$(PYTHON) tools/prepare.py chromium

# What the image installs, fetched here so that building it needs no network.
WHEELS_PYTHON ?= 3.12
WHEELS_ARCH ?= $(shell uname -m)
wheels: setup
	$(BIN)/python tools/wheels.py dist/wheels --python $(WHEELS_PYTHON) --arch $(WHEELS_ARCH)

# What the examples' image adds: DuckDB and tpchgen-cli.
example-wheels: setup
	$(BIN)/python tools/wheels.py dist/example-wheels --group examples \
	  --python $(WHEELS_PYTHON) --arch $(WHEELS_ARCH)

# The examples' job files as a cluster takes them, from those that `crossdock run` takes.
examples: setup
	$(BIN)/python tools/examples.py

# The CRDs and their reference, from the types of the operator.
crds: setup
	$(BIN)/python -m crossdock_operator.api.crds crds
	$(BIN)/python -m crossdock_operator.api.crds charts/crossdock/files/crds
	$(BIN)/python -m crossdock_operator.api.reference docs/crds.md

# The roles of the operator, from what it may do. SCALABLE, OWNERS: kinds of its options --scalable
# and --owner-kinds.
roles: setup
	$(BIN)/python -m crossdock_operator.rbac roles charts/crossdock/files/roles \
	  $(addprefix --scalable=,$(SCALABLE)) $(addprefix --owner-kinds=,$(OWNERS))

# The table of values in the chart's README.md.
chart-readme: setup
	$(BIN)/python tools/chart_readme.py

# Stores against MinIO, which takes some six minutes to build.
test-servers: minio
	$(BIN)/pytest -n 2 --dist worksteal -m servers tests/stores

# What a node needs besides, for `make e2e-smoke`.
cluster-programs: kube-servers helm versitygw
	$(BIN)/python tests/build_servers.py node

# Installs the chart in a real cluster on this machine, as root. With KUBECONFIG another one is tested,
# which has the images.
e2e-smoke: $(if $(KUBECONFIG),setup,cluster-programs)
	tests/cluster/on-a-node tests/cluster/test_smoke.py

# All that a real node can show: some three quarters of an hour.
e2e: $(if $(KUBECONFIG),setup,cluster-programs)
	$(if $(KUBECONFIG),,$(BIN)/pytest -m cluster tests/cluster/test_node.py)
	tests/cluster/on-a-node tests/cluster --ignore=tests/cluster/test_node.py

soak: setup
	$(BIN)/pytest -n 2 --dist worksteal -m soak --timeout 3600

bench: setup
	$(BIN)/python benchmarks/dataplane.py --json

# The documents as a site: build/site/index.html
docs: setup
	$(BIN)/sphinx-build -W --keep-going -q -b html -d build/site-trees docs build/site

# Resolves the newest versions that pyproject.toml allows, for every platform.
lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url \
	  --no-header --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
