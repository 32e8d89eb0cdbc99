# `make help` lists the targets. Each one makes the environment it needs; another Python: make test PYTHON=python3.12
PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DOCS := .venv-docs

define CHECK_PYTHON
import sys
if not (3, 10) <= sys.version_info < (3, 14):
    sys.exit('Python 3.10 to 3.13 is needed (mmengine does not run on 3.14); %s is %s.\n'
             'Name another one: make setup PYTHON=python3.13' % (sys.executable, sys.version.split()[0]))
try:
    import ensurepip, venv
except ImportError:
    sys.exit('%s cannot make virtual environments. On Debian and Ubuntu: sudo apt install python3-venv' % sys.executable)
endef
export CHECK_PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-classification demo-photographs replicate test test-slow lint docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-27s %s\n", $$1, $$2 }'

setup: $(READY)  ## make .venv with the tested versions (again only after a change of what it is made from)

demo: $(READY)  ## run the demo
	$(BIN)/python tools/demo.py

demo-classification: $(READY)  ## run the demo of classification
	$(BIN)/python tools/demo.py --classification

demo-photographs: $(READY)  ## segment real streets with DINOv2, which are downloaded, in about ten minutes
	$(BIN)/python tools/demo_photographs.py

replicate: $(READY)  ## replicate the paper in miniature: hours, and it can be interrupted
	$(BIN)/python tools/replicate.py

# What measures memory or speed must not share the machine with other tests. Only its files are read.
test: $(READY)  ## run the tests, without the slow ones
	$(BIN)/python -m pytest -q -m 'alone and not slow' $$(grep -l 'mark\.alone' tests/*.py)
	$(BIN)/python -m pytest -q -m 'not alone and not slow' -n $(WORKERS) --dist loadfile

test-slow: $(READY)  ## run all tests, one after the other
	$(BIN)/python -m pytest

lint: $(READY)  ## run ruff, and check that no layer imports a higher one
	$(BIN)/ruff check
	$(BIN)/lint-imports

docs: $(DOCS)/.ready  ## build the documentation into site/; a dead link or an undocumented argument is an error
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict

clean:  ## remove the environments and the built documentation
	rm -rf $(VENV) $(DOCS) site

# The documentation has an environment of its own, without torch: the package is read and not imported.
$(DOCS)/.ready: docs/requirements.txt
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv --clear $(DOCS)
	$(DOCS)/bin/python -m pip install -r docs/requirements.txt
	@touch $@

# --clear: nothing is left of an interrupted or older installation. The stamp comes last.
# torch goes first and with its dependencies, which differ between its builds; the rest is listed whole. Named
# together, so that torchvision does not ask for another torch. Where pip gets a CPU build from is a setting of pip's.
$(READY): Makefile setup.py constraints.txt
	@$(PYTHON) -c "$$CHECK_PYTHON"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --no-deps -r constraints.txt
	$(BIN)/python -m pip install --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'import mmseg_gpt'
	@touch $@
