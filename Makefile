# `make` alone lists what there is.
.DEFAULT_GOAL := help
.PHONY: help demo study bench keep paper test test-all lint zoo zoo-audit env clean

# The set of versions: classic (requirements.txt) or modern (requirements-modern.txt).
STACK ?= classic
# An existing Python with MMPose to use instead of the environment built here.
PYTHON ?=
# Further arguments for the demo, the study, the bench or pytest.
ARGS ?=

# Threads that spin while they wait are several times slower where cores are shared.
export OMP_WAIT_POLICY ?= PASSIVE
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

# Sets $python for the rest of a recipe; the argument names what $(PYTHON) must have.
find_python = python="$$(python3 .ci/environment.py --stack '$(STACK)' \
	$(if $(PYTHON),--python '$(PYTHON)' --needs $(1)))"

TEST_NEEDS = mmpose rich matplotlib numba wrapt jinja2 psutil \
	pytest xdist hypothesis onnx onnxruntime
IN_TURN = -n 2 --dist loadfile

help:
	@echo 'make demo    train and test a stock config and its UDP twin, and compare them'
	@echo 'make study   the same over seeds, sizes and codecs, for docs/study.md; an hour'
	@echo 'make bench   measure speed and memory, for docs/bench.md; about ten minutes'
	@echo 'make keep    test weights of the stock toolbox with names swapped, for docs/keep_your_weights.md'
	@echo "make paper   measure the claims of UDP's paper, for docs/paper.md; a minute"
	@echo 'make test    run the tests, in some minutes on two cores'
	@echo 'make test-all    and those that take longer'
	@echo 'make lint    check style and format with ruff'
	@echo "make zoo     try UDP on all configs of MMPose's zoo, for docs/zoo.md"
	@echo "make zoo-audit   what the audit finds in MMPose's zoo, for docs/audit.md"
	@echo 'make env     only build the environment, and print its Python'
	@echo 'make clean   remove what builds, tests and demos left in this folder'
	@echo
	@echo 'The first of these builds an environment with MMPose, outside this folder, once'
	@echo 'per machine; compiling mmcv takes 8 to 19 minutes of that on two cores.'
	@echo
	@echo "STACK=modern             use today's torch and NumPy, not those of MMPose's own time"
	@echo 'PYTHON=/path/to/python   use that Python, which has MMPose, and build nothing'
	@echo 'ARGS="..."               pass arguments on: make test ARGS="-k flip -x"'
	@echo 'UDP_PLUGIN_ENVS=folder   keep environments there instead of ~/.cache/udp_plugin'

demo:
	@$(call find_python,mmpose rich matplotlib) && "$$python" -m udp_plugin demo $(ARGS)

study:
	@$(call find_python,mmpose rich matplotlib jinja2 psutil) \
		&& "$$python" -m benchmarks study $(ARGS) $(if $(ARGS),,&& cp \
		work_dirs/study/study.md docs/ && cp work_dirs/study/images/*.png docs/images/)

# With threads that spin, as users have them.
bench:
	@$(call find_python,mmpose rich matplotlib jinja2 psutil) \
		&& env -u OMP_WAIT_POLICY "$$python" -m benchmarks bench $(ARGS) $(if $(ARGS),,&& cp \
		work_dirs/bench/bench.md docs/ && cp work_dirs/bench/images/*.png docs/images/)

# With photographs: ARGS="--train-ann FILE --test-ann FILE --img DIR".
keep:
	@$(call find_python,mmpose rich matplotlib jinja2 psutil) \
		&& "$$python" -m benchmarks keep $(ARGS) && cp work_dirs/keep/keep.md \
		docs/keep_your_weights.md && cp work_dirs/keep/images/*.png docs/images/

# With annotated people: ARGS="--ann FILE --img DIR".
paper:
	@$(call find_python,mmpose rich matplotlib jinja2 psutil) \
		&& "$$python" -m benchmarks paper $(ARGS) && cp work_dirs/paper/paper.md docs/ \
		&& cp work_dirs/paper/images/*.png docs/images/

# Two at a time; what is marked slow is left to test-all.
test:
	@$(call find_python,$(TEST_NEEDS)) && "$$python" -m pytest $(IN_TURN) -m 'not slow' $(ARGS)

test-all:
	@$(call find_python,$(TEST_NEEDS)) && "$$python" -m pytest $(IN_TURN) $(ARGS)

lint:
	@$(call find_python,ruff) && "$$python" -m ruff check . \
		&& "$$python" -m ruff format --check .

zoo:
	@$(call find_python,mmpose rich jinja2 mmpretrain) && "$$python" tests/zoo_sweep.py $(ARGS)

zoo-audit:
	@$(call find_python,mmpose rich) && "$$python" tests/zoo_audit.py $(ARGS)

env:
	@$(call find_python,mmpose) && echo "$$python"

clean:
	rm -rf build dist *.egg-info work_dirs .hypothesis .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
