"""The benchmark of a real cluster, with what its tests share; `benchmarks/cluster.py` runs it."""

import json
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]

from examples_here import objects
from kube_client import NAMESPACE, Object, apply, get, helm, kubectl, name_of, shell
from objects import (
    CHART,
    RESTRICTED,
    job,
    named,
    pod_template,
    results,
    s3_server,
    static_volumes,
    tasks,
    values,
)
from tally import expected
from watching import Watch, watched
from words import STORE, in_the_bucket, until_ready, wait, workers

from harness import eventually
from support.measure import MIB
from support.saved import saved

Figures = dict[str, float]
WRITERS = 4
WRITTEN_MIB = 256
"""Of each writer."""
ROUNDS = 5
P95 = 0.95


def measure(parts: Iterable[str]) -> Figures:
    """Return the figures of these parts, on one installed chart."""
    found: Figures = {}
    with _place(), _installed():
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            chosen = Path(directory) / "values.yaml"
            chosen.write_text(json.dumps(values()))
            helm("install", "crossdock", str(CHART), f"--values={chosen}", "--timeout=240s")
        apply(job("first"))
        wait("shufflejob/first", "Succeeded")
        seconds = time.monotonic() - began
        _check_the_first()
        if "install" in parts:
            found["install_to_first_result_s"] = round(seconds, 1)
        kubectl("delete", "shufflejob", "first", "--timeout=120s", seconds=130)
        until_ready(2)
        for part, measured in (("saved", saved), ("drain", _drain), ("release", _release)):
            if part in parts:
                found |= measured()
                print(found, file=sys.stderr, flush=True)
    return found


@contextmanager
def _installed() -> Iterator[None]:
    """Take away what is installed within, while the operator can still let go of its jobs."""
    try:
        yield
    finally:
        kubectl("delete", "shufflejobs", "--all", "--timeout=240s", seconds=250)
        helm("uninstall", "crossdock", "--timeout=240s")


@contextmanager
def _place() -> Iterator[None]:
    volumes = static_volumes()
    metadata = {"name": NAMESPACE, "labels": RESTRICTED}
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    try:
        apply(*volumes, *s3_server(), *results(), tasks())
        kubectl("rollout", "status", "statefulset/s3", "--timeout=120s")
        shell(STORE, "rm -rf /data/*; mkdir /data/gates; touch /data/gates/first-draw")
        shell(STORE, "touch /data/gates/first-count")
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--timeout=240s", seconds=250)
        for each in volumes:
            kubectl("delete", each["kind"], name_of(each), "--wait=false")


def _check_the_first() -> None:
    counts: dict[str, int] = {}
    for part in shell(STORE, "cat /data/first/*.json").replace("}{", "}\n{").splitlines():
        counts |= json.loads(part)
    if counts != expected():
        raise SystemExit("the first job's result is wrong")


# -- drains ----------------------------------------------------------------------------------


def _drain() -> Figures:
    apply(_full())
    eventually(_all_is_written, seconds=300, what="all to be written", pause=0.5)
    worker = name_of(workers()[0])
    gone = get("pod", worker)["metadata"]["uid"]
    before = _stored_bytes()
    began = time.monotonic()
    kubectl("delete", "pod", worker, "--timeout=600s", seconds=610)  # it drains, then ends
    seconds = time.monotonic() - began
    gib = (_stored_bytes() - before) / (1024 * MIB)
    print(f"drained {gib:.2f} GiB in {seconds:.1f} s", file=sys.stderr)
    until_ready(2, besides=[gone])
    kubectl("delete", "shufflejob", "full", "--timeout=240s", seconds=250)
    assert in_the_bucket() == "", "a deleted job has nothing left"
    return {"drain_s_per_gib": round(seconds / gib, 1)}


def _full() -> Object:
    """Return a job whose first stage fills the workers, and whose second one stays."""
    programs = {
        "write": "import os, crossdock\n"
        "with crossdock.task().output.writer() as writer:\n"
        f"    for n in range({WRITTEN_MIB}): writer.write(n % 64, os.urandom(1 << 20), rows=1)\n",
        "stay": "import time; time.sleep(3600)",
    }
    stages: list[dict[str, Any]] = [
        {
            "name": name,
            "parallelism": WRITERS if name == "write" else 1,
            "inputs": [{"stage": "write"}] if name == "stay" else [],
            "podTemplate": pod_template({"command": ["python", "-c", program]}, volumes=()),
            "output": {"shuffle": {"partitions": 64}},
        }
        for name, program in programs.items()
    ]
    return named("crossdock.dev/v1alpha1", "ShuffleJob", "full", spec={"stages": stages})


def _all_is_written() -> bool:
    stages = get("shufflejob", "full").get("status", {}).get("stages", ())
    return any(stage["name"] == "write" and stage["phase"] == "Done" for stage in stages)


def _stored_bytes() -> int:
    return int(shell(STORE, "du -sb /s3/shuffles | cut -f1"))


# -- release ---------------------------------------------------------------------------------


def _release() -> Figures:
    """Return how long after the last map's commit the last executor is told to end."""
    delays = []
    for _ in range(ROUNDS):
        made = objects("attached/engine.yaml")
        with watched("pods", "app=engine-executor") as watch:
            apply(*made)
            kubectl("wait", "job/driver", "--for=condition=Complete", "--timeout=240s", seconds=250)
            eventually(lambda watch=watch: not watch.alive(), seconds=60, what="executors to go")
            said = kubectl("logs", "job/driver")
        names = [f"{each['kind']}/{name_of(each)}" for each in made]
        kubectl("delete", *names, "--timeout=120s", seconds=130)
        committed = [float(line.split()[-1]) for line in said.splitlines() if " done at " in line]
        told = _told_to_end(watch)
        for at, following in zip(committed, [*committed[1:], float("inf")], strict=True):
            delays.append(max(when for when in told if at < when < following) - at)
    delays.sort()
    print(f"release delays: {[round(each, 1) for each in delays]}", file=sys.stderr)
    return {"release_delay_s": round(delays[min(int(P95 * len(delays)), len(delays) - 1)], 1)}


def _told_to_end(watch: Watch) -> list[float]:
    """Return when each executor was first seen to be about to go, as seconds since the epoch."""
    offset = time.time() - time.monotonic()
    first: dict[str, float] = {}
    for at, (_, pod_) in zip(watch.times, watch.events, strict=True):
        if "deletionTimestamp" in pod_["metadata"]:
            first.setdefault(name_of(pod_), at + offset)
    return list(first.values())
