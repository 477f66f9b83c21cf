"""What pip would write about the distribution `groundlink`, for places where pip does not install it.

    python metadata.py write FOLDER PACKAGE...     the metadata, with the entry points into these packages
    python metadata.py requirements [EXTRA...]     what the distribution and these extras need, one a line

The ROS 2 package installs the Python packages with CMake; backends are found by entry points all the same. Everything
comes from pyproject.toml. Standard library only, but for a TOML reader on Python 3.10.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    project = read_toml(ROOT / "pyproject.toml")["project"]
    if len(sys.argv) > 3 and sys.argv[1] == "write":
        write(project, Path(sys.argv[2]), sys.argv[3:])
        return 0
    if len(sys.argv) > 1 and sys.argv[1] == "requirements":
        extras = [project["optional-dependencies"][extra] for extra in sys.argv[2:]]
        print("\n".join([*project["dependencies"], *(line for extra in extras for line in extra)]))
        return 0
    print(__doc__, file=sys.stderr)
    return 2


def write(project: dict[str, Any], folder: Path, packages: list[str]) -> None:
    """Write `NAME-VERSION.dist-info` into a folder."""
    name, version = project["name"], read_version()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", f"Summary: {project['description']}"]
    lines += [f"License: {project['license']}", f"Requires-Python: {project['requires-python']}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        for requirement in requirements:
            needed, _, marker = (part.strip() for part in requirement.partition(";"))
            condition = f"({marker}) and extra == '{extra}'" if marker else f"extra == '{extra}'"
            lines.append(f"Requires-Dist: {needed}; {condition}")
    information = folder / f"{name}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (information / "entry_points.txt").write_text(entry_points(project, packages), encoding="utf-8")


def entry_points(project: dict[str, Any], packages: list[str]) -> str:
    """The entry points that lead into the packages: one into a package that is not there would fail whoever uses it."""
    text = ""
    for group, points in project["entry-points"].items():
        kept = {name: target for name, target in points.items() if re.split(r"[.:]", target)[0] in packages}
        if kept:
            text += f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in kept.items()) + "\n"
    return text


def read_version() -> str:
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "groundlink" / "_version.py").read_text(), re.MULTILINE)
    if found is None:
        sys.exit("groundlink/_version.py names no version")
    return found[1]


def read_toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib as reader
    except ImportError:  # Python 3.10
        try:
            import tomli as reader
        except ImportError:
            try:
                from pip._vendor import tomli as reader
            except ImportError:
                sys.exit("Python 3.10 needs tomli to read pyproject.toml: sudo apt install python3-tomli")
    return reader.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
