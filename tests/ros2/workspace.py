"""The colcon workspace that the tests of the ROS room run in, built of this checkout: `.venv-ros-test/ws`.

    .venv-ros-test/bin/python tests/ros2/workspace.py COMMAND [ARGUMENT...]     run a command in it

`bin/test-ros` makes the environment and calls this. The first call, and one after a change of the interfaces or of
how the package is built, runs colcon; the Python packages come from the checkout itself. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = Path(sys.prefix)
FOLDER = VENV / "ws"
INSTALLED = FOLDER / "install"
SITE = INSTALLED / Path(sysconfig.get_path("purelib")).relative_to(VENV)
VISION_MSGS = Path(__file__).parent / "vision_msgs"
PROFILE = Path(__file__).with_name("fastdds.xml")
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Where Fast DDS is told of a profile: up to Jazzy, it reads the second one alone."""
SOURCES = ("CMakeLists.txt", "package.xml", "pyproject.toml", "bin/metadata.py", "msg", "srv", "action")
"""What decides over a build, beside the files' names of what is only copied."""


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    problem = missing()
    if problem:
        print(f"groundlink: error: {problem}", file=sys.stderr)
        return 1
    stamp, wanted = FOLDER / "ready", fingerprint()
    if not stamp.is_file() or stamp.read_text() != wanted:
        print("groundlink: building the ROS workspace (once, a minute or two) …", file=sys.stderr, flush=True)
        started = time.monotonic()
        stamp.unlink(missing_ok=True)
        make_relocatable(VENV)
        if not build():
            return 1
        stamp.write_text(wanted)
        print(f"groundlink: built in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return os.execvpe(sys.argv[1], sys.argv[1:], environment())


def missing() -> str:
    """Return what the machine lacks for a build; empty if nothing."""
    programs = [name for name in ("cmake", "g++", "make") if shutil.which(name) is None]
    if programs:
        return f"{', '.join(programs)} missing; Debian, Ubuntu: sudo apt install cmake g++ make"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python.h is missing; Debian, Ubuntu: sudo apt install python3-dev"
    return ""


def fingerprint() -> str:
    files = [file for name in SOURCES for file in sorted((ROOT / name).rglob("*")) or [ROOT / name]]
    files += sorted(file for file in VISION_MSGS.rglob("*") if file.is_file())
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def make_relocatable(prefix: Path) -> None:
    """Put this environment's folders where the wheels' CMake files name those of the machine that built them."""
    import numpy

    python = Path(sysconfig.get_path("include"))
    for file in prefix.glob("share/*/cmake/*.cmake"):
        text = file.read_text(encoding="utf-8")
        changed = re.sub(r"/opt/python/[^/;\"]+/include/python3\.\d+", str(python), text)
        changed = re.sub(r"/opt/python/[^;\"]+/numpy/_?core/include", numpy.get_include(), changed)
        if changed != text:
            file.write_text(changed, encoding="utf-8")


def build(*options: str) -> bool:
    """Build the workspace; colcon's output is shown if it fails. Further options go to `colcon build`."""
    sources = FOLDER / "src"
    sources.mkdir(parents=True, exist_ok=True)
    for name, target in (("vision_msgs", VISION_MSGS), ("groundlink", ROOT)):
        link = sources / name
        if not link.is_symlink():
            link.symlink_to(target)
    command = [sys.executable, "-m", "colcon", "build", "--merge-install", "--executor", "sequential", *options]
    command += ["--cmake-args", "-DBUILD_TESTING=OFF", f"-DPython3_EXECUTABLE={VENV / 'bin' / 'python'}"]
    done = subprocess.run(command, cwd=FOLDER, env=build_environment(), check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
    return done.returncode == 0


def build_environment() -> dict[str, str]:
    """What colcon runs in: the wheels as the ROS below the workspace, and all of the processors."""
    given = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLCON_PREFIX_PATH")}
    return given | {
        "AMENT_PREFIX_PATH": str(VENV),
        "CMAKE_PREFIX_PATH": str(VENV),
        "LD_LIBRARY_PATH": libraries(VENV / "lib"),
        # colcon's own choice holds back where the machine is busy.
        "MAKEFLAGS": f"-j{os.cpu_count()}",
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1",
    }


def environment(packages: tuple[Path, ...] = (ROOT, SITE)) -> dict[str, str]:
    """What programs of the workspace run in; Python packages come from the checkout before the install space."""
    return build_environment() | {
        "AMENT_PREFIX_PATH": f"{INSTALLED}{os.pathsep}{VENV}",
        "LD_LIBRARY_PATH": libraries(INSTALLED / "lib", VENV / "lib"),
        "PYTHONPATH": os.pathsep.join(map(str, packages)),
        **dict.fromkeys(PROFILE_VARIABLES, str(PROFILE)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID") or str(free_domain()),
    }


def libraries(*folders: Path) -> str:
    """The library path: these folders, and what the wheels bring of other projects."""
    return os.pathsep.join(map(str, [*folders, *sorted(VENV.glob("lib/python3.*/site-packages/ros_*.libs"))]))


def free_domain() -> int:
    """A domain of 1…100 that nobody on this machine takes part in: its ports are 7400 + 250 × domain and on."""
    sockets = Path("/proc/net/udp").read_text().splitlines()[1:]
    taken = {(int(socket.split()[1].rpartition(":")[2], 16) - 7400) // 250 for socket in sockets}
    return random.choice([domain for domain in range(1, 101) if domain not in taken])


if __name__ == "__main__":
    sys.exit(main())
