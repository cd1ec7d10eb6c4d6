"""A real S3 server for benchmarks, and what boto3 alone does with it."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig

sys.path[:0] = [str(Path(__file__).parents[2] / "tests" / part) for part in ("", "stores")]

from servers import ENVIRONMENT, S3Server, running

import build_servers
from crossdock.store.api import StoreOptions


@dataclass(frozen=True)
class Bucket:
    """An empty bucket on a server of its own."""

    server: S3Server

    @property
    def url(self) -> str:
        return f"s3://{self.server.bucket}/bench"

    @property
    def options(self) -> StoreOptions:
        return StoreOptions(
            endpoint_url=self.server.endpoint, region=self.server.region, path_style=True
        )

    @property
    def worker_options(self) -> list[str]:
        """Options of the worker's command line."""
        chosen = self.options
        settings = {
            "endpoint_url": chosen.endpoint_url, "region": chosen.region, "path_style": "true",
        }  # fmt: skip
        pairs = [x for k, v in settings.items() for x in ("--store-option", f"{k}={v}")]
        return ["--store", self.url, *pairs]

    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.server.endpoint, region_name=self.server.region)

    def upload(self, path: Path, *, part_bytes: int, parallel: int) -> None:
        """boto3's own upload of a file."""
        config = TransferConfig(
            multipart_threshold=part_bytes, multipart_chunksize=part_bytes,
            max_concurrency=parallel,
        )  # fmt: skip
        with path.open("rb") as file:
            self.client().upload_fileobj(file, self.server.bucket, "baseline", Config=config)

    def download(self, keys: list[str], *, part_bytes: int, parallel: int) -> int:
        """boto3's own download of objects, dropped as they come; returns the bytes."""
        config = TransferConfig(
            multipart_threshold=part_bytes, multipart_chunksize=part_bytes, max_concurrency=1
        )
        client = self.client()

        def one(key: str) -> int:
            sink = _Sink()
            client.download_fileobj(self.server.bucket, f"bench/{key}", sink, Config=config)
            return sink.nbytes

        with ThreadPoolExecutor(parallel) as pool:
            return sum(pool.map(one, keys))

    def empty(self) -> None:
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self.server.bucket)
        for page in pages:
            for found in page.get("Contents", ()):
                client.delete_object(Bucket=self.server.bucket, Key=found["Key"])


class _Sink:
    """A file that counts what is written and drops it."""

    def __init__(self) -> None:
        self.nbytes = 0

    def write(self, data: bytes) -> int:
        self.nbytes += len(data)
        return len(data)


@contextmanager
def bucket(directory: Path) -> Iterator[Bucket]:
    """Run versitygw, built if need be, with an empty bucket."""
    build_servers.build("versitygw")
    directory.mkdir(parents=True)
    os.environ.update(ENVIRONMENT)
    with running("versitygw", directory) as server:
        yield Bucket(server)
