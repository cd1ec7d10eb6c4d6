"""What executors cost that are kept for all of a job, and those that are released: pod-seconds."""

import json
import statistics
import sys
from pathlib import Path

from examples_here import pod, staged
from kube_client import Object, apply, kubectl, name_of
from objects import RESULTS, named
from watching import Watch, watched
from words import wait

from harness import eventually

ENGINE = Path(__file__).with_name("kept_engine.py")
QUERY = "on-kubernetes/tpch-q5.yaml"
SCALE = {"SCALE_FACTOR": "4"}
ROUNDS = 3


def saved() -> dict[str, float]:
    """Return what release saves; both ways run alternately, and each result is checked."""
    ratios = []
    for number in range(ROUNDS):
        released, most = _released(f"released-{number}")
        kept = most * _kept(f"kept-{number}", most)
        ratios.append(released / kept)
        print(f"pod-seconds: {released:.1f} released, {kept:.1f} with {most} kept", file=sys.stderr)
    return {"executor_seconds_saved_pct": round(100 * (1 - statistics.median(ratios)), 1)}


def _released(name: str) -> tuple[float, int]:
    """Run the query with a pod for each task; return its pod-seconds, and the most pods at once."""
    with watched("pods", f"crossdock.dev/job={name}") as watch:
        apply(staged(QUERY, name=name, environment=SCALE))
        wait(f"shufflejob/{name}", "Succeeded", seconds=600)
        eventually(lambda: not watch.alive(), what="its pods to be gone")
    found = _pod_seconds(watch)
    _check(name)
    return found


def _kept(name: str, count: int) -> float:
    """Run the query on so many executors that stay; return the seconds it took them."""
    apply(named("crossdock.dev/v1alpha1", "ShuffleJob", name, spec={}))
    wait(f"shufflejob/{name}", "Ready")
    query = staged(QUERY, name=name, environment=SCALE)
    del query["spec"]["dataRoot"]
    files = {"engine.py": ENGINE.read_text(), "job.json": json.dumps(query)}
    apply(
        named("v1", "ConfigMap", "engine", data=files),
        named("v1", "Service", "driver", spec=_service()),
        *(_pod(f"kept-{n}", name, ["executor", "http://driver:8000"]) for n in range(count)),
    )
    kubectl("wait", "pod", "--selector=app=kept", "--for=condition=Ready", "--timeout=120s")
    apply(_pod("driver", name, ["driver", "/engine/job.json", f"{RESULTS}/{name}"]))
    until = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("wait", "pod/driver", until, "--timeout=600s", seconds=610)
    seconds = float(kubectl("logs", "driver").splitlines()[-1].removeprefix("seconds "))
    kubectl("delete", "pods", "--selector=app in (kept,driver)", "--grace-period=0", "--force")
    kubectl("delete", "configmap/engine", "service/driver")
    _check(name)
    return seconds


def _service() -> Object:
    return {"selector": {"app": "driver"}, "ports": [{"port": 8000}]}


def _pod(name: str, job: str, arguments: list[str]) -> Object:
    """Return a pod of the engine, with the job's token."""
    secret = f"{job}-connection"
    access = {"name": "access", "secret": {"secretName": secret, "defaultMode": 0o440}}
    engine = {"name": "engine", "configMap": {"name": "engine"}}
    made = pod(name, ["python", "/engine/engine.py", *arguments], {})
    made["metadata"]["labels"] = {"app": name.partition("-")[0]}
    made["spec"]["volumes"] = [*made["spec"]["volumes"], access, engine]
    (container,) = made["spec"]["containers"]
    container["env"] = [
        {"name": "CROSSDOCK_TOKEN_FILE", "value": "/var/run/crossdock/token"},
        {"name": "CROSSDOCK_CA_FILE", "value": "/var/run/crossdock/ca.crt"},
        *(
            {
                "name": f"CROSSDOCK_{key.upper()}",
                "valueFrom": {"secretKeyRef": {"name": secret, "key": key}},
            }
            for key in ("endpoints", "job")
        ),
    ]
    container["volumeMounts"] = [
        *container["volumeMounts"],
        {"name": "access", "mountPath": "/var/run/crossdock", "readOnly": True},
        {"name": "engine", "mountPath": "/engine"},
    ]
    return made


def _pod_seconds(watch: Watch) -> tuple[float, int]:
    """Return how long pods were there, from their creation to their end, and the most at once."""
    since: dict[str, float] = {}
    total, most = 0.0, 0
    over: set[str] = set()
    for at, (kind, seen) in zip(watch.times, watch.events, strict=True):
        name = name_of(seen)
        if name not in over:
            since.setdefault(name, at)
        if kind == "DELETED" or seen["status"].get("phase") in {"Succeeded", "Failed"}:
            over.add(name)
            total += at - since.pop(name, at)
        most = max(most, len(since))
    return total, most


def _check(name: str) -> None:
    """Check a result against DuckDB's, and delete the job."""
    apply(pod("verify", ["python", "verify.py", "q5", f"{RESULTS}/{name}/result/q5"], SCALE))
    until = "--for=jsonpath={.status.phase}=Succeeded"
    kubectl("wait", "pod/verify", until, "--timeout=240s", seconds=250)
    kubectl("delete", "pod", "verify", "--grace-period=0", "--force")
    kubectl("delete", "shufflejob", name, "--timeout=240s", seconds=250)
