# make test       everything the project checks on one machine: lint, types, fast, torch, browser and install tests
# make test-servers  real servers: installs vLLM's CPU build (3.4 GB) into an environment of its own and asks it things
# make test-fast  only what needs no torch, no browser and no network
VENV := .venv-test
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: test test-fast test-servers check bench browser clean

test: check browser test-fast
	$(BIN)/pytest -m "(torch or browser or install or extras or ray) and not servers"

test-fast: $(VENV)/ready
	$(BIN)/pytest -n 2 -m "not torch and not browser and not install and not extras and not ray and not servers"

test-servers: $(VENV)/ready
	tests/servers/install_vllm.sh .venv-vllm
	WRONGTURN_VLLM_PYTHON=.venv-vllm/bin/python $(BIN)/pytest -m servers --durations=0

check: $(VENV)/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

# torch first and on its own, so that the constraint decides which build comes in
$(VENV)/ready: pyproject.toml constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e '.[lab,local,modes,openai,serve,math,datasets,gym,inspect,ray,dev]'
	touch $@

browser:
	@command -v chromedriver >/dev/null && command -v chromium >/dev/null || \
		{ $(SUDO) apt-get update -q && $(SUDO) apt-get install -qy chromium chromium-driver; }

clean:
	rm -rf $(VENV) .venv-vllm .pytest_cache .ruff_cache .hypothesis dist
