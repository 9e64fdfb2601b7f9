# `make demo` and `make test` need nothing done before: they set up .venv and, as root on Debian, the system packages.
PYTHON ?= python3
JOBS ?= 2
PY := .venv/bin/python
# compiled modules are kept: the tests start many processes
export PYTHONDONTWRITEBYTECODE :=
PACKAGES := emu stub xenbridge repl bench tools

.PHONY: setup demo test test-again test-fast test-xen lint bench bench-boots bench-policies soak fuzz docs clean

setup:
	@PYTHON=$(PYTHON) tools/setup

# the tour image under a real gdb, as an annotated transcript
demo: setup
	@$(PY) tools/demo.py

# with a minute of fuzzing of the gdb stub in parts of ten seconds of the CPU (V2E_FUZZ_SECONDS is another length);
# v2e's processes are forked from one that has it loaded, but for the tests marked `started`
test: setup
	$(PY) -m pytest -n $(JOBS) --dist worksteal -rfEs --forked

# what failed last, once more and alone; refused where that would tell nothing, as for tests that run alike each time
test-again: setup
	$(PY) -m pytest --lf --lfnf none --second-look -rs

# without what is marked `slow`, and the property tests with a quarter of the examples
test-fast: setup
	$(PY) -m pytest -n $(JOBS) --dist worksteal -rs -m 'not slow' --hypothesis-profile quick --forked

# in dom0 of a real Xen, which QEMU boots, twice, for two parts of the tests: Debian's packages are fetched once, 125 MB;
# ONLY=EXPRESSION as pytest's -k: one boot; AGAIN=yes: what fails is run once more, in another dom0
ONLY ?=
AGAIN ?=
test-xen: setup
	@$(PY) -m tools.dom0 $(if $(ONLY),-k "$(ONLY)") $(if $(AGAIN),--again)

lint: setup
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy $(PACKAGES)
	.venv/bin/lint-imports

# each figure beside the one of QEMU's stub in the same run
bench: setup
	@$(PY) -m bench
	@$(PY) -m bench.policies

# what policies of native execution cost, each workload under each, and the curves of cost against the dwell
bench-policies: setup
	@$(PY) -m bench.policies --plot policies.png

# each boot of the tests' table beside QEMU; BOOTS='xen "grub floppy"' for some of them, by name
BOOTS ?=
bench-boots: setup
	@$(PY) -m bench.boots $(BOOTS)

# the property tests with a hundred times the examples, the tests marked `soak` (among them a million bad files of Xen, and a client killed at every byte of each recorded session), SESSIONS changed
# sessions of gdb on one machine, EXCHANGED of them of which C answers what it can beside Python, FUZZ seconds of the gdb stub and FILES bad files of Xen under atheris, and STREAMS random instruction streams of each kind and mode against Bochs, each of 4,000 to
# 7,500 instructions, and as many images of 1,500 to 4,400 random bytes' samples in each mode; no time limit
STREAMS ?= 1000
SESSIONS ?= 100000
EXCHANGED ?= 20000
FUZZ ?= 3600
FILES ?= 1000000
soak: setup
	$(PY) -m pytest -n $(JOBS) --dist worksteal -rs -m hypothesis --hypothesis-profile soak --timeout 0
	$(PY) -m pytest -n $(JOBS) --dist worksteal -rs -m soak --soak --timeout 0
	$(PY) tests/soak_sessions.py --sessions $(SESSIONS)
	$(PY) tests/soak_sessions.py --exchanged --sessions $(EXCHANGED)
	$(PY) -m pip install --quiet 'atheris>=3'
	$(PY) tests/fuzz.py -max_total_time=$(FUZZ) -rss_limit_mb=512
	$(PY) tests/xenbridge/fuzz_files.py -runs=$(FILES) -rss_limit_mb=1024
	$(PY) -m pytest -n $(JOBS) --dist worksteal -rs tests/cpu/test_random_streams.py tests/cpu/test_random_bytes.py --streams $(STREAMS) --timeout 0

# what `v2e inspect` reads, by atheris from the samples of a real domain on, for FUZZ_SECONDS
FUZZ_SECONDS ?= 60
fuzz: setup
	$(PY) -m pip install --quiet atheris
	$(PY) tests/xenbridge/fuzz_files.py -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024

# the pages that are written by programs
docs: setup
	$(PY) -m repl.reference
	$(PY) -m stub.reference
	$(PY) -m xenbridge.wire.reference

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist *.egg-info
