# Two worlds: TRANSFORMERS=5 (the default) and TRANSFORMERS=4. Every target makes the environment that it needs.
# World 5 runs all tests; world 4 those marked `world`, whose result depends on transformers, and all with ALL=1.
PYTHON ?= python3
TRANSFORMERS ?= 5
VENV ?= .venv-$(TRANSFORMERS)
BIN = $(VENV)/bin
JOBS ?= 2
SOAK ?= 25
ALL ?= $(filter 5,$(TRANSFORMERS))
WITH_TORCH = PYTHONPATH="$$(echo $(VENV)/lib/python3*/site-packages):$(CURDIR):tests/golden" .venv-torch/bin/python
WITH_RAY = PYTHONPATH="$$(echo $(VENV)/lib/python3*/site-packages):$(CURDIR)" .venv-ray/bin/python
PYTEST_ARGUMENTS = -n $(JOBS) --dist worksteal --durations=20 $(if $(ALL),,-m world)
# uv is faster; pip follows where uv cannot install, as from a mirror that only pip's configuration names.
DEVELOPMENT = --editable '.[dev]' --constraint constraints/transformers-$(TRANSFORMERS).txt
# The certificates of the system, which pip trusts too.
export UV_SYSTEM_CERTS ?= 1

.PHONY: demo test test-page soak scale parity catalogue bench bench-gpu study zoo faults docs lint format constraints clean
.DELETE_ON_ERROR:

demo: $(VENV)/ready  ## train both readouts on real digits, benchmark, cards and pictures, reload, predict
	rm -rf build/vit_cls_digits_cls build/vit_cls_digits_mean
	$(BIN)/python -m hub_scripts.demo

test: $(VENV)/ready  ## the tests, in one world
	$(BIN)/python -m pytest $(PYTEST_ARGUMENTS)

test-page: .venv-page-$(TRANSFORMERS)/ready  ## the page of `vit-cls demo` in headless Chromium (apt-get install chromium): minutes
	.venv-page-$(TRANSFORMERS)/bin/python -m pytest --durations=5 tests/page.py

soak: $(VENV)/ready  ## the faults of tests/test_fault_*.py and the kills of runs, SOAK times as many: a night's work
	VIT_CLS_SOAK=$(SOAK) $(BIN)/python -m pytest -n $(JOBS) tests/test_fault_*.py tests/test_resume.py tests/test_embed_workers.py

scale: $(VENV)/ready .venv-ray/ready  ## the long tests of meshes, of several processes, of memory, and of embedding on Ray
	$(BIN)/python -m pytest tests/scale --durations=20 --ignore tests/scale/test_embed_on_ray.py
	$(WITH_RAY) -m pytest tests/scale/test_embed_on_ray.py

parity: $(VENV)/ready .venv-torch/ready  ## other libraries' checkpoints, written by the libraries just now
	rm -rf build/golden && mkdir -p build/golden
	$(WITH_TORCH) tests/golden/make.py build/golden
	VIT_CLS_GOLDEN=build/golden $(WITH_TORCH) -m pytest -p cpu_torchvision $(PYTEST_ARGUMENTS) \
	  tests/parity.py $(if $(filter 5,$(TRANSFORMERS)),tests/parity_open_clip.py tests/parity_catalogue.py) \
	  tests/test_families.py::test_numbers_are_those_of_the_source \
	  tests/test_zero_shot.py::test_logits_are_those_of_the_whole_model
	VIT_CLS_GOLDEN=build/golden $(WITH_TORCH) tests/parity_table.py

catalogue: $(VENV)/ready .venv-torch/ready  ## write modeling_vit_cls/catalogue.csv anew: a minute
	$(WITH_TORCH) tests/make_catalogue.py

bench: .venv-bench/ready $(VENV)/ready  ## speed and loads beside FlaxViT, timm, Hugging Face's PyTorch, jimm and torchax, a profile, the start, embedding: an hour
	.venv-bench/bin/python -m benchmarks.speed
	.venv-bench/bin/python -m benchmarks.picture
	.venv-bench/bin/python -W ignore -m benchmarks.beside_torchax
	.venv-bench/bin/python -m benchmarks.profile
	$(BIN)/python -m benchmarks.start
	.venv-bench/bin/python -m benchmarks.load
	$(BIN)/python -m benchmarks.embed

bench-gpu:  ## speed beside timm and Hugging Face's PyTorch on a GPU, under ten minutes; with the Python that has them: make bench-gpu PYTHON=...
	$(PYTHON) -W ignore -m benchmarks.gpu

study: $(VENV)/ready  ## the readout study, four hours, or a part: make study STUDY="--only 'digits_*' --minutes 30"; goes on where it was left
	$(BIN)/python -m benchmarks.study run $(STUDY)
	$(BIN)/python -m benchmarks.study report

zoo: $(VENV)/ready  ## make the models of model_cards/zoo.yaml in build/zoo, hours, and compare them with the committed figures; or some: make zoo ZOO=NAME
	$(BIN)/python -m benchmarks.zoo $(ZOO)

faults: .venv-bench/ready  ## what becomes of damaged files and killed saves, beside FlaxViT
	.venv-bench/bin/python -m benchmarks.faults

docs: .venv-docs/ready  ## the documentation site, in build/site; a broken link or a missing name of the API fails
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict

lint: $(VENV)/ready  ## what CI and the pre-commit hooks check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/ready  ## write the code as `lint` wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/ready: pyproject.toml constraints/transformers-$(TRANSFORMERS).txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python $(DEVELOPMENT) || $(BIN)/python -m pip install --quiet $(DEVELOPMENT)
	if [ $(TRANSFORMERS) = 4 ]; then $(BIN)/python tests/fetch_upstream.py; fi
	touch $@

# PyTorch and what needs it, and nothing else (OpenCLIP needs ftfy, which needs wcwidth): both worlds put their own packages before it.
.venv-torch/ready: Makefile
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet torch==2.13.0
	.venv-torch/bin/python -m pip install --quiet --no-deps timm==1.0.31 torchvision==0.28.0
	.venv-torch/bin/python -m pip install --quiet --no-deps open_clip_torch==3.3.0 ftfy==6.3.1 wcwidth==0.9.4
	.venv-torch/bin/python -m pip install --quiet --no-deps peft==0.21.2 accelerate==1.15.0 psutil==7.2.2
	touch $@

.venv-bench/ready: pyproject.toml constraints/transformers-4.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet torch==2.13.0
	.venv-bench/bin/python -m pip install --quiet --editable '.[dev]' jax-image-models==0.4.0 \
	  --constraint constraints/transformers-4.txt
	.venv-bench/bin/python -m pip install --quiet --no-deps timm==1.0.31 torchvision==0.28.0 torchax==0.0.13
	touch $@

# Ray, what it needs, and psutil, which the tests find its actors with: the world puts its own packages before it.
.venv-ray/ready: Makefile
	$(PYTHON) -m venv .venv-ray
	.venv-ray/bin/python -m pip install --quiet ray==2.60.0 psutil==7.2.2
	touch $@

.venv-page-$(TRANSFORMERS)/ready: pyproject.toml constraints/page-$(TRANSFORMERS).txt
	$(PYTHON) -m venv .venv-page-$(TRANSFORMERS)
	.venv-page-$(TRANSFORMERS)/bin/python -m pip install --quiet --upgrade pip
	.venv-page-$(TRANSFORMERS)/bin/python -m pip install --quiet --editable '.[page]' \
	  --constraint constraints/page-$(TRANSFORMERS).txt
	touch $@

.venv-docs/ready: pyproject.toml constraints/transformers-5.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade pip
	.venv-docs/bin/python -m pip install --quiet --editable '.[docs]' --constraint constraints/transformers-5.txt
	touch $@

constraints:  ## resolve both worlds anew, to the newest versions that fit, for Python 3.11 to 3.13
	for world in 4 5; do \
	  uv pip compile --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --upgrade --extra dev \
	    pyproject.toml constraints/transformers-$$world.in --output-file constraints/transformers-$$world.txt; \
	  uv pip compile --universal --python-version 3.11 --no-annotate --no-header --no-emit-index-url --upgrade --extra page \
	    pyproject.toml constraints/transformers-$$world.in --output-file constraints/page-$$world.txt; \
	done

clean:
	rm -rf .venv-* build dist .pytest_cache .ruff_cache .hypothesis
