"""The Makefile: its help, what each change rebuilds, and how a failed or broken-off run goes on."""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib

import pytest
from helpers import ROOT, TINY_RECIPE, run_program, write_script

MODELS = ["export"]
PARITY, BUNDLE = ["parity"], ["bundle"]
NATIVE = ["native", *PARITY, *BUNDLE]  # the C file and what hangs on it
EVERYTHING = ["train", *MODELS, *NATIVE]


def copy_tree(folder):
    """The files of the repository, with the environments that are already there."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        source, target = ROOT / name, folder / name
        if source.is_file() and not name.startswith(("data/", "docs/", "tests/")):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for lock in (folder / "requirements.lock", folder / "device" / "requirements.lock"):
        os.utime(lock, (0, 0))  # the environments are not to be made anew
    for name in (".venv", ".venv-device"):
        (folder / name).symlink_to(ROOT / name)


def run_make(folder, *arguments, **kwargs):
    exported = ("MAKEFLAGS", "MAKELEVEL", "DATA")  # what `make test` gives to what it runs
    environment = {k: v for k, v in os.environ.items() if k not in exported}
    return run_program("make", *arguments, cwd=folder, env=environment, **kwargs)


# `make -n` does not see that a rule with two targets renews both. So this stands in for Python:
# it touches what the stage would write, and make says what it ran. CI runs the real ones.
STAND_IN = """
case $3 in
  train) mkdir -p artifacts && touch artifacts/lenet5.keras artifacts/train.json ;;
  export) touch artifacts/lenet5_fp32.tflite artifacts/lenet5_int8.tflite \
    artifacts/lenet5_fp32.onnx artifacts/lenet5_int8.onnx ;;
  native) mkdir -p artifacts/native && touch artifacts/native/golden.bin ;;
  parity) touch artifacts/parity.json artifacts/probabilities.npz ;;
  bundle) mkdir -p dist && touch dist/BUNDLE ;;
esac
"""


# The stage's own command line takes what make gives it.
PARSE = ".venv/bin/python -c 'import sys; from pipeline import __main__ as m; "
PARSE += """m.build_parser().parse_args(sys.argv[3:])' "$@" || exit\ncase"""


def export(tree, *settings, script=STAND_IN):
    """Run `make export`; the stages touch their files and do nothing else."""
    version = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    write_script(tree / "stand-in", script.replace("BUNDLE", f"lenet5-edge-{version}.tar.gz"))
    run = run_make(tree, "export", "PY=./stand-in", *settings)
    time.sleep(0.02)  # files' times move in steps of up to 10 ms: what is touched next is newer
    return run


def rebuilt(tree, *settings, script=STAND_IN):
    """The stages that `make export` runs, in order."""
    run = export(tree, *settings, script=script)
    assert run.returncode == 0, run.stderr
    return re.findall(r"-m pipeline (\w+)", run.stdout)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory):
    """A copy of the tree in which `make export` ran once, and what it printed."""
    tree = tmp_path_factory.mktemp("tree")
    copy_tree(tree)
    (tree / "tiny.toml").write_text(TINY_RECIPE)
    (tree / "my data").mkdir()
    (tree / "my data" / "small.npz").touch()
    return tree, export(tree, *SETTINGS, script=STAND_IN.replace("case", PARSE, 1))


@pytest.fixture
def tree(first_run, tmp_path):
    """A copy of that tree, times included, that a test may change."""
    return shutil.copytree(first_run[0], tmp_path / "tree", symlinks=True)


SETTINGS = ("RECIPE=tiny.toml", "DATA=my data")


# --- Help ---------------------------------------------------------------------------------------


def test_make_alone_prints_every_documented_target():
    documented = re.findall(r"^([^\s:#]+):.*##", (ROOT / "Makefile").read_text(), re.M)
    assert {"help", "export", "test", "clean"} <= set(documented)
    printed = re.findall(r"^  make (\S+)", run_make(ROOT).stdout, re.M)
    assert printed == documented


def test_every_verb_is_phony():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: FORCE (.*)$", makefile, re.M)[1].split()
    assert set(re.findall(r"^([a-z-]+):", makefile, re.M)) == set(phony)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (".FEATURES=", "GNU make 4.3 or newer is needed"),
        ("RECIPE=a b.toml", "must not be empty or hold spaces"),
        ("BUDGET=a b", "must not be empty or hold spaces"),
        ("OUT=a b", "must not be empty or hold spaces"),
        ("DIST=a b", "must not be empty or hold spaces"),
        ("DIST=", "must not be empty or hold spaces"),
        ("RCIPE=max", "RCIPE: no such setting; there are: DATA "),
        ("RECIPE=typo", "RECIPE=typo: no such recipe; there are: best cookbook max"),
        ("BUDGET=typo.toml", "BUDGET=typo.toml: no such file"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(tmp_path, setting, said):
    run = run_make(ROOT, "-n", "export", f"OUT={tmp_path}", setting)
    assert run.returncode == 2
    assert said in run.stderr


# --- What is out of date ------------------------------------------------------------------------


def test_first_export_runs_every_stage_by_its_command_line_and_the_second_none(first_run):
    tree, run = first_run
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.findall(r"-m pipeline (\w+)", run.stdout) == EVERYTHING
    assert export(tree, *SETTINGS).stdout == "make: Nothing to be done for 'export'.\n"


TOUCHED = {
    "tiny.toml": EVERYTHING,
    "pipeline/train/lenet5.py": EVERYTHING,
    "my data/small.npz": EVERYTHING,
    "export/to_tflite.py": [*MODELS, *NATIVE],
    "export/logits.py": [*MODELS, *NATIVE],
    "export/to_onnx.py": [*MODELS, *NATIVE],
    "export/seal.py": [*MODELS, *NATIVE],
    "export/c_templates/neon.c.in": NATIVE,
    "device/native/binding.c": NATIVE,
    "pipeline/parity/budget.toml": PARITY + BUNDLE,
    "pipeline/parity/statistics.py": PARITY + BUNDLE,
    "device/runner.py": PARITY + BUNDLE,
    "device/README.md": BUNDLE,
    "README.md": [],
}
DELETED = {
    "artifacts/lenet5.keras": EVERYTHING,
    "artifacts/train.json": EVERYTHING,
    "artifacts/lenet5_fp32.tflite": [*MODELS, *NATIVE],
    "artifacts/lenet5_int8.tflite": [*MODELS, *NATIVE],
    "artifacts/lenet5_fp32.onnx": [*MODELS, *NATIVE],
    "artifacts/lenet5_int8.onnx": [*MODELS, *NATIVE],
    "artifacts/native": NATIVE,
    "artifacts/native/golden.bin": NATIVE,
    "dist": BUNDLE,
    "artifacts": EVERYTHING,
}


def test_changed_file_rebuilds_what_hangs_on_it(tree):
    for touched, stages in TOUCHED.items():
        (tree / touched).touch()
        assert sorted(rebuilt(tree, *SETTINGS)) == sorted(stages), touched


def test_deleted_file_is_rebuilt_with_what_hangs_on_it(tree):
    for deleted, stages in DELETED.items():
        path = tree / deleted
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert sorted(rebuilt(tree, *SETTINGS)) == sorted(stages), deleted


def test_other_versions_in_an_environment_convert_and_judge_anew(tree):
    for environment, stages in ((".venv", [*MODELS, *NATIVE]), (".venv-device", NATIVE)):
        (tree / environment).unlink()  # the link to the real one
        (tree / environment).mkdir()
        (tree / environment / ".installed").touch()
        assert sorted(rebuilt(tree, *SETTINGS)) == sorted(stages), environment


def test_new_file_in_the_data_retrains(tree):
    names = "".join(f"digit {label}\n" for label in range(10))
    (tree / "my data" / "labels.txt").write_text(names)
    assert rebuilt(tree, *SETTINGS)[0] == "train"


def test_another_budget_judges_again(tree):
    shutil.copy(tree / "pipeline" / "parity" / "budget.toml", tree / "strict.toml")
    assert rebuilt(tree, *SETTINGS, "BUDGET=strict.toml") == PARITY + BUNDLE
    assert rebuilt(tree, *SETTINGS, "BUDGET=strict.toml") == []
    assert rebuilt(tree, *SETTINGS) == PARITY + BUNDLE


# --- Nothing is lost to a forgotten or mistyped word ---------------------------------------------


def test_settings_stay_those_that_the_model_was_made_with(tree):
    assert rebuilt(tree) == []
    assert rebuilt(tree, "DATA=my data/", "OUT=artifacts/") == []


def test_a_model_of_other_settings_is_not_replaced(tree):
    model = tree / "artifacts" / "lenet5.keras"
    model.write_text("hours of training")
    for other in ("RECIPE=cookbook", "RECIPE=best", "DATA=data/mnist"):
        run = run_make(tree, "export", other)
        assert run.returncode == 2
        assert "artifacts/ holds the model of RECIPE=tiny.toml DATA=my data" in run.stderr
        assert "OUT=artifacts-2" in run.stderr
    assert model.read_text() == "hours of training"


def test_another_folder_takes_other_settings_and_its_bundle(tree):
    shutil.copy(tree / "tiny.toml", tree / "other.toml")
    stand_in = STAND_IN.replace("artifacts", "elsewhere").replace("dist", "elsewhere/dist")
    stages = rebuilt(tree, "OUT=elsewhere", "RECIPE=other.toml", "DATA=my data", script=stand_in)
    assert stages == EVERYTHING
    assert (tree / "elsewhere" / ".recipe").read_text() == "other.toml\n"
    assert rebuilt(tree) == []


def test_an_exported_out_or_arch_does_not_reach_the_stages(tree, monkeypatch):
    monkeypatch.setenv("ARCH", "aarch64")
    assert rebuilt(tree) == []


def test_a_target_that_uses_the_artifacts_does_not_train(tree):
    (tree / "pipeline" / "train" / "lenet5.py").touch()
    write_script(tree / "stand-in", "")
    for target in ("run", "bench", "report", "photos", "robustness", "native"):
        run = run_make(tree, target, "PY=./stand-in", "IMAGE=missing.png")
        assert not re.search("pipeline (train|export)", run.stdout), target


def test_clean_deletes_what_was_made_and_no_other_folder(tree):
    other = tree / "my data" / "small.npz"
    (tree / "dist" / "mine").touch()
    (tree / "data" / "own").mkdir(parents=True)
    run = run_make(tree, "clean", "OUT=data/own")
    assert run.returncode == 2
    assert "data/own/ holds no train.json" in run.stderr
    assert (tree / "data" / "own").is_dir()
    run_make(tree, "clean", check=True)
    assert not (tree / "artifacts").exists()
    assert [path.name for path in (tree / "dist").iterdir()] == ["mine"]
    assert other.exists()


def test_a_mistyped_data_folder_changes_nothing(tree):
    run = run_make(tree, "export", "OUT=fresh", "RECIPE=tiny.toml", "DATA=typo")
    assert run.returncode == 2
    assert "typo: no such folder" in run.stderr
    assert rebuilt(tree) == []


# --- Failed and broken-off runs -----------------------------------------------------------------


def test_failed_parity_is_not_packed_and_fails_again_until_it_passes(tree):
    shutil.rmtree(tree / "dist")
    (tree / "pipeline" / "parity" / "budget.toml").touch()
    for _ in range(2):
        run = export(tree, script=STAND_IN.replace("parity) ", "parity) exit 1;"))
        assert run.returncode == 2  # make's own code for a failed command
        assert "Error 1" in run.stderr
        assert not (tree / "dist").exists()
    assert rebuilt(tree) == PARITY + BUNDLE


def test_bad_data_stops_with_the_stages_own_line(tree):
    (tree / "my data" / "small.npz").write_bytes(b"damaged")
    run = run_make(tree, "export", *SETTINGS)
    assert run.returncode == 2
    assert "pipeline: my data/small.npz: damaged .npz file" in run.stderr
    assert rebuilt(tree, *SETTINGS)[0] == "train"


@pytest.fixture
def venv_tool(tmp_path):
    """A function that runs tools/venv.sh on an empty lock file."""
    (tmp_path / "empty.lock").touch()
    script = ROOT / "tools" / "venv.sh"

    def run(**environment):
        environment = {**os.environ, "PYTHON": sys.executable, **environment}
        return run_program(script, "a venv", "empty.lock", cwd=tmp_path, env=environment)

    return run


def test_broken_off_creation_of_an_environment_is_picked_up(venv_tool, tmp_path):
    folder = tmp_path / "a venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    run = venv_tool()
    assert run.returncode == 0, run.stderr
    assert (folder / ".installed").exists()
    pip = subprocess.run([folder / "bin" / "python", "-m", "pip", "--version"], capture_output=True)
    assert pip.returncode == 0


@pytest.mark.parametrize("python", ["none", "3.10"])
def test_machine_without_a_suitable_python_is_told_what_to_install(venv_tool, tmp_path, python):
    if python == "3.10":
        old = f'exec {sys.executable} -c "import sys; sys.version_info = (3, 10, 9)\n$2"'
        write_script(tmp_path / python, old)
    run = venv_tool(PYTHON=str(tmp_path / python))
    assert run.returncode == 2
    assert "apt install python3" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "a venv" / ".installed").exists()
