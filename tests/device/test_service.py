"""The service that reads the camera from boot on: installed, kept and removed."""

from deploy_helpers import installed, make_fake_bundle, refused
from helpers import ROOT


def bundle_with_service(folder, version="1.0.0"):
    unit = (ROOT / "device" / "lenet5-edge.service").read_bytes()
    return make_fake_bundle(folder, version, {"lenet5-edge.service": unit})


def test_the_service_is_installed_once_goes_on_with_a_new_version_and_is_removed(board, tmp_path):
    first, second = (bundle_with_service(tmp_path, version) for version in ("1.0.0", "2.0.0"))
    calls, home = tmp_path / "calls", tmp_path / "home"
    for name in ("systemctl", "loginctl"):
        board.command(name, f'echo "$@" >>{calls}')
    unit = home / ".config" / "systemd" / "user" / "lenet5-edge.service"
    for _ in range(2):
        installed(board, first, HOME=str(home), SERVICE="1")
        assert f"\nWorkingDirectory={board.home}/current\n" in unit.read_text()
    assert list(unit.parent.iterdir()) == [unit]
    assert "enable-linger" in calls.read_text()
    installed(board, second, HOME=str(home))
    assert calls.read_text().endswith("--user try-restart lenet5-edge.service\n")
    for _ in range(2):
        installed(board, second, HOME=str(home), SERVICE="0")
        assert not unit.exists()
    assert "--user disable --now lenet5-edge.service\n" in calls.read_text()


def test_a_service_needs_a_folder_whose_name_systemd_reads_as_it_is(board, tmp_path):
    board.home = board.folder / "100 %n"
    run = board.install(bundle_with_service(tmp_path), HOME=str(tmp_path), SERVICE="1")
    refused(run, 1, f"{board.home}: a service needs a DIR of letters, digits and . / _ -")


def test_a_service_that_does_not_start_is_exit_1_and_the_version_is_in_use(board, tmp_path):
    board.command("systemctl", "echo no bus >&2\nexit 1")
    home = str(tmp_path / "home")
    run = board.install(bundle_with_service(tmp_path), HOME=home, SERVICE="1")
    assert run.returncode == 1
    assert "no bus\ninstall: cannot start the service" in run.stderr
    assert board.in_use() == "1.0.0"
