# lenet5-edge: from MNIST to verified int8 TFLite and ONNX. `make` prints what there is.

# Settings, e.g. `make export RECIPE=cookbook DATA=my/images`.
RECIPE ?= best
DATA   ?= data/mnist
BUDGET ?= pipeline/parity/budget.toml
WHEELS ?=
PORT   ?= 22
DIR    ?= lenet5-edge
OUT    := artifacts
DIST   := dist

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUNDLE  := $(DIST)/lenet5-edge-$(VERSION)$(addprefix -,$(WHEELS)).tar.gz
MODELS  := $(addprefix $(OUT)/lenet5_,fp32.tflite int8.tflite fp32.onnx int8.onnx)
RECIPE_FILE := $(if $(filter %.toml,$(RECIPE)),$(RECIPE),pipeline/train/recipes/$(RECIPE).toml)

PY        := .venv/bin/python
DEVICE_PY := .venv-device/bin/python
STAGE      = $(PY) -m pipeline
WHERE      = --data "$$DATA" --out $(OUT)

# What a user types reaches the shell by the environment, quoted once, and is not expanded by make.
PASSED_ON := DATA IMAGE PI PORT DIR INVENTORY SIGN
$(foreach name,$(PASSED_ON),$(eval override export $(name) := $$(value $(name))))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help export bundle run native fuzz deploy pi-test bench bench-pi photos robustness accuracy training-speed report readme test lint types pytest lock clean distclean

# DATA alone may hold spaces: the others are targets and prerequisites, and make splits those.
ifneq ($(words x$(RECIPE) x$(BUDGET) x$(OUT) x$(DIST)),4)
$(error RECIPE, BUDGET, OUT and DIST must not hold spaces)
endif

ifeq ($(filter grouped-target,$(.FEATURES)),)
$(error GNU make 4.3 or newer is needed; this is $(MAKE_VERSION))
endif

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Settings: RECIPE=$(RECIPE) (best, max, cookbook, or a .toml) DATA=$(DATA) BUDGET=$(BUDGET)"

export: ## Train, convert, check parity on every runtime and pack the bundle; only what is out of date
	@if $(MAKE) --question --silent $(BUNDLE); then \
	  echo "export: nothing to do, $(BUNDLE) is up to date"; \
	else \
	  $(MAKE) --no-print-directory $(BUNDLE) && echo "export: done, $(BUNDLE)"; \
	fi

bundle: export ## The same; SIGN=~/.ssh/id_ed25519 signs the bundle, for devices that ask for it
	@test -z "$$SIGN" || tools/sign.sh "$(BUNDLE)" "$$SIGN"

# --- Environments ---------------------------------------------------------------------------

.venv/.installed: requirements.lock
	@tools/venv.sh .venv requirements.lock

.venv-device/.installed: device/requirements.lock
	@tools/venv.sh .venv-device device/requirements.lock

# Only a deployment to an inventory, and its test, need it.
.venv-fleet/.installed: requirements-fleet.lock
	@tools/venv.sh .venv-fleet requirements-fleet.lock

lock: .venv/.installed ## Resolve the dependencies of pyproject.toml anew into the lock files
	@tools/lock.sh

# --- Stages: each file hangs on what it is made from -------------------------------------------

# Settings have no file of their own: these two remember the last run's, and are out of date when
# the present ones differ, so that another recipe retrains and another budget judges anew. So is
# the first when a file of the data is newer, came or went.
TRAINING := $(RECIPE_FILE) $(patsubst %/,%,$(DATA))
$(OUT)/.training: export SETTING := $(TRAINING)
$(OUT)/.budget: export SETTING := $(BUDGET)
ifneq ($(file <$(OUT)/.training),$(TRAINING))
.PHONY: $(OUT)/.training
else ifneq ($(shell find -H '$(subst ','\'',$(DATA))' -newer $(OUT)/.training 2>/dev/null),)
.PHONY: $(OUT)/.training
endif
ifneq ($(file <$(OUT)/.budget),$(BUDGET))
.PHONY: $(OUT)/.budget
endif
$(OUT)/.training $(OUT)/.budget:
	@mkdir -p $(OUT) && printf '%s\n' "$$SETTING" > $@

TRAIN := pipeline/config.py pipeline/data.py $(wildcard pipeline/train/*.py)

$(OUT)/lenet5.keras $(OUT)/train.json &: $(RECIPE_FILE) $(OUT)/.training $(TRAIN) | .venv/.installed
	$(STAGE) train --recipe $(RECIPE) $(WHERE)

# Other versions of the converters or the runtimes convert and judge anew; training is left alone.
$(OUT)/lenet5_%.tflite: $(OUT)/lenet5.keras $(OUT)/train.json export/to_tflite.py export/logits.py export/seal.py pipeline/export.py .venv/.installed
	$(STAGE) export $(@F) $(WHERE)

$(OUT)/lenet5_fp32.onnx: $(OUT)/lenet5.keras $(OUT)/train.json export/to_onnx.py export/seal.py pipeline/export.py .venv/.installed
	$(STAGE) export $(@F) $(WHERE)

$(OUT)/lenet5_int8.onnx: $(OUT)/lenet5_fp32.onnx $(OUT)/train.json export/to_onnx.py export/seal.py pipeline/export.py .venv/.installed
	$(STAGE) export $(@F) $(WHERE)

PARITY := pipeline/classify.py $(wildcard pipeline/parity/*.py)
PASSED := $(OUT)/.parity-passed

# The stage compiles as well, where there is a compiler, and keeps golden outputs beside the source.
NATIVE := $(OUT)/native
NATIVE_FILES := pipeline/native.py $(wildcard export/*.py export/c_templates/* device/native/*)

$(NATIVE)/lenet5_int8.c: $(OUT)/lenet5_int8.tflite $(NATIVE_FILES) .venv/.installed .venv-device/.installed
	$(STAGE) native $(WHERE)

# A failed parity.json stays for its reader; only the stamp says that parity passed.
$(PASSED): $(MODELS) $(NATIVE)/lenet5_int8.c $(OUT)/lenet5.keras $(OUT)/train.json $(BUDGET) $(OUT)/.budget $(PARITY) device/runner.py .venv/.installed .venv-device/.installed
	$(STAGE) parity --budget $(BUDGET) $(WHERE)
	@touch $@

$(OUT)/parity.json $(OUT)/probabilities.npz: $(PASSED)
	@test -f $@ || { rm -f $(PASSED) && $(MAKE) --no-print-directory $(PASSED); }

DEVICE_FILES := $(shell find device -type f -not -path '*/[._]*')

$(BUNDLE): $(PASSED) $(OUT)/parity.json $(OUT)/probabilities.npz $(DEVICE_FILES) pipeline/bundle/pack.py pipeline/native.py export/bundle.py pyproject.toml $(if $(WHEELS),pipeline/bundle/wheels.py)
	$(STAGE) bundle --dist $(DIST) $(addprefix --wheels ,$(WHEELS)) $(WHERE)

# --- The device's side, here --------------------------------------------------------------------

run: $(BUNDLE) .venv-device/.installed ## Classify IMAGE=digit.png as a Pi would, in .venv-device
	@test -n "$$IMAGE" || { echo "run: name a picture: make run IMAGE=digit.png" >&2; exit 2; }
	@$(DEVICE_PY) device/runner.py --model $(OUT)/lenet5_int8.tflite "$$IMAGE"

photos: $(OUT)/lenet5_int8.tflite ## Measure how often generated photographs of digits are read right
	$(STAGE) photos $(WHERE)

bench: $(MODELS) $(NATIVE)/lenet5_int8.c .venv-device/.installed ## Time every artifact on every runtime (minutes); FLAGS=--full takes longer
	$(STAGE) bench $(FLAGS) $(WHERE)

bench-pi: | .venv/.installed ## Time the installed bundle on PI=user@host, into artifacts/bench-pi.json
	@tools/bench-pi.sh "$$PI" "$$PORT" "$$DIR" "$(OUT)/bench-pi.json" $(FLAGS)
	$(STAGE) bench --show $(OUT)/bench-pi.json $(WHERE)

robustness: $(OUT)/lenet5_int8.tflite .venv-device/.installed ## Measure accuracy on rotated, shifted, scaled, noisy, blurred and faint images
	$(STAGE) robustness $(WHERE)

RECIPES ?=
accuracy: .venv/.installed .venv-device/.installed ## Five seeds of RECIPES (best max), from training to int8: docs/accuracy.md (an hour)
	$(STAGE) accuracy $(RECIPES) $(WHERE)

training-speed: .venv/.installed ## Measure training: our loop against plain model.fit, in images a second
	$(STAGE) training-speed $(WHERE)

ARCH ?= $(patsubst armv%l,armv%,$(shell uname -m))

# A binary for another architecture is verified where it runs: lenet5 --verify golden.bin.
native: $(NATIVE)/lenet5_int8.c ## The int8 model as one static C command for ARCH=x86_64, aarch64, armv7 or armv6, verified
	$(MAKE) --no-print-directory -C device/native MODEL=$(if $(filter /%,$(NATIVE)),,../../)$(NATIVE) ARCH=$(ARCH)
	$(if $(filter $(ARCH),$(patsubst armv%l,armv%,$(shell uname -m))),$(NATIVE)/$(ARCH)/lenet5 --verify $(NATIVE)/golden.bin)

# Needs clang and its runtime library (Debian: clang libclang-rt-14-dev).
FUZZ_SECONDS ?= 60
fuzz: ## Fuzz the parsers of the lenet5 command for FUZZ_SECONDS=60
	@mkdir -p $(OUT)/fuzz
	clang -g -O1 -fsanitize=fuzzer,address,undefined,integer,implicit-conversion \
	  -fno-sanitize-recover=all -Idevice/native tests/device/native/fuzz_image_file.c \
	  device/native/image_file.c -o $(OUT)/fuzz/fuzz_image_file
	$(OUT)/fuzz/fuzz_image_file -max_len=4096 -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
	  -verbosity=0 -artifact_prefix=$(OUT)/fuzz/

deploy: $(if $(INVENTORY),.venv-fleet/.installed) ## Install and verify the bundle on PI=user@host, or on all of INVENTORY=hosts.ini
ifeq ($(INVENTORY),)
	@ARTIFACTS=$(OUT) tools/deploy.sh "$(BUNDLE)" "$$PI" "$$PORT" "$$DIR"
else
	@ARTIFACTS=$(OUT) tools/fleet.sh "$(BUNDLE)" "$$INVENTORY" $(FLAGS)
endif

readme: $(BUNDLE) ## Write docs/results.json and the README's tables from this run
	$(PY) -c "from pathlib import Path; from pipeline import readme; readme.update(Path('$(OUT)'))"

pi-test: $(BUNDLE) ## The bundle on emulated Raspberry Pis: install, verify, all test images (minutes)
	$(STAGE) pi-test $(BUNDLE) $(WHERE)

# What was measured by choice is on the page if it is there, and said to be missing if not.
MEASURED := $(wildcard $(addprefix $(OUT)/,bench.json bench-pi.json robustness.json photos.json pi-matrix.json) docs/accuracy.json)

report: $(OUT)/report.html ## One page and a model card of all that was measured: artifacts/report.html

$(OUT)/report.html $(OUT)/MODEL_CARD.md &: $(OUT)/parity.json $(OUT)/probabilities.npz $(MEASURED) $(wildcard pipeline/report/*.py pipeline/report/templates/*) | .venv/.installed
	$(STAGE) report $(WHERE)

# --- Checks -------------------------------------------------------------------------------------

test: lint types pytest ## Lint, types, import direction and tests; needs no artifact and no network

lint: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: .venv/.installed
	$(PY) -m mypy
	cd device && ../$(PY) -m mypy --config-file ../pyproject.toml *.py bench

pytest: .venv/.installed .venv-device/.installed .venv-fleet/.installed
	$(PY) -m pytest

clean: ## Delete what the pipeline made (artifacts, dist)
	rm -rf $(OUT) $(DIST)

distclean: clean ## Delete the environments as well
	rm -rf .venv .venv-device .venv-fleet
