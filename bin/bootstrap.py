"""Make a virtual environment for this checkout, once: what `bin/groundlink` and `bin/test` do first.

    python bootstrap.py FOLDER REQUIREMENT... [-r FILE]

What is installed has the versions of constraints.txt, but for packages whose version the file itself names.
Standard library only, and quiet when there is nothing to do. Progress goes to standard error, so that the output of
the command that follows stays clean.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST, NEWEST = (3, 10), (3, 14)


def main() -> int:
    folder, requirements = ROOT / sys.argv[1], sys.argv[2:]
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        return fail(f"Python 3.{OLDEST[1]} to 3.{NEWEST[1]} is needed, and this is {sys.version.split()[0]}")
    stamp, wanted = folder / "ready", fingerprint(requirements)
    if is_ready(stamp, wanted):
        return 0
    try:
        import ensurepip  # noqa: F401 - Debian ships venv without it
        import fcntl
        import venv
    except ImportError as error:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return fail(
            f"Python's module {error.name} is missing. Install it, then run this again:\n"
            f"  Debian, Ubuntu:  sudo apt install python{version}-venv\n"
            f"  others:          a Python from python.org, conda or uv has it"
        )
    try:
        lock = (ROOT / f"{folder.name}.lock").open("w")
    except OSError as error:
        return fail(f"the folder {ROOT} cannot be written ({error.strerror}); clone into one of your own")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second first call waits for this one
        if is_ready(stamp, wanted):
            return 0
        say(f"setting up in {folder.name} (once, a minute or two) …")
        started = time.monotonic()
        if folder.exists():
            shutil.rmtree(folder)
        venv.create(folder, with_pip=True)
        versions = folder / "constraints.txt"
        versions.write_text(constraints(requirements), encoding="utf-8")
        command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
        if not install([*command, "-c", str(versions), *requirements]):
            return fail("the set-up failed; the lines above say why. Run the same command to try again")
        stamp.write_text(wanted)
        say(f"set up in {time.monotonic() - started:.0f} s")
    return 0


def fingerprint(requirements: list[str]) -> str:
    """What the environment depends on: it is made anew when any of this changes."""
    parts = [sys.version, str(ROOT), *requirements, *lines(requirements)]
    parts += [(ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def lines(requirements: list[str]) -> list[str]:
    """The lines of the file after `-r`."""
    if "-r" not in requirements:
        return []
    return (ROOT / requirements[requirements.index("-r") + 1]).read_text(encoding="utf-8").splitlines()


def constraints(requirements: list[str]) -> str:
    """constraints.txt without the packages that the file after `-r` holds to another version."""
    own = {line.partition("==")[0] for line in lines(requirements) if "==" in line}
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return "".join(line for line in text.splitlines(keepends=True) if re.split("==| ", line)[0] not in own)


def is_ready(stamp: Path, wanted: str) -> bool:
    return stamp.is_file() and stamp.read_text() == wanted


def install(command: list[str]) -> bool:
    """Run pip; show its current step on a terminal, and everything if it fails."""
    log = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            log.append(line)
            step = line.strip()
            if sys.stderr.isatty() and step.startswith(
                ("Collecting", "Downloading", "Installing", "Building", "Preparing")
            ):
                width = shutil.get_terminal_size().columns - 3
                print(f"\r\033[K  {step[:width]}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    if pip.returncode:
        print("".join(log[-30:]), file=sys.stderr)
    return pip.returncode == 0


def say(text: str) -> None:
    print(f"groundlink: {text}", file=sys.stderr, flush=True)


def fail(text: str) -> int:
    say(f"error: {text}")
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(fail(f"the set-up failed: {error}"))
