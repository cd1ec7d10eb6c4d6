"""`make wheels`: every wheel that an image installs, at the versions and hashes of the lock file.

python tools/wheels.py DIRECTORY [--python 3.12] [--arch x86_64] [--group examples]

The image is built with no network, for a Python and a machine that need not be this one's: so uv
says which packages it needs there, and pip fetches them for there. `requirements.txt` beside the
wheels is what to install. Those of the project's libraries are in `libraries`, its own in `own`:
what changes seldom is a layer of its own.
"""

import argparse
import hashlib
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

EXTRAS: Final = ("worker", "s3", "operator")
"""Of what runs in pods: workers, the operator, and tasks of stages."""
_PROJECT: Final = Path(__file__).parents[1]
_LOCK: Final = _PROJECT / "requirements.lock"
_PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
_GLIBC_MINORS: Final = (28, 17)
"""Wheels for glibc 2.28 run on every Debian and Ubuntu that still gets updates."""


def locked(pins: set[str], lock: str) -> str:
    """Return the entries of a lock file that are of these packages, each `name==version`.

    Raises:
        ValueError: the lock lacks one.
    """
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)
    found = {entry.split()[0]: entry for entry in entries if "==" in entry}
    if missing := pins - found.keys():
        raise ValueError(f"not in the lock: {', '.join(sorted(missing))}; `make lock`")
    return "".join(found[pin] for pin in sorted(pins))


def needed(python: str, arch: str, of: list[str]) -> set[str]:
    """Return the packages that are needed, for a Python and a machine: `name==version`.

    Args:
        python: its version.
        arch: the machine's.
        of: arguments of `uv pip compile`: a file and its extras, or a group.
    """
    command = [
        "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate",
        "--constraints", str(_LOCK), "--python-version", python,
        "--python-platform", f"{arch}-manylinux_2_28", *of,
    ]  # fmt: skip
    # The environment's own programs, uv and pip, also where it was not activated.
    command[0] = str(Path(sys.executable).with_name("uv"))
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=_PROJECT)
    return {line.split()[0] for line in done.stdout.splitlines() if "==" in line}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--python", default="3.12", help="of the base image")
    parser.add_argument("--arch", default=platform.machine(), help="x86_64 or aarch64")
    parser.add_argument("--group", help="of pyproject.toml, in place of the project itself")
    given = parser.parse_args()
    of = ["--group", given.group] if given.group else ["pyproject.toml"]
    if not given.group:
        of += [f"--extra={extra}" for extra in EXTRAS]
    shutil.rmtree(given.directory, ignore_errors=True)
    given.directory.mkdir(parents=True)
    pins = needed(given.python, given.arch, of)
    if given.group:
        _fetch(pins, given.directory, given.python, given.arch)
    else:
        _fetch(pins, given.directory / "libraries", given.python, given.arch)
        _build(given.directory / "own")


def _fetch(pins: set[str], directory: Path, python: str, arch: str) -> None:
    directory.mkdir(exist_ok=True)
    requirements = directory / "requirements.txt"
    requirements.write_text(locked(pins, _LOCK.read_text()))
    tags = [f"--platform=manylinux_2_{minor}_{arch}" for minor in _GLIBC_MINORS]
    fetch = ["download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    fetch += [f"--python-version={python}", f"--platform=manylinux2014_{arch}", *tags]
    subprocess.run([*_PIP, *fetch, "-d", directory, "-r", requirements], check=True)


def _build(directory: Path) -> None:
    """Make the project's own wheel."""
    build = ["wheel", "--no-deps", "--no-build-isolation", "-w", directory, _PROJECT]
    subprocess.run([*_PIP, *build], check=True)
    (own,) = directory.glob("crossdock-*.whl")
    pin = f"crossdock=={own.name.split('-')[1]} --hash=sha256:{_digest(own)}\n"
    (directory / "requirements.txt").write_text(pin)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
