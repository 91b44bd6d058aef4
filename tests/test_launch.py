import ast
import sys
import time
from pathlib import Path

import pytest

import launch

SOURCE = Path(launch.__file__)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a .venv that has a Python, as far as files go."""
    (tmp_path / "pyproject.toml").write_text("[project]")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0")
    python = launch.python_in(tmp_path / ".venv")
    python.parent.mkdir(parents=True)
    python.write_text("")
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("version = 3.11.7")
    return tmp_path


def installed(checkout: Path) -> bool:
    return launch.is_installed("app", root=checkout, venv=checkout / ".venv")


def test_an_old_python_can_parse_the_launcher():
    ast.parse(SOURCE.read_text("utf-8"), feature_version=(3, 6))


def test_nothing_outside_the_standard_library_is_imported():
    tree = ast.walk(ast.parse(SOURCE.read_text("utf-8")))
    names = {alias.name for node in tree if isinstance(node, ast.Import) for alias in node.names}
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 10, 9), (3, 14, 0)])
def test_an_unsupported_python_is_named_in_one_line(version):
    text = launch.wrong_python(version)
    assert f"this is {version[0]}.{version[1]}" in text
    assert "\n" not in text


@pytest.mark.parametrize("version", [(3, 11, 0), (3, 12, 4), (3, 13, 1)])
def test_a_supported_python_is_fine(version):
    assert launch.wrong_python(version) == ""


def test_a_stamp_says_that_all_is_installed(checkout):
    assert not installed(checkout)
    launch.write_stamp("app", root=checkout, venv=checkout / ".venv")
    assert installed(checkout)
    assert not launch.is_installed("test", root=checkout, venv=checkout / ".venv")


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt", ".venv/pyvenv.cfg"])
def test_a_changed_file_makes_the_stamp_stale(checkout, changed):
    launch.write_stamp("app", root=checkout, venv=checkout / ".venv")
    (checkout / changed).write_text("other")
    assert not installed(checkout)


def test_a_venv_without_its_python_is_not_installed(checkout):
    launch.write_stamp("app", root=checkout, venv=checkout / ".venv")
    launch.python_in(checkout / ".venv").unlink()
    assert not installed(checkout)


def test_a_moved_checkout_is_installed_anew(checkout, tmp_path_factory):
    launch.write_stamp("app", root=checkout, venv=checkout / ".venv")
    moved = checkout.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
    assert not installed(moved)


def test_a_full_disk_is_said_before_anything_is_installed(tmp_path):
    launch.check_disk(tmp_path, 0)
    with pytest.raises(launch.Stop, match=r"GiB free, and installing needs 1000000 GiB"):
        launch.check_disk(tmp_path, 1e6)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "space"),
        ("NewConnectionError('refused')\nERROR: No matching distribution found for torch==2.13.0", "network"),
        ("ERROR: No matching distribution found for torch==2.13.0", "pin"),
        ("ERROR: ResolutionImpossible: for help visit", "pin"),
        ("error: command 'gcc' failed: No such file or directory", "compiler"),
        ("Segmentation fault", "other"),
    ],
)
def test_a_failed_pip_is_told_by_its_cause(log, expected):
    assert launch.cause(log) == expected
    assert launch.REMEDIES[expected]


def program(folder: Path, name: str) -> str:
    path = folder / (f"{name}.exe" if sys.platform == "win32" else name)
    path.write_text("")
    path.chmod(0o755)
    return str(path)


def test_a_chromium_on_the_path_is_found(tmp_path):
    assert launch.find_chromium(None, path=str(tmp_path)) is None
    chrome = program(tmp_path, "google-chrome")
    assert launch.find_chromium(None, path=str(tmp_path)) == chrome


def test_the_named_chromium_comes_first(tmp_path):
    program(tmp_path, "chromium")
    named = program(tmp_path, "mine")
    assert launch.find_chromium(named, path=str(tmp_path)) == named


def test_a_named_chromium_that_is_no_program_stops_the_tests(tmp_path):
    with pytest.raises(launch.Stop, match=r"STUDIO_CHROMIUM is .*nowhere"):
        launch.find_chromium(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("given", "browser", "expected"),
    [
        ([], True, ["-m", "not gpu and not slow"]),
        (["-q"], False, ["-m", "(not gpu and not slow) and not browser", "-q"]),
        (["-m", "slow", "-x"], True, ["-m", "slow", "-x"]),
        (["-m", "slow or gpu"], False, ["-m", "(slow or gpu) and not browser"]),
    ],
)
def test_the_choice_of_tests_follows_the_arguments(given, browser, expected):
    assert launch.pytest_arguments(given, browser=browser) == expected


def test_without_arguments_the_tests_in_a_browser_run_alone_after_the_others():
    first, second = launch.pytest_runs([], browser=True)
    assert first[:2] == ["-m", "(not gpu and not slow) and not browser"] and "-n" in first
    assert second == ["-m", "(not gpu and not slow) and browser"]
    assert launch.pytest_runs([], browser=False) == [first]
    assert launch.pytest_runs(["-q"], browser=True) == [["-m", "not gpu and not slow", "-q"]]


def test_arguments_of_pytest_pass_through():
    options, rest = launch.parsed(["test", "--no-browser-tests", "-q", "tests/test_home.py", "-k", "a or b"])
    assert options.no_browser_tests
    assert rest == ["-q", "tests/test_home.py", "-k", "a or b"]


@pytest.mark.parametrize(("given", "named"), [(["--prot", "1"], "--prot"), (["tets"], "tets")])
def test_an_unknown_argument_is_named(given, named, capsys):
    with pytest.raises(SystemExit):
        launch.parsed(given)
    assert f"unknown argument {named}. Known: test" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")
def test_a_command_that_hangs_is_ended_with_its_children(tmp_path, capsys):
    marker = tmp_path / "child-lived"
    child = f"import time, pathlib; time.sleep(2); pathlib.Path({str(marker)!r}).touch()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    began = time.monotonic()
    launch.run_limited([sys.executable, "-c", parent], 0.5)
    assert time.monotonic() - began < 2
    assert "did not finish" in capsys.readouterr().out
    time.sleep(2)
    assert not marker.exists()
