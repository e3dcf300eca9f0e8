# Two commands do all: `make demo` and `make test`. Each makes .venv first if it is not there yet.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
# What 8-bit weights need and Kaggle's image lacks, for the notebook that the demo builds.
WHEELS := $(VENV)/kaggle-wheels
# The image's own versions of what the notebook imports, for its rehearsal, on this Python and its torch.
IMAGE  := $(VENV)/kaggle-environment
# The coverage targets set it: the same tests, measured in all their processes.
MEASURE :=
# After the installation nothing may reach for a network.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

# What builds the site of the pages, in an environment of its own.
SITE   := $(VENV)/site
# What `make test` runs side by side on two cores: tests/collecting.py says which files are in which.
SHARES := test-models test-others test-waiting test-hour

.PHONY: setup demo demo-submit test $(SHARES) slow coverage coverage-slow coverage-report check fix bench site
setup: $(VENV)/.ready $(IMAGE)/manifest.json

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("mathlete needs Python 3.11 to 3.13, this is " + sys.version.split()[0] + "; try: make PYTHON=python3.12") if not (3, 11) <= sys.version_info[:2] <= (3, 13) else None'
	@echo "installing into $(VENV), minutes and 3.5 GB on a CPU: torch, the project and its tools, Kaggle's packages"
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(PY) -m pip download --quiet --disable-pip-version-check -c constraints.txt --no-deps --only-binary=:all: \
		--platform manylinux_2_24_x86_64 -d $(WHEELS) bitsandbytes
	@touch $@

$(IMAGE)/manifest.json: $(VENV)/.ready
	$(PY) -m submit image --run $(IMAGE) --python this

demo: setup
	$(PY) -m train math --model pocket --run runs/demo-train
	$(PY) -m eval pocket_val --model pocket --run runs/demo-base
	$(PY) -m eval pocket_val --model runs/demo-train/export --run runs/demo-tuned
	$(PY) -m eval compare runs/demo-base runs/demo-tuned --train runs/demo-train --out runs/demo.json
	$(PY) -m eval report runs/demo-base runs/demo-tuned runs/demo-train --out runs/demo-report/report.html
	$(MAKE) --no-print-directory demo-submit

# The last part of the demo, on its export: 20 questions, twice, where a real rerun has 50.
demo-submit: setup
	@start=$$(date +%s) \
	&& set -x \
	&& $(PY) -m submit build --model runs/demo-train/export --names.owner mathlete-demo --run runs/demo-submit \
		--find-links $(WHEELS) \
	&& $(PY) -m submit rehearse --questions 20 --image $(IMAGE) --run runs/demo-submit \
	&& $(PY) -m submit preflight --run runs/demo-submit \
	&& { set +x; } 2>/dev/null \
	&& echo "build, rehearse (20 questions, two runs) and preflight took $$(($$(date +%s) - start)) s"

# On two cores each share of the files in a process of its own: nothing is collected twice, and nobody has to hand out tests
# and to hear of each; while one share waits, the others compute. On more, as many processes as there are cores.
test: setup
ifeq ($(filter-out 1 2,$(shell nproc)),)
	@echo "four shares side by side: what each says comes as it ends"
	@$(MAKE) --no-print-directory --jobs 4 --output-sync=target $(SHARES)
else
	$(PY) $(MEASURE) -m pytest -q -n auto --dist loadfile --durations 20
endif

# The longest share has a core to itself: the others are nicer than it is.
test-others test-waiting test-hour: NICE := nice -n 5
$(SHARES): setup
	$(NICE) $(PY) $(MEASURE) -m pytest -q --share $(@:test-%=%) --durations 20

# All parts, each with its row in bench/SLOW.md, however the ones before it ended; `make slow-train` is one of them.
slow: setup
	@failed=; for part in $$($(PY) -m tests.slow); do $(MAKE) --no-print-directory slow-$$part || failed="$$failed $$part"; done; \
	if [ "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

slow-%: SELECT = -m slow --part=$*
slow-laws: SELECT = -m 'hypothesis and not slow' --hypothesis-profile thorough -n auto --dist loadfile
slow-%: setup
	@mkdir -p .cache/slow
	$(PY) $(MEASURE) -m pytest -q $(SELECT) --durations 5 --junitxml .cache/slow/$*.xml; \
	code=$$?; $(PY) -m tests.slow $* .cache/slow/$*.xml && exit $$code

# Lines and branches that `make test` reaches, the weakest files last; coverage-slow adds what `make slow` reaches.
coverage: setup
	$(PY) -m coverage erase
	$(MAKE) --no-print-directory test MEASURE='-m coverage run'
	$(MAKE) --no-print-directory coverage-report

coverage-slow: setup
	$(MAKE) --no-print-directory slow MEASURE='-m coverage run'
	$(MAKE) --no-print-directory coverage-report

# Of what was measured so far, even if a test failed.
coverage-report: setup
	$(PY) -m coverage combine --quiet --append
	$(PY) -m coverage report
	$(PY) -m coverage json --quiet

check: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) -m pytest -q tests/check_source.py

fix: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

$(SITE)/.ready: constraints-site.txt
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip install --quiet --disable-pip-version-check -c $< mkdocs-material
	@touch $@

# Into .cache/site; a dead link is an error. With --quiet mkdocs would not count it.
site: $(SITE)/.ready
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build

bench: setup
	for script in bench/*.py; do $(PY) $$script || exit 1; done
