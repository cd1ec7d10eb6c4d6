"""`crossdock worker`."""

from pathlib import Path
from typing import Annotated

import typer

from crossdock.errors import ConfigError
from crossdock.store.layout import DEFAULT_CLUSTER
from crossdock.store.settings import store_options
from crossdock.wire.names import check_name
from crossdock_worker.settings import Limits, Settings

_DEFAULT = Limits()


def worker(  # noqa: PLR0917 -- typer makes an option of each
    data_dir: Annotated[Path, typer.Option(help="Directory for frames; one worker's alone.")],
    listen: Annotated[str, typer.Option(help="HOST:PORT to listen on.")] = "127.0.0.1:7070",
    store: Annotated[
        str, typer.Option(help="URL of the object store: s3://BUCKET/PREFIX, file:///DIR, ….")
    ] = "",
    store_option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for the store; docs/stores.md. Repeatable.")
    ] = None,
    store_credentials: Annotated[
        Path | None, typer.Option(help="Directory of files like AWS_ACCESS_KEY_ID.")
    ] = None,
    cluster: Annotated[
        str, typer.Option(help="Uid of the cluster: clusters may share a store.")
    ] = DEFAULT_CLUSTER,
    peers: Annotated[
        str,
        typer.Option(help="URLs of the other workers, by commas, or dns+http://NAME:PORT."),
    ] = "",
    peers_interval_seconds: Annotated[
        float, typer.Option(help="How often peers are asked, and DNS names resolved.")
    ] = 2.0,
    advertise: Annotated[str, typer.Option(help="URL at which others reach this worker.")] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="Signing keys, one a line: the first signs.")
    ] = None,
    insecure_no_auth: Annotated[  # noqa: FBT002
        bool, typer.Option("--insecure-no-auth", help="Take every request without a token.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="Authority of the peers, PEM.")] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=256, help="Workers, on ports from the one of --listen up.")
    ] = 1,
    max_frame_bytes: Annotated[int, typer.Option()] = _DEFAULT.max_frame_bytes,
    max_inflight_bytes: Annotated[int, typer.Option()] = _DEFAULT.max_inflight_bytes,
    max_read_bytes: Annotated[int, typer.Option()] = _DEFAULT.max_read_bytes,
    read_batch_bytes: Annotated[int, typer.Option()] = _DEFAULT.read_batch_bytes,
    places_cache_bytes: Annotated[int, typer.Option()] = _DEFAULT.places_cache_bytes,
    max_partitions: Annotated[int, typer.Option()] = _DEFAULT.max_partitions,
    max_shuffles: Annotated[int, typer.Option()] = _DEFAULT.max_shuffles,
    max_connections: Annotated[int, typer.Option()] = _DEFAULT.max_connections,
    threads: Annotated[int, typer.Option()] = _DEFAULT.threads,
    stall_seconds: Annotated[float, typer.Option()] = _DEFAULT.stall_seconds,
    min_bytes_per_second: Annotated[int, typer.Option()] = _DEFAULT.min_bytes_per_second,
    disk_capacity_bytes: Annotated[int, typer.Option()] = _DEFAULT.disk_capacity_bytes,
    disk_high: Annotated[float, typer.Option()] = _DEFAULT.disk_high,
    disk_low: Annotated[float, typer.Option()] = _DEFAULT.disk_low,
    disk_persist: Annotated[float, typer.Option()] = _DEFAULT.disk_persist,
    job_quota_bytes: Annotated[int, typer.Option()] = _DEFAULT.job_quota_bytes,
    job_store_quota_bytes: Annotated[int, typer.Option()] = _DEFAULT.job_store_quota_bytes,
    segment_bytes: Annotated[int, typer.Option()] = _DEFAULT.segment_bytes,
    store_uploads: Annotated[int, typer.Option()] = _DEFAULT.store_uploads,
    store_prices: Annotated[
        str, typer.Option(help="Dollars for 1,000 requests: WRITE,READ,DELETE.")
    ] = "",
    store_compression: Annotated[str, typer.Option(help="Of segments: none or zstd.")] = "none",
    store_settle_seconds: Annotated[float, typer.Option()] = 30.0,
    persist_after_seconds: Annotated[float, typer.Option()] = 3600.0,
    eager_quiet_seconds: Annotated[float, typer.Option()] = 3.0,
    ack_interval_seconds: Annotated[float, typer.Option()] = 0.05,
    ack_log_bytes: Annotated[int, typer.Option()] = 16 * 2**20,
    drain_grace_seconds: Annotated[float, typer.Option()] = 60.0,
    shutdown_grace_seconds: Annotated[float, typer.Option()] = 20.0,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run a shuffle worker: take frames, keep them, serve them. Settings: docs/operations.md."""
    from crossdock_worker import server, supervisor  # noqa: PLC0415 -- keeps --help quick

    fd = _descriptor(listen)
    host, port = _host_port(listen) if fd is None else ("", 0)
    server.configure_logging(level=log_level)
    settings = Settings(
        data_dir=data_dir,
        host=host,
        port=port,
        listen_fd=fd,
        advertise=advertise.rstrip("/"),
        peers=tuple(p.strip() for p in peers.split(",") if p.strip()),
        peers_interval_seconds=peers_interval_seconds,
        store=store,
        store_options=store_options(store_option or ()),
        store_credentials=store_credentials,
        store_prices=store_prices,
        store_compression=store_compression,
        store_settle_seconds=store_settle_seconds,
        persist_after_seconds=persist_after_seconds,
        eager_quiet_seconds=eager_quiet_seconds,
        cluster=check_name("cluster", cluster),
        key_file=key_file,
        insecure=insecure_no_auth,
        tls_cert=tls_cert,
        tls_key=tls_key,
        tls_ca=tls_ca,
        ack_interval_seconds=ack_interval_seconds,
        ack_log_bytes=ack_log_bytes,
        drain_grace_seconds=drain_grace_seconds,
        shutdown_grace_seconds=shutdown_grace_seconds,
        limits=Limits(
            max_frame_bytes=max_frame_bytes,
            max_inflight_bytes=max_inflight_bytes,
            max_read_bytes=max_read_bytes,
            read_batch_bytes=read_batch_bytes,
            places_cache_bytes=places_cache_bytes,
            max_partitions=max_partitions,
            max_shuffles=max_shuffles,
            max_connections=max_connections,
            threads=threads,
            stall_seconds=stall_seconds,
            min_bytes_per_second=min_bytes_per_second,
            disk_capacity_bytes=disk_capacity_bytes,
            disk_high=disk_high,
            disk_low=disk_low,
            disk_persist=disk_persist,
            job_quota_bytes=job_quota_bytes,
            job_store_quota_bytes=job_store_quota_bytes,
            segment_bytes=segment_bytes,
            store_uploads=store_uploads,
        ),
    )
    if processes == 1:
        server.run(settings)
    else:
        supervisor.run(settings, processes, level=log_level)


def _descriptor(listen: str) -> int | None:
    """Return N of fd://N: whoever starts the worker may hold its socket over restarts."""
    scheme, _, number = listen.partition("fd://")
    return int(number) if not scheme and number.isdigit() else None


def _host_port(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"--listen {listen!r} is not HOST:PORT or fd://N")
    return host.strip("[]") or "0.0.0.0", int(port)
