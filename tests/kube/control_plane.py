"""A real Kubernetes control plane on loopback: etcd, the API server, and the controllers.

No kubelet and no scheduler: pods are made and stay pending, unless a test says that they run.
Processes die with the one that started them, whatever way it ends.
"""

import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import build_servers
from certificates import Authority
from harness import eventually
from ports import unused_ports

ADMIN_TOKEN: Final = "the-tests-administer-this"
OPERATOR_TOKEN: Final = "the-operator-of-the-tests"
"""Of the user `operator`, who may do nothing unless a test gives it a role."""
_START_SECONDS: Final = 120.0
_KUBECONFIG: Final = """\
apiVersion: v1
kind: Config
clusters: [{{name: tests, cluster: {{server: "{url}", certificate-authority: "{ca}"}}}}]
users: [{{name: admin, user: {{token: "{token}"}}}}]
contexts: [{{name: tests, context: {{cluster: tests, user: admin}}}}]
current-context: tests
"""


_AUDIT: Final = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: [operator]}
- {level: None}
"""


class Program:
    """A server as a process, which dies with the one that started it."""

    def __init__(self, name: str, directory: Path, **options: object) -> None:
        self.name = name
        self._directory = directory
        self._command = [str(program(name))]
        self._command += [f"--{key.replace('_', '-')}={value}" for key, value in options.items()]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        command = self._command
        setpriv = shutil.which("setpriv")
        if setpriv:  # so that nothing stays if this process is killed
            command = [setpriv, "--pdeathsig", "KILL", *command]
        with (self._directory / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._directory
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def answers(self, url: str, context: ssl.SSLContext) -> bool:
        """Return whether it is ready; fail if it ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            logs = (f"{p.name}:\n{p.read_text()[-2000:]}" for p in self._directory.glob("*.log"))
            raise AssertionError(f"{self.name} ended:\n" + "\n".join(logs))
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        with (
            suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(request, timeout=5, context=context) as response,
        ):
            return response.status == 200
        return False


@dataclass(frozen=True)
class ControlPlane:
    """A running API server."""

    url: str
    ca: Path
    kubeconfig: Path
    """Opens it as an administrator."""
    etcd_url: str
    directory: Path
    etcd: Program
    api_server: Program

    @property
    def pids(self) -> frozenset[int]:
        """Of etcd and the API server."""
        return frozenset({self.etcd.pid, self.api_server.pid})

    @property
    def audit_log(self) -> Path:
        """What the user `operator` asked of the API server."""
        return self.directory / "audit.log"

    def start_api_server(self) -> None:
        """Run the API server, again if it was killed, and wait until it is ready."""
        self.api_server.start()
        context = ssl.create_default_context(cafile=self.ca)
        eventually(
            lambda: self.api_server.answers(f"{self.url}/readyz", context),
            seconds=_START_SECONDS,
            what="the API server's start",
        )


@contextmanager
def control_plane(directory: Path) -> Iterator[ControlPlane]:
    """Run etcd and an API server until the context ends."""
    etcd_port, peer_port, port = unused_ports(3)
    url, etcd_url = f"https://127.0.0.1:{port}", f"http://127.0.0.1:{etcd_port}"
    authority = Authority.make(directory, "kube")
    tokens, kubeconfig = directory / "tokens.csv", directory / "kubeconfig"
    tokens.write_text(f"{ADMIN_TOKEN},admin,1,system:masters\n{OPERATOR_TOKEN},operator,2\n")
    kubeconfig.write_text(_KUBECONFIG.format(url=url, ca=authority.ca, token=ADMIN_TOKEN))
    audit = directory / "audit-policy.yaml"
    audit.write_text(_AUDIT)
    etcd = Program(
        "etcd",
        directory,
        data_dir=directory / "etcd-data",
        listen_client_urls=etcd_url,
        advertise_client_urls=etcd_url,
        listen_peer_urls=f"http://127.0.0.1:{peer_port}",
        unsafe_no_fsync="true",
        log_level="warn",
    )
    api_server = Program(
        "kube-apiserver",
        directory,
        etcd_servers=etcd_url,
        bind_address="127.0.0.1",
        advertise_address="127.0.0.1",
        endpoint_reconciler_type="none",
        secure_port=port,
        tls_cert_file=authority.cert,
        tls_private_key_file=authority.key,
        token_auth_file=tokens,
        authorization_mode="RBAC",
        service_account_issuer="https://kubernetes.default.svc",
        service_account_key_file=_service_key(directory),
        service_account_signing_key_file=_service_key(directory),
        service_cluster_ip_range="10.96.0.0/16",
        allow_privileged="true",
        # Off by default, but on in OpenShift: who may own what so that its owner waits for it.
        enable_admission_plugins="OwnerReferencesPermissionEnforcement",
        audit_policy_file=audit,
        audit_log_path=directory / "audit.log",
    )
    plane = ControlPlane(url, authority.ca, kubeconfig, etcd_url, directory, etcd, api_server)
    try:
        etcd.start()
        plane.start_api_server()
        yield plane
    finally:
        api_server.kill()
        etcd.kill()


@contextmanager
def controllers(plane: ControlPlane) -> Iterator[int]:
    """Run the controller manager beside an API server; gives its process id."""
    (port,) = unused_ports(1)
    manager = Program(
        "kube-controller-manager",
        plane.directory,
        kubeconfig=plane.kubeconfig,
        bind_address="127.0.0.1",
        secure_port=port,
        cert_dir=plane.directory / "controller-certificates",
        service_account_private_key_file=_service_key(plane.directory),
        root_ca_file=plane.ca,
        leader_elect="false",
        use_service_account_credentials="false",
    )
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        manager.start()
        eventually(
            lambda: manager.answers(f"https://127.0.0.1:{port}/healthz", context),
            seconds=_START_SECONDS,
            what="the controller manager's start",
        )
        yield manager.pid
    finally:
        manager.kill()


def program(name: str) -> Path:
    """Return a server's program: of KUBEBUILDER_ASSETS if that is set, else the one we built."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets and (found := Path(assets) / name).exists():
        return found
    if not (built := build_servers.cached(name)).exists():
        pytest.fail(f"{built} is not built; `make kube-servers` does it", pytrace=False)
    return built


def _service_key(directory: Path) -> Path:
    """Return the key that signs the tokens of service accounts, made at the first call."""
    path = directory / "service-accounts.pem"
    if not path.exists():
        pem = serialization.Encoding.PEM
        plain = serialization.PrivateFormat.TraditionalOpenSSL  # the API server takes no PKCS 8
        key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    return path
