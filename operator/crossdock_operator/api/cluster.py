"""`ShuffleCluster`: workers, and the store that they persist to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from crossdock.records import Persistence
from crossdock_operator.api.common import Seconds, SecretReference
from crossdock_operator.api.fields import ObjectName, Quantity, Range, Rule, Text, fixed, unchanged
from crossdock_operator.api.lifecycle import JobDefaults

MIB: Final = 2**20
GIB: Final = 2**30


class Compression(StrEnum):
    """What workers compress segments with."""

    NONE = "none"
    ZSTD = "zstd"


class LifecycleCheck(StrEnum):
    """What is done about the bucket's lifecycle rule that aborts unfinished uploads."""

    CHECK = "Check"
    """Looked for; its absence is a condition."""
    IGNORE = "Ignore"


class TlsMode(StrEnum):
    """How workers are spoken to."""

    OWN = "Own"
    """By an authority that the operator makes for the cluster."""
    SECRET = "Secret"  # noqa: S105 -- where the certificate is
    DISABLED = "Disabled"


class DeletionPolicy(StrEnum):
    """What becomes of the store's objects when the cluster is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class JobsOnDeletion(StrEnum):
    """What becomes of live jobs when their cluster is deleted."""

    WAIT = "Wait"
    END = "End"


class NamespacesFrom(StrEnum):
    """Whose jobs a cluster takes."""

    SAME = "Same"
    ALL = "All"
    SELECTOR = "Selector"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeClaim:
    """A volume of its own for each worker pod. It survives the pod."""

    size: Annotated[int, "Size of each volume.", Quantity(GIB)]
    storage_class_name: Annotated[ObjectName | None, "Class; default: the cluster's default."] = (
        None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptyDir:
    """A directory of the node, lost with the pod. Workers then drain before they go."""

    size_limit: Annotated[
        int | None, "Bytes after which the node evicts the pod; workers stop before.", Quantity(GIB)
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where frames lie. Without a choice: an emptyDir."""

    RULES: ClassVar = (
        Rule(
            "!(has(self.emptyDir) && has(self.volumeClaim))",
            "choose one of emptyDir and volumeClaim",
        ),
    )
    empty_dir: Annotated[EmptyDir | None, "A directory of the node, lost with the pod."] = None
    volume_claim: Annotated[
        VolumeClaim | None, "A volume of its own for each pod. It survives the pod."
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Autoscaling:
    """How many workers there are by use. A target of 0 is not looked at."""

    RULES: ClassVar = (
        Rule(
            "self.minReplicas <= self.maxReplicas",
            "must not be more than maxReplicas",
            ".minReplicas",
        ),
        Rule(
            "self.targetDiskPercent > 0 || self.targetInflightPercent > 0 || "
            "has(self.targetIngestPerSecond)",
            "needs a target: targetDiskPercent, targetInflightPercent or targetIngestPerSecond",
        ),
    )
    min_replicas: Annotated[int, "Fewest worker pods.", Range(1, 1000)] = 1
    max_replicas: Annotated[int, "Most worker pods.", Range(1, 1000)]
    target_disk_percent: Annotated[int, "Use of the disks to aim at.", Range(0, 95)] = 60
    target_inflight_percent: Annotated[
        int, "Use of limits.maxInflight to aim at.", Range(0, 95)
    ] = 60
    target_ingest_per_second: Annotated[
        int | None, "Bytes taken by a pod in a second to aim at.", Quantity(MIB)
    ] = None
    scale_down_after_seconds: Annotated[
        Seconds, "For how long use must be low before a worker is drained."
    ] = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """The worker pods."""

    RULES: ClassVar = (
        Rule(
            # Each process has a place of its own on the disk, and a port by which it is found.
            "self.processes == oldSelf.processes || "
            "(self.processes > oldSelf.processes && !has(self.storage.volumeClaim))",
            "cannot be lowered, nor be changed where workers have volumes of their own: make a new "
            "ShuffleCluster and let its jobs move there",
            ".processes",
        ),
    )
    replicas: Annotated[
        int, "Number of worker pods. With autoscaling the operator moves it.", Range(0, 1000)
    ] = 2
    autoscaling: Annotated[Autoscaling | None, "Number of worker pods by use."] = None
    processes: Annotated[
        int, "Worker processes of a pod; each uses about a core.", Range(1, 64)
    ] = 1
    image: Annotated[str, "Image of the workers. Default: the operator's own.", Text(1024)] = ""
    resources: Annotated[
        Mapping[str, object],
        "Kubernetes ResourceRequirements of the worker container. Without any it requests 250m CPU "
        "and 256Mi memory for each process, and has no limits.",
    ] = field(default_factory=dict)
    storage: Annotated[
        Storage,
        "Where frames lie: exactly one kind of volume; default emptyDir.",
        fixed("storage cannot be changed: make a new ShuffleCluster and let its jobs move there"),
    ] = field(default_factory=Storage)
    pod_template: Annotated[
        Mapping[str, object],
        "PodTemplateSpec that is merged over the operator's own: containers by name (the worker's "
        "is `worker`), volumes, nodeSelector, tolerations, affinity and so on. What the API server "
        "refuses of it is told in the condition Progressing.",
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The object store that frames are persisted to."""

    RULES: ClassVar = (
        Rule(
            "!(has(self.credentialsSecretRef) && has(self.serviceAccountName))",
            "choose one of credentialsSecretRef and serviceAccountName",
        ),
        Rule(
            "self.url.startsWith('s3://') || !has(self.endpoint)",
            "is for s3:// stores only",
            ".endpoint",
        ),
        unchanged("endpoint", "cannot be changed: make a new ShuffleCluster"),
    )
    url: Annotated[
        str,
        "URL of the store with the prefix that is ours, such as s3://bucket/shuffles.",
        Text(1024, r"^[a-z0-9]+://.+$"),
        fixed("the store cannot be changed: make a new ShuffleCluster, data do not move"),
    ]
    endpoint: Annotated[
        str, "Of an S3 compatible server; default: Amazon's.", Text(1024, r"^https?://.+$")
    ] = ""
    region: Annotated[str, "Region; default: the environment's.", Text(64)] = ""
    path_style: Annotated[bool, "Put the bucket in the path, not in the host name."] = False
    credentials_secret_ref: Annotated[
        SecretReference | None,
        "Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the like. Workers have its keys "
        "as files, and take others without a restart; tasks never get them.",
    ] = None
    service_account_name: Annotated[
        ObjectName | None,
        "ServiceAccount that workers run under, for credentials by workload identity. Default: "
        "one without any rights, made by the operator.",
    ] = None
    lifecycle_check: Annotated[
        LifecycleCheck, "Whether the bucket must have a rule that aborts unfinished uploads."
    ] = LifecycleCheck.CHECK
    prices: Annotated[
        str,
        "What 1,000 requests cost in dollars, as WRITE,READ,DELETE; default: by the URL.",
        Text(64, r"^[0-9.]+,[0-9.]+,[0-9.]+$"),
    ] = ""
    settle_seconds: Annotated[
        int, "A request to the store takes effect within this time, or never.", Range(0, 3600)
    ] = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Persisting:
    """When and how workers persist."""

    policy: Annotated[Persistence, "Of jobs that say nothing of it."] = Persistence.ON_PRESSURE
    after_seconds: Annotated[Seconds, "Older frames are persisted; 0: age does not count."] = 3600
    disk_percent: Annotated[int, "Use of the disk that begins pressure.", Range(1, 90)] = 75
    segment_size: Annotated[int, "No object in the store is larger.", Quantity(2 * MIB)] = 128 * MIB
    uploads: Annotated[int, "Segments that a worker sends at once.", Range(1, 64)] = 4
    compression: Annotated[Compression, "Of segments, where that saves a tenth."] = Compression.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one worker process may use."""

    max_frame: Annotated[int, "Largest frame taken.", Quantity(MIB)] = 64 * MIB
    max_inflight: Annotated[int, "Bytes of frames being received.", Quantity(MIB)] = 256 * MIB
    max_read: Annotated[int, "Bytes of answers being sent.", Quantity(MIB)] = 128 * MIB
    max_connections: Annotated[int, "Open connections.", Range(1, 100_000)] = 1024
    max_partitions: Annotated[int, "Partitions of a shuffle.", Range(1, 1_000_000)] = 1_000_000
    job_quota: Annotated[
        int | None, "Bytes of each job on a worker's disk. Default: no quota.", Quantity()
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Encryption between workers, tasks and the operator."""

    RULES: ClassVar = (
        Rule(
            "(self.mode == 'Secret') == has(self.secretRef)",
            "mode Secret and secretRef go together",
        ),
    )
    mode: Annotated[
        TlsMode,
        "Own: certificates of an authority that the operator makes for the cluster, renewed in "
        "time. Secret: a certificate of yours. Disabled: plain HTTP.",
    ] = TlsMode.OWN
    secret_ref: Annotated[
        SecretReference | None,
        "Secret of type kubernetes.io/tls, with ca.crt beside it, good for the workers' names.",
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Who may call workers. Tokens are always asked for."""

    tls: Annotated[Tls, "Encryption between workers, tasks and the operator."] = field(
        default_factory=Tls
    )
    key_rotation_days: Annotated[
        int, "Age at which the signing key is replaced; 0: never.", Range(0, 3650)
    ] = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How often store, uploads, disks and live jobs are compared."""

    interval_seconds: Annotated[int, "Pause between two sweeps.", Range(60, 604_800)] = 3600
    grace_seconds: Annotated[
        int, "What has no job goes when it is older than this.", Range(60, 2_592_000)
    ] = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedNamespaces:
    """Whose jobs the cluster takes."""

    RULES: ClassVar = (
        Rule(
            "(self.mode == 'Selector') == has(self.selector)", "Selector and selector go together"
        ),
    )
    mode: Annotated[
        NamespacesFrom, "Same: the cluster's own. All. Selector: those with the labels."
    ] = NamespacesFrom.SAME
    selector: Annotated[
        Mapping[str, str] | None, "Labels that a namespace must have, all of them."
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceMonitor:
    """A ServiceMonitor of the Prometheus operator for the workers, and the token that it needs."""

    interval_seconds: Annotated[int, "Between two scrapes.", Range(1, 3600)] = 30
    labels: Annotated[
        Mapping[str, str], "More labels, by which a Prometheus chooses its ServiceMonitors."
    ] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitoring:
    """Who reads the workers' metrics."""

    service_monitor: Annotated[
        ServiceMonitor | None,
        "Makes a ServiceMonitor for the workers, and the token that it needs, which opens metrics "
        "alone. It takes the CRDs of the Prometheus operator.",
    ] = None
    scraper_namespaces: Annotated[
        Mapping[str, str] | None,
        "Labels of further namespaces from which workers may be reached, all of them, such as "
        "kubernetes.io/metadata.name: monitoring.",
    ] = None


def _bytes(field: str) -> str:
    """Return CEL for a size, which may be written as a number."""
    return f"quantity(string(self.{field}))"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShuffleClusterSpec:
    """Workers, and the store that they persist to."""

    RULES: ClassVar = (
        Rule(
            f"{_bytes('limits.maxInflight')}.compareTo({_bytes('limits.maxFrame')}) >= 0",
            "must not be less than maxFrame: no such frame could ever be taken",
            ".limits.maxInflight",
        ),
        Rule(
            f"{_bytes('persistence.segmentSize')}.compareTo("
            f"{_bytes('limits.maxFrame')}.add(quantity('1Mi'))) >= 0",
            "must be at least 1Mi more than limits.maxFrame: no segment could hold its pieces",
            ".persistence.segmentSize",
        ),
    )
    workers: Annotated[Workers, "The worker pods."] = field(default_factory=Workers)
    store: Annotated[Store, "The object store that frames are persisted to."]
    persistence: Annotated[Persisting, "When and how workers persist."] = field(
        default_factory=Persisting
    )
    limits: Annotated[Limits, "What one worker process may use."] = field(default_factory=Limits)
    security: Annotated[Security, "Who may call workers. Tokens are always asked for."] = field(
        default_factory=Security
    )
    jobs: Annotated[JobDefaults, "What holds for jobs that say nothing, and what they may ask."] = (
        field(default_factory=JobDefaults)
    )
    allowed_namespaces: Annotated[AllowedNamespaces, "Whose jobs the cluster takes."] = field(
        default_factory=AllowedNamespaces
    )
    monitoring: Annotated[Monitoring, "Who reads the workers' metrics."] = field(
        default_factory=Monitoring
    )
    audit: Annotated[Audit, "How often store, disks and live jobs are compared."] = field(
        default_factory=Audit
    )
    deletion_policy: Annotated[
        DeletionPolicy,
        "What becomes of the store's objects when the cluster is deleted.",
    ] = DeletionPolicy.DELETE
    jobs_on_deletion: Annotated[
        JobsOnDeletion,
        "What becomes of live jobs when the cluster is deleted. Wait: it stays until they are "
        "deleted. End: they are deleted with it.",
    ] = JobsOnDeletion.WAIT
    paused: Annotated[bool, "While true the operator changes nothing of the cluster."] = False
