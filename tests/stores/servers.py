"""S3 servers as processes of a test module, on free ports, gone when it ends."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import build_servers
from certificates import Authority
from crossdock.store.api import StoreOptions
from harness import eventually
from ports import unused_ports

ACCESS_KEY: Final = "crossdock"
SECRET_KEY: Final = "crossdock-secret"
BUCKET: Final = "shuffles"
REGION: Final = "us-east-1"
ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
_DEADLINE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class S3Server:
    """A server with an empty bucket."""

    kind: str
    endpoint: str
    bucket: str = BUCKET
    region: str = REGION
    data: Path | None = None
    """Its disk; None: it has none."""

    @property
    def lists_uploads(self) -> bool:
        """Whether it lists uploads by prefix; else only those of one key."""
        return self.kind != "minio"

    def left(self) -> set[str]:
        """Return what is in the bucket by a way that is true for this server.

        Listings of uploads are not, everywhere. So it is files on its disk: objects, and parts of
        uploads. Who has no disk lists all.
        """
        if self.data is None:
            return self._listed()
        places = [self.data / self.bucket, self.data / ".minio.sys" / "multipart"]
        found = {Path(at, n) for place in places for at, _, names in os.walk(place) for n in names}
        found |= set(self.data.glob("*/.sgwtmp/multipart/*/*"))  # directories, without parts yet
        return {str(path.relative_to(self.data)) for path in found}

    def _listed(self) -> set[str]:
        client = boto3.session.Session().client(
            "s3", endpoint_url=self.endpoint, region_name=self.region,
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip
        objects = client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        uploads = client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket)
        found = {each["Key"] for page in objects for each in page.get("Contents", ())}
        found |= {
            f"{each['Key']} {each['UploadId']}"
            for page in uploads
            for each in page.get("Uploads", ())
        }
        client.close()
        return found


def s3_options(server: S3Server, **more: object) -> StoreOptions:
    """Return the options that find a server."""
    found: dict[str, object] = {
        "endpoint_url": server.endpoint,
        "region": server.region,
        "path_style": True,
        "deadline_seconds": _DEADLINE_SECONDS,
        "stall_seconds": 20.0,
    }
    return StoreOptions(**{**found, **more})  # type: ignore[arg-type]


@contextmanager
def running(
    kind: str,
    directory: Path,
    tls: Authority | None = None,
    *,
    port: int = 0,
    keys: tuple[str, str] = (ACCESS_KEY, SECRET_KEY),
) -> Iterator[S3Server]:
    """Run a server until the context ends; versitygw can encrypt.

    One that was there before on the same port and directory has its bucket yet; versitygw may have
    other keys then.
    """
    port = port or unused_ports(1)[0]
    command, environment = _command(kind, port, directory)
    if kind == "versitygw":
        environment = {"ROOT_ACCESS_KEY": keys[0], "ROOT_SECRET_KEY": keys[1]}
    if tls is not None:
        command[1:1] = ["--cert", str(tls.cert), "--key", str(tls.key)]
    setpriv = shutil.which("setpriv")
    if setpriv:  # so that nothing stays if this process is killed
        command = [setpriv, "--pdeathsig", "KILL", *command]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT, **environment},
            cwd=directory,
        )
        try:
            data = directory / "data"
            server = S3Server(
                kind,
                f"{'https' if tls else 'http'}://127.0.0.1:{port}",
                data=data if data.exists() else None,
            )
            _make_bucket(server, process, directory / "log", tls, keys)
            yield server
        finally:
            process.kill()
            process.wait()


def _command(kind: str, port: int, directory: Path) -> tuple[list[str], dict[str, str]]:
    address = f"127.0.0.1:{port}"
    if kind == "moto":
        module = [sys.executable, "-m", "moto.server"]
        return [*module, "-H", "127.0.0.1", "-p", str(port)], {}
    program = build_servers.cached(kind)
    if not program.exists():
        pytest.fail(f"{program} is not built; `make {kind}` does it", pytrace=False)
    data = directory / "data"
    data.mkdir(exist_ok=True)
    if kind == "versitygw":
        start = [str(program), "--port", address, "--keep-alive", "--quiet", "posix"]
        return [*start, "--data-integrity-etag", str(data)], {}
    keys = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    start = [str(program), "server", "--quiet", "--address", address]
    return [*start, "--console-address", f"127.0.0.1:{unused_ports(1)[0]}", str(data)], keys


def _make_bucket(
    server: S3Server,
    process: "subprocess.Popen[bytes]",
    log: Path,
    tls: Authority | None,
    keys: tuple[str, str],
) -> None:
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        verify=str(tls.ca) if tls else None,
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        config=Config(
            retries={"total_max_attempts": 1},
            connect_timeout=2,
            read_timeout=30,
            s3={"addressing_style": "path"},
        ),
    )

    def made() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            client.create_bucket(Bucket=server.bucket)
        except (
            client.exceptions.BucketAlreadyOwnedByYou,
            client.exceptions.BucketAlreadyExists,
        ):
            return True
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        eventually(made, what=f"{server.kind} answers", pause=0.1)
    finally:
        client.close()
