"""One command on a fresh machine: makes .venv, installs, opens the studio; with `test`, proves it instead.

    python launch.py [--host HOST] [--port PORT] [--no-browser]
    python launch.py test [--no-browser-tests] [pytest arguments]

Only the standard library is imported, and all that is left behind lies in .venv. Not here: anything about the studio
itself, and its default model (studio.engine.models.bundled).
"""

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
FREE_GIB = {"first": 5.0, "again": 1.0}
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
DEFAULT_TESTS = "not gpu and not slow"

CAUSES = {  # in this order: an unreachable index also says that no version matches
    "space": r"No space left on device|Errno 28|not enough space",
    "network": r"Failed to establish a new connection|NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out"
    r"|name resolution|getaddrinfo failed|Network is unreachable|ProxyError|CERTIFICATE_VERIFY_FAILED|IncompleteRead",
    "compiler": r"command '?(gcc|cc|g\+\+|clang)'? failed|Microsoft Visual C\+\+|Failed building wheel",
    "pin": r"No matching distribution found|Could not find a version that satisfies|ResolutionImpossible",
}
REMEDIES = {
    "space": "The disk is full. Free 5 GiB and start again.",
    "network": "The package index cannot be reached. Check the network or the proxy, then start again.",
    "compiler": "A package has no ready build for this machine, and building it failed. "
    "Install a C compiler (Debian, Ubuntu: sudo apt install build-essential), or use Python 3.11 to 3.13 in 64 bits.",
    "pin": "A package has no version for this machine and this Python. Use Python 3.11 to 3.13 in 64 bits.",
    "other": "Its last lines above say why. Start again to go on where it stopped.",
}


class Stop(Exception):
    """The launch cannot go on; the text is one line that says why and what to do."""


def wrong_python(version):  # no annotations before the check: an old Python must get as far as this
    """Why this Python will not do, or an empty text."""
    if (3, 11) <= tuple(version[:2]) < (3, 14):
        return ""
    return f"Finetune Studio needs Python 3.11, 3.12 or 3.13; this is {version[0]}.{version[1]}."


if wrong_python(sys.version_info):
    sys.exit(wrong_python(sys.version_info))


def python_in(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def fingerprint(root: Path, venv: Path) -> str:
    """Changes when what should be installed, the Python it is for, or the place of the checkout changes."""
    digest = hashlib.sha256(os.fsencode(f"{root}\0{os.path.realpath(python_in(venv))}\0"))
    for file in (root / "pyproject.toml", root / "constraints.txt", venv / "pyvenv.cfg"):
        digest.update((file.read_bytes() if file.is_file() else b"") + b"\0")
    return digest.hexdigest()


def is_installed(what: str, *, root: Path = ROOT, venv: Path = VENV) -> bool:
    """Whether the stamp of `app` or `test` was written for just this state. Starts no process."""
    stamp = venv / f".studio-{what}"
    return python_in(venv).exists() and stamp.is_file() and stamp.read_text("utf-8") == fingerprint(root, venv)


def write_stamp(what: str, *, root: Path = ROOT, venv: Path = VENV) -> None:
    scratch = venv / f".studio-{what}.{os.getpid()}"
    scratch.write_text(fingerprint(root, venv), "utf-8")
    scratch.replace(venv / f".studio-{what}")


def check_disk(folder: Path, needed_gib: float) -> None:
    free_gib = shutil.disk_usage(folder).free / 1024**3
    if free_gib < needed_gib:
        raise Stop(f"{folder} has {free_gib:.1f} GiB free, and installing needs {needed_gib:.0f} GiB. Free some space.")


def cause(log: str) -> str:
    """Which of CAUSES a failed pip's log shows, or `other`."""
    return next((name for name, pattern in CAUSES.items() if re.search(pattern, log)), "other")


def install(what: str) -> None:
    """Install the studio (`app`), or the studio with its test tools (`test`), unless that is done already."""
    if is_installed(what):
        return
    check_disk(ROOT, FREE_GIB["again" if any(VENV.glob(".studio-*")) else "first"])
    make_venv()
    for stamp in VENV.glob(".studio-*"):
        stamp.unlink()  # what an interrupted install leaves must not look whole
    target = ".[test]" if what == "test" else "."
    say("Installing into .venv. The first time takes a few minutes.")
    failed = pip_install("--constraint", "constraints.txt", "--editable", target)
    if failed in ("pin", "compiler"):
        say("A known-good version has no build for this machine. Trying again with the newest ones that may work.")
        failed = pip_install("--editable", target)
    if failed:
        raise Stop(f"Installing failed. {REMEDIES[failed]}")
    for each in {"app", what}:
        write_stamp(each)


def make_venv() -> None:
    """A .venv whose Python and pip run: the one that is there, or a new one."""
    if python_in(VENV).exists() and runs(python_in(VENV), "-c", "import sys, pip; assert (3, 11) <= sys.version_info"):
        return
    if not runs(sys.executable, "-c", "import ensurepip, venv"):
        raise Stop("This Python lacks venv or ensurepip. Debian, Ubuntu: sudo apt install python3-venv")
    say("Rebuilding .venv, which is broken." if VENV.exists() else "Making .venv.")
    made = subprocess.run(
        [getattr(sys, "_base_executable", sys.executable), "-m", "venv", "--clear", str(VENV)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if made.returncode:
        raise Stop(f"Cannot make {VENV}: {(made.stdout.strip().splitlines() or ['no reason given'])[-1]}")


def runs(*command: object) -> bool:
    return subprocess.run([str(part) for part in command], capture_output=True).returncode == 0


def pip_install(*arguments: str) -> str | None:
    """Run pip with its output in sight. Returns: why it failed, by its own log, or None."""
    log = VENV / "install.log"
    log.unlink(missing_ok=True)
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    command = [str(python_in(VENV)), "-m", "pip", "--log", str(log), "install", "--prefer-binary", *arguments]
    if subprocess.run(command, cwd=ROOT, env=os.environ | settings).returncode == 0:
        return None
    return cause(log.read_text("utf-8", errors="replace")[-200_000:] if log.is_file() else "")


def fetch_model() -> None:
    """Bring the default model once. Without it the studio still opens: it is fetched on first use, or another named."""
    stamp = VENV / ".studio-model"
    if stamp.exists():
        return
    if subprocess.run([str(python_in(VENV)), "-m", "studio.engine.models.bundled"]).returncode == 0:
        stamp.touch()
    else:
        say("Opening without the default model. It is fetched again when it is first used.")


def find_chromium(named: str | None, path: str | None = None) -> str | None:
    """The Chromium that STUDIO_CHROMIUM names, or one on the PATH. Raises: Stop: the named one does not exist."""
    if named and not shutil.which(named):
        raise Stop(f"STUDIO_CHROMIUM is {named}, which is not a program. Correct it, or unset it to have one found.")
    return named or next(filter(None, (shutil.which(name, path=path) for name in CHROMIUMS)), None)


def playwrights_chromium() -> str | None:
    """The browser that playwright downloaded for itself, if it did."""
    code = "from playwright.sync_api import sync_playwright as s\nwith s() as p: print(p.chromium.executable_path)"
    asked = subprocess.run([str(python_in(VENV)), "-c", code], capture_output=True, text=True)
    found = asked.stdout.strip()
    return found if asked.returncode == 0 and Path(found).is_file() else None


def make_sure_of_chromium() -> str | None:
    """A Chromium that exists, else playwright's download, else Debian's package; None if none can be had."""
    found = find_chromium(os.environ.get("STUDIO_CHROMIUM")) or playwrights_chromium()
    if found:
        return found
    debian_root = shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0
    say("Fetching Chromium for the browser tests.")
    run_limited([str(python_in(VENV)), "-m", "playwright", "install", "chromium"], 60 if debian_root else 900)
    found = playwrights_chromium()
    if not found and debian_root:
        run_limited(["apt-get", "update", "-q"], 300)
        run_limited(["apt-get", "install", "-y", "-q", "chromium", "fonts-wqy-zenhei"], 900)
        found = find_chromium(None)
    return found


def run_limited(command: list[str], limit_s: float) -> None:
    """Run a command to its end or its limit, and end its children with it. What it achieved is looked at afterwards."""
    settings = {"DEBIAN_FRONTEND": "noninteractive"}
    group = {} if os.name == "nt" else {"start_new_session": True}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=os.environ | settings, **group)
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        say(f"{command[0]} did not finish within {limit_s:.0f} s.")
    finally:
        if process.poll() is None:
            process.kill() if os.name == "nt" else os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def pytest_runs(given: list[str], *, browser: bool) -> list[list[str]]:
    """The arguments of one pytest after the other.

    Without any of the user's, the tests run on several cores, file by file, and those in a browser after them one by
    one: a page that waits for its turn on a busy machine looks like one that hangs.
    """
    if given:
        return [pytest_arguments(given, browser=browser)]
    side_by_side = ["-n", str(processes()), "--dist", "loadfile"]
    runs = [[*pytest_arguments([], browser=False), *side_by_side]]
    return [*runs, ["-m", f"({DEFAULT_TESTS}) and browser"]] if browser else runs


def processes() -> int:
    """How many test processes: one a core, but each takes up to 2 GiB."""
    return min(os.cpu_count() or 1, 4)


def pytest_arguments(given: list[str], *, browser: bool) -> list[str]:
    """The given arguments, with the default choice of markers unless they hold one, and without browser tests if so."""
    rest, chosen = list(given), DEFAULT_TESTS
    if "-m" in rest[:-1]:
        place = rest.index("-m")
        chosen = rest[place + 1]
        del rest[place : place + 2]
    return ["-m", chosen if browser else f"({chosen}) and not browser", *rest]


def test(given: list[str], *, browser: bool) -> int:
    """Run every check, however the one before it ends. Returns: the first exit status that is not 0."""
    install("test")
    chromium = make_sure_of_chromium() if browser else None
    environment = os.environ | ({"STUDIO_CHROMIUM": chromium} if chromium else {})
    python = str(python_in(VENV))
    checks = [
        [python, "-m", "ruff", "check", "."],
        [python, "-m", "ruff", "format", "--check", "."],
        [str(python_in(VENV).with_name("lint-imports"))],
        *([python, "-m", "pytest", *run] for run in pytest_runs(given, browser=chromium is not None)),
    ]
    statuses = {}
    for check in checks:
        name = " ".join([Path(check[0]).name, *check[1:]])
        say(f"$ {name}")
        statuses[name] = subprocess.run(check, cwd=ROOT, env=environment).returncode
    for name, status in statuses.items():
        if status:
            say(f"FAILED ({status}): {name}")
    if browser and not chromium:
        statuses["browser"] = 1
        say("FAILED: THE BROWSER TESTS DID NOT RUN, because no Chromium could be had. Install one, or name it in")
        say("STUDIO_CHROMIUM, or leave them out knowingly with --no-browser-tests.")
    return next((status for status in statuses.values() if status), 0)


def open_studio(options: list[str]) -> int:
    install("app")
    fetch_model()
    command = [str(python_in(VENV)), "-m", "studio", "ui", *options]
    if os.name == "nt":  # Windows has no exec: the shell would come back while the studio runs
        return subprocess.run(command).returncode
    return os.execv(command[0], command)


def say(text: str) -> None:
    print(text, flush=True)


def parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="launch.py", description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("command", nargs="?", metavar="test", help="run all checks and tests instead of opening")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", help="port to listen on")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    parser.add_argument("--no-browser-tests", action="store_true", help="with test: leave the browser tests out")
    options, rest = parser.parse_known_args(arguments)
    unknown = rest[:1] if options.command in (None, "test") else [*rest, options.command]
    if unknown and options.command != "test":
        parser.error(f"unknown argument {unknown[0]}. Known: test, --host, --port, --no-browser")
    return options, rest


def main(arguments: list[str]) -> int:
    options, rest = parsed(arguments)
    if options.command == "test":
        return test(rest, browser=not options.no_browser_tests)
    named = [f"--{key}={getattr(options, key)}" for key in ("host", "port") if getattr(options, key) is not None]
    return open_studio(named + ["--no-browser"] * options.no_browser)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (Stop, OSError) as error:
        sys.exit(f"launch.py: {error}")
