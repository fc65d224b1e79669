"""The tools that make calls: what a user types reaches them as it is; what they refuse to ship."""

import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from helpers import ROOT, run_program, write_script

from export.bundle import write_bundle

# What shells and make would take for theirs.
OURS = "a b $(touch ran) `touch ran` x; touch ran; $(shell touch ran) $$(touch ran) ${HOME} a\\b"
TYPED = [OURS, f"it's '; {OURS}; '", f'say "x" "; {OURS}; "', "-n", "*"]

PYTHONS = (".venv/bin/python", ".venv-device/bin/python")


@pytest.fixture
def tree(tmp_path):
    """A Makefile whose tools print what they are called with, an argument a line."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("device", "pipeline/parity/budget.toml", "pipeline/train/recipes/best.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    tools = ("deploy.sh", "fleet.sh", "bench-pi.sh", "sign.sh")
    for name in (*(f"tools/{tool}" for tool in tools), *PYTHONS):
        write_script(tmp_path / name, "printf '%s\\n' \"$@\"")
    return tmp_path


CALLS = [
    ("PI", ["deploy"]),
    ("DIR", ["deploy", "PI=pi@host"]),
    ("PORT", ["deploy", "PI=pi@host"]),
    ("INVENTORY", ["deploy"]),
    ("PI", ["bench-pi"]),
    ("DIR", ["bench-pi", "PI=pi@host"]),
    ("IMAGE", ["run"]),
    ("SIGN", ["bundle"]),
    ("DATA", ["robustness"]),
]


@pytest.mark.parametrize("by", ["argument", "environment"])
@pytest.mark.parametrize(("name", "call"), CALLS, ids=[f"{n}-{c[0]}" for n, c in CALLS])
def test_what_a_user_types_reaches_the_tool_as_it_is(tree, name, call, by):
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL")}
    made = [".venv/.installed", ".venv-device/.installed", ".venv-fleet/.installed", "export"]
    version = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    made += ["artifacts/lenet5_int8.tflite", f"dist/lenet5-edge-{version}.tar.gz"]
    command = ["make", *call]
    for file in made:
        command += ["-o", file]
    for typed in TYPED:
        if by == "argument":
            run = [*command, f"{name}={typed}"]
        else:
            run, environment[name] = command, typed
        done = run_program(*run, cwd=tree, env=environment)
        assert typed in done.stdout.splitlines(), done.stdout + done.stderr
        assert not list(tree.rglob("ran"))


# --- What is shipped ----------------------------------------------------------------------------


@pytest.fixture
def exported_tree(tmp_path):
    """A folder with `artifacts` of one model that passed parity, and the bundle of it."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "model.tflite").write_bytes(MODEL)
    write_parity(tmp_path)
    bundle_of(MODEL, tmp_path)
    return tmp_path


MODEL = b"a model"


def write_parity(folder, status="pass", of_model="pass"):
    row = {"artifact": "model.tflite", "status": of_model}
    row["sha256"] = hashlib.sha256(MODEL).hexdigest()
    parity = {"status": status, "rows": [row]}
    (folder / "artifacts" / "parity.json").write_text(json.dumps(parity))


def bundle_of(model, folder):
    manifest = {"models": {"model.tflite": {}}}
    write_bundle({"model.tflite": model}, manifest, "lenet5-edge-1.0.0", folder / "bundle.tar.gz")


NOT_SHIPPED = {
    "parity failed": lambda folder: write_parity(folder, status="fail"),
    "the model passed on no runtime": lambda folder: write_parity(folder, of_model="not_run"),
    "another model": lambda folder: (folder / "artifacts" / "model.tflite").write_bytes(b"x"),
    "no model": lambda folder: (folder / "artifacts" / "model.tflite").unlink(),
    "parity was not run": lambda folder: (folder / "artifacts" / "parity.json").unlink(),
    "parity.json damaged": lambda folder: (folder / "artifacts" / "parity.json").write_text("{"),
    "another bundle": lambda folder: bundle_of(b"old", folder),
}


@pytest.mark.parametrize(
    ("tool", "nowhere"), [("deploy", "PI=-: not"), ("fleet", "no inventory -")]
)
@pytest.mark.parametrize("change", NOT_SHIPPED.values(), ids=NOT_SHIPPED.keys())
def test_only_a_bundle_of_the_present_artifacts_that_passed_parity_is_shipped(
    exported_tree, change, tool, nowhere
):
    def run():
        words = (ROOT / "tools" / f"{tool}.sh", "bundle.tar.gz", "-")
        environment = {**os.environ, "ARTIFACTS": "artifacts"}
        return run_program(*words, cwd=exported_tree, env=environment)

    accepted = run()
    assert accepted.returncode == 2
    assert accepted.stderr.startswith(f"deploy: {nowhere}")
    change(exported_tree)
    refused = run()
    assert refused.returncode == 1
    assert refused.stderr == (
        "deploy: bundle.tar.gz: not made from what is in artifacts now, or that failed parity; "
        "run: make export\n"
    )


@pytest.mark.parametrize(("ended", "code"), [(0, 0), (2, 1), (4, 1), (1, 2), (250, 2)])
def test_ansible_gets_the_bundle_with_its_signature_and_its_end_is_told(tmp_path, ended, code):
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    for name in ("b.tar.gz", "b.tar.gz.sig", "hosts"):
        (tmp_path / name).touch()
    programs = tmp_path / ".venv-fleet" / "bin"
    write_script(programs / "ansible", "echo 'hosts (1)'")
    write_script(programs / "ansible-playbook", f'ls "${{4#*=}}"*; exit {ended}')
    run = run_program(tmp_path / "tools" / "fleet.sh", "b.tar.gz", "hosts", cwd=tmp_path)
    assert run.returncode == code, run.stderr
    names = [Path(line).name for line in run.stdout.splitlines()]
    assert names == ["bundle.tar.gz", "bundle.tar.gz.sig"]


# --- Environments -------------------------------------------------------------------------------

PYTHON = """
case $2 in
    venv)
        echo begin >>log
        sleep 0.3
        mkdir -p "$4/bin"
        ln -s "$PWD/nothing" "$4/bin/python"
        echo end >>log
        ;;
esac
"""


@pytest.fixture
def start_venv(tmp_path):
    """A function that starts tools/venv.sh with a Python whose environments have `nothing`."""
    (tmp_path / "empty.lock").touch()
    write_script(tmp_path / "python", PYTHON)
    environment = {**os.environ, "PYTHON": str(tmp_path / "python")}
    command = [ROOT / "tools" / "venv.sh", "venv", "empty.lock"]
    return lambda: subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )


@pytest.mark.parametrize("code", [0, 1])
def test_an_environment_is_finished_when_pip_has_installed_all_by_its_hash(
    start_venv, tmp_path, code
):
    pip = f'case "$*" in *install*--require-hashes*) exit {code} ;; *install*) exit 1 ;; esac'
    write_script(tmp_path / "nothing", pip)
    assert start_venv().wait() == code
    assert (tmp_path / "venv" / ".installed").exists() == (code == 0)


def test_two_makings_of_one_environment_wait_for_each_other(start_venv, tmp_path):
    (tmp_path / "nothing").symlink_to(shutil.which("true"))
    runs = [start_venv() for _ in range(2)]
    assert [run.wait() for run in runs] == [0, 0]
    assert (tmp_path / "log").read_text() == "begin\nend\n"  # the second found it there
