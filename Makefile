# lenet5-edge: from MNIST to verified int8 TFLite, ONNX and C. `make` prints what there is.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: FORCE data export bundle native run bench robustness photos report readme deploy bench-pi pi-test accuracy instructions test lint types pytest fuzz mutants lock clean distclean help
$(if $(filter grouped-target,$(.FEATURES)),,$(error GNU make 4.3 or newer is needed; this is $(MAKE_VERSION)))

# Settings. What OUT was made with stays its setting until another is named.
OUT    ?= artifacts
override OUT := $(OUT:%/=%)
DIST   ?= $(if $(filter artifacts,$(OUT)),dist,$(OUT)/dist)
MADE_RECIPE := $(file <$(OUT)/.recipe)
MADE_DATA   := $(file <$(OUT)/.data)
RECIPE ?= $(or $(MADE_RECIPE),best)
ifeq ($(origin DATA),undefined)
DATA := $(or $(MADE_DATA),data/mnist)
endif
BUDGET ?= pipeline/parity/budget.toml
PORT   ?= 22
DIR    ?= lenet5-edge
# DATA alone may hold spaces: the others are targets and prerequisites, and make splits those.
$(if $(filter-out 4,$(words $(RECIPE) $(BUDGET) $(OUT) $(DIST))),$(error RECIPE, BUDGET, OUT and DIST must not be empty or hold spaces))
TYPED    := DATA FROM TO IMAGE PI PORT DIR INVENTORY SIGN RUNTIMES SERVICE
SETTINGS := $(TYPED) OUT DIST RECIPE RECIPES BUDGET WHEELS FLAGS ARCH FULL FUZZ_SECONDS PYTHON PY
UNKNOWN  := $(strip $(foreach name,$(filter-out $(SETTINGS),$(.VARIABLES)),$(if $(filter command,$(origin $(name))),$(name))))
$(if $(UNKNOWN),$(error $(UNKNOWN): no such setting; there are: $(SETTINGS)))
# What a user types reaches the shell by the environment, quoted once, and is not expanded by make.
unexport OUT
$(foreach name,$(TYPED),$(eval override export $(name) := $$(value $(name))))

PY      := .venv/bin/python
STAGE    = $(PY) -m pipeline
WHERE    = --data "$$DATA" --out $(OUT)
BUNDLE  := $(DIST)/lenet5-edge-$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)$(addprefix -,$(WHEELS)).tar.gz
MODELS  := $(addprefix $(OUT)/lenet5_,fp32.tflite int8.tflite fp32.onnx int8.onnx)
RECIPE_FILE := $(if $(filter %.toml,$(RECIPE)),$(RECIPE),pipeline/train/recipes/$(RECIPE).toml)

##@ Build
data: .venv/.installed ## Import your own images, FROM=file-or-folder TO=my/images; FLAGS="--invert --transpose"
	@$(STAGE) import "$${FROM:?make data FROM=your/images TO=a/new/folder}" "$${TO:?a new folder}" $(FLAGS)
export: $(BUNDLE) ## Train, convert, check parity, pack; only what is out of date (RECIPE=, DATA=)
bundle: export ## The same, signed by SIGN=~/.ssh/id_ed25519, for a Pi offline with WHEELS=aarch64-cp311
	@test -z "$$SIGN" || tools/sign.sh "$(BUNDLE)" "$$SIGN"

ifneq ($(filter export bundle,$(MAKECMDGOALS)),)
ifeq ($(wildcard $(RECIPE_FILE)),)
$(error RECIPE=$(RECIPE): no such recipe; there are: $(basename $(notdir $(wildcard pipeline/train/recipes/*.toml))); or name a .toml file)
else ifeq ($(wildcard $(BUDGET)),)
$(error BUDGET=$(BUDGET): no such file)
endif
# No trained model is lost to a forgotten or mistyped word.
MADE := RECIPE=$(MADE_RECIPE) DATA=$(patsubst %/,%,$(MADE_DATA))
ifneq ($(MADE_RECIPE),)
ifneq ($(MADE),RECIPE=$(RECIPE) DATA=$(patsubst %/,%,$(DATA)))
$(error $(OUT)/ holds the model of $(MADE). To keep it, name another folder: OUT=$(OUT)-2. To replace it: make clean)
endif
endif
endif

# A file of the data that is newer than the model, came or went, or another budget: made again.
CHANGED_DATA := $(if $(shell find -H '$(subst ','\'',$(value DATA))' -newer $(OUT)/train.json 2>/dev/null),FORCE)
CHANGED_BUDGET := $(if $(filter $(BUDGET),$(file <$(OUT)/.parity-passed)),,FORCE)
FORCE:
$(OUT)/lenet5.keras $(OUT)/train.json &: $(RECIPE_FILE) $(CHANGED_DATA) pipeline/config.py pipeline/data.py $(wildcard pipeline/train/*.py) | .venv/.installed
	$(STAGE) train --recipe $(RECIPE) $(WHERE)
	@printf '%s\n' '$(RECIPE)' >$(OUT)/.recipe && printf '%s\n' "$$DATA" >$(OUT)/.data

# Other versions of the converters or the runtimes convert and judge again, and leave training alone.
$(MODELS) &: $(OUT)/lenet5.keras $(OUT)/train.json pipeline/export.py $(wildcard export/*.py) .venv/.installed
	$(STAGE) export $(WHERE)

native: ## The int8 model as C, compiled again; ARCH=cortex-m0plus or cortex-m33: for a Pico or Pico 2
	$(STAGE) $(if $(findstring command,$(origin ARCH)),microcontroller $(ARCH),native) $(WHERE)

$(OUT)/native/golden.bin: $(OUT)/lenet5_int8.tflite pipeline/native.py $(wildcard export/c_templates/* device/native/*) .venv/.installed .venv-device/.installed
	$(STAGE) native $(WHERE)

# A failed parity.json stays for its reader; only the stamp says that parity passed, and by which budget.
$(OUT)/.parity-passed: $(MODELS) $(OUT)/native/golden.bin $(BUDGET) $(CHANGED_BUDGET) pipeline/classify.py $(wildcard pipeline/parity/*.py pipeline/parity/*.c) device/runner.py
	@rm -f $@
	$(STAGE) parity --budget $(BUDGET) $(WHERE)
	@printf '%s\n' '$(BUDGET)' >$@

$(BUNDLE): $(OUT)/.parity-passed $(shell find device -type f -not -path '*/[._]*') $(wildcard pipeline/bundle/*.py) export/bundle.py pyproject.toml
	$(STAGE) bundle --dist $(DIST) $(addprefix --wheels ,$(WHEELS)) $(WHERE)

##@ Use what is in OUT=artifacts; none of these trains
run: .venv-device/.installed ## Classify IMAGE=digit.png as a Pi would
	@test -n "$$IMAGE" || { echo "run: name a picture: make run IMAGE=digit.png" >&2; exit 2; }
	@.venv-device/bin/python device/runner.py --model $(OUT)/lenet5_int8.tflite "$$IMAGE"
bench: .venv/.installed .venv-device/.installed ## Time every artifact on every runtime: minutes, longer with FLAGS=--full
	$(STAGE) bench $(FLAGS) $(WHERE)
robustness: .venv/.installed .venv-device/.installed ## Accuracy on rotated, shifted, scaled, noisy, blurred, faint images
	$(STAGE) robustness $(WHERE)
photos: .venv/.installed ## How often generated photographs of digits are read right
	$(STAGE) photos $(WHERE)
report: .venv/.installed ## One page of all that was measured: artifacts/report.html
	$(STAGE) report $(WHERE)
readme: .venv/.installed ## Write docs/results.md and the README's table from this run
	$(STAGE) readme $(WHERE)

##@ On a Raspberry Pi
deploy: $(if $(INVENTORY),.venv-fleet/.installed) ## Install, verify and time the bundle on PI=user@host, or all of INVENTORY=hosts.ini
	@ARTIFACTS=$(OUT) $(if $(INVENTORY),tools/fleet.sh "$(BUNDLE)" "$$INVENTORY" $(FLAGS),tools/deploy.sh "$(BUNDLE)" "$$PI" "$$PORT" "$$DIR")
bench-pi: .venv/.installed ## Time the installed bundle on PI=user@host, into artifacts/bench-pi.json
	@tools/bench-pi.sh "$$PI" "$$PORT" "$$DIR" "$(OUT)/bench-pi.json" $(FLAGS)
	$(STAGE) bench --show $(OUT)/bench-pi.json $(WHERE)
pi-test: .venv/.installed ## Install and prove the bundle on emulated Raspberry Pis (minutes); on all processors (hours): FULL=1
	$(STAGE) pi-test $(BUNDLE) $(if $(FULL),--full) $(WHERE)

##@ Study
accuracy: .venv/.installed .venv-device/.installed ## Five seeds of RECIPES="best max": docs/accuracy.md (an hour)
	$(STAGE) accuracy $(RECIPES) $(WHERE)
instructions: .venv/.installed ## Instructions an image on each Pi's processor (apt: qemu-user qemu-system-arm mmdebstrap)
	$(STAGE) instructions $(WHERE)

##@ Develop
test: lint types pytest ## Lint, types and tests; needs no artifact and no network
lint: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
types: .venv/.installed
	$(PY) -m mypy
	cd device && ../$(PY) -m mypy --config-file ../pyproject.toml *.py bench photo
pytest: .venv/.installed .venv-device/.installed .venv-fleet/.installed
	$(PY) -m pytest
fuzz: ## Fuzz the lenet5 command's parsers for FUZZ_SECONDS=60 (apt: clang libclang-rt-14-dev)
	tests/device/native/fuzz.sh $(or $(FUZZ_SECONDS),60)
mutants: .venv/.installed ## Faults put into the code that decides: a test must notice each (minutes)
	$(PY) tests/mutants.py
lock: .venv/.installed ## Resolve the dependencies again into the lock files
	@tools/lock.sh
clean: ## Delete what the pipeline made
	@test $(OUT) = artifacts -o ! -e $(OUT) -o -e $(OUT)/train.json || { echo "clean: $(OUT)/ holds no train.json: no model of ours; delete it yourself" >&2; exit 2; }
	rm -rf $(OUT) $(DIST)/lenet5-edge-* mutants
distclean: clean ## Delete the environments as well
	rm -rf .venv .venv-device .venv-fleet
help: ## Print this help
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

.venv/.installed: requirements.lock
.venv-device/.installed: device/requirements.lock
.venv-fleet/.installed: requirements-fleet.lock
.venv/.installed .venv-device/.installed .venv-fleet/.installed:
	@tools/venv.sh $(@D) $<
