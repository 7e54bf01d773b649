# Everything below needs only a Python 3.11 or newer as `python3`; the rest is set up in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMPS := .venv/.stamps

.PHONY: demo test test-jax fuzz bench docs clean
.DELETE_ON_ERROR:

demo: $(STAMPS)/vae  ## train a Wasserstein VAE on the bundled digits; pictures and a table in demo/
	$(BIN)/otdist-vae train --data digits --regularizer w2 --conditional --max-epochs 150 --seed 0 --out demo --overwrite

test: $(STAMPS)/dev  ## everything CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -q

test-jax: $(STAMPS)/dev $(STAMPS)/jax  ## the distances on JAX arrays, which `make test` has only where JAX is installed
	$(BIN)/pytest tests/test_jax.py -q

fuzz: $(STAMPS)/dev  ## 1e5 hostile calls; FUZZ_EXAMPLES=100 for a hundred a function, ARGS="-k sliced" for a part
	$(BIN)/pytest tests/test_fuzz.py -q --hypothesis-profile=fuzz $(ARGS)

bench: $(STAMPS)/bench  ## every claim against the rivals; ARGS="--only gaussian" for a part
	$(BIN)/python -m bench $(ARGS)

docs: $(STAMPS)/docs  ## the manual in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# One stamp an extra: the environment is built once, its kernels are compiled, and again only when the pins change.
$(STAMPS)/%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	$(BIN)/python -m otdist warm-up
	mkdir -p $(STAMPS) && touch $@

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis docs/_build docs/auto_gallery docs/api demo bench/results
	find otdist otdist_vae tests bench -name __pycache__ -prune -exec rm -rf {} +
