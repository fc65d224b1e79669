"""A device that has allowed_signers installs what one of them signed, and nothing else."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from deploy_helpers import installed, refused
from helpers import ROOT, need, run_program


@pytest.fixture(scope="module")
def signers(tmp_path_factory):
    """Two keys, `mine` and `foreign`, and the line of allowed_signers for mine."""
    need("ssh-keygen")
    folder = tmp_path_factory.mktemp("signers")
    for name in ("mine", "foreign"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
        subprocess.run(command, check=True)
    (folder / "allowed_signers").write_text(f"me@home {(folder / 'mine.pub').read_text()}")
    return folder


@pytest.fixture
def strict_board(board, signers):
    """A board that has allowed_signers."""
    board.home.mkdir()
    shutil.copy(signers / "allowed_signers", board.home)
    return board


def sign(bundle, key):
    run = run_program(ROOT / "tools" / "sign.sh", bundle, key)
    assert run.returncode == 0, run.stderr


def test_a_signed_bundle_is_installed_where_its_signer_is_allowed(
    strict_board, bundles, signers, tmp_path
):
    bundle = shutil.copy(bundles[0], tmp_path / "a bundle.tar.gz")
    sign(bundle, signers / "mine")
    installed(strict_board, bundle)
    assert "was in use already" in installed(strict_board, bundle).stdout


@pytest.mark.parametrize(
    "case", ["unsigned", "by a foreign key", "of another bundle", "for another purpose", "garbage"]
)
def test_what_no_allowed_signer_signed_is_exit_2(strict_board, bundles, signers, tmp_path, case):
    bundle, other = (shutil.copy(path, tmp_path) for path in bundles[:2])
    signature = Path(f"{bundle}.sig")
    if case == "by a foreign key":
        sign(bundle, signers / "foreign")
    elif case == "of another bundle":
        sign(other, signers / "mine")
        Path(f"{other}.sig").rename(signature)
    elif case == "for another purpose":
        command = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", signers / "mine", bundle]
        subprocess.run(command, check=True, capture_output=True)
    elif case == "garbage":
        signature.write_text("x")
    allowed = strict_board.home / "allowed_signers"
    said = f"{bundle}: no signature in {signature} by one of {allowed}; sign it with: make bundle"
    refused(strict_board.install(bundle), 2, said)
    assert {path.name for path in strict_board.home.iterdir()} == {"allowed_signers"}


def test_allowed_signers_that_names_nobody_allows_nobody(board, bundles, signers, tmp_path):
    board.home.mkdir()
    bundle, allowed = shutil.copy(bundles[0], tmp_path), board.home / "allowed_signers"
    sign(bundle, signers / "mine")
    for make in (lambda: allowed.symlink_to("nowhere"), allowed.touch, allowed.mkdir):
        allowed.unlink(missing_ok=True)
        make()
        assert board.install(bundle).returncode == 2


def test_signing_with_a_key_that_is_not_there_is_one_line_and_exit_2(bundles):
    run = run_program(
        ROOT / "tools" / "sign.sh", bundles[0], "~/key", env={**os.environ, "HOME": "/nowhere"}
    )
    refused(run, 2, "SIGN=/nowhere/key: no such file", by="sign")


def test_a_key_that_cannot_sign_leaves_the_signature_that_was_there(bundles, tmp_path):
    bundle, key = shutil.copy(bundles[0], tmp_path), tmp_path / "key"
    key.write_text("no key")
    Path(f"{bundle}.sig").write_text("earlier")
    run = run_program(ROOT / "tools" / "sign.sh", bundle, key)
    assert run.returncode == 1
    assert run.stderr.endswith(f"sign: {key} cannot sign, for the reason above\n")
    assert Path(f"{bundle}.sig").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 3
