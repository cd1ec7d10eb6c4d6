"""The benchmark of the operator; `benchmarks/operator.py` runs it."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from support import kube
from support.kube import ROOT, Site, looked_at, p95, rss_mib, wait, writes
from support.vanishing import namespace_gone

CHANGES = 30
VANISHING_JOBS = 100
SECONDS = 600
PARTS = ("crds", "vanishing", "idle", "many")
CLUSTER = {
    "apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleCluster",
    "metadata": {"name": "main"}, "spec": {"store": {"url": "s3://bucket/shuffles"}},
}  # fmt: skip

Figures = dict[str, float]


def job(n: int) -> dict[str, object]:
    """Return a job of two stages that does nothing: it is suspended."""
    container = {
        "name": "task", "image": "example.com/task:1", "command": ["python", "-m", "task"],
        "env": [{"name": f"SETTING_{k}", "value": f"value {k}"} for k in range(5)],
        "resources": {"requests": {"cpu": "1", "memory": "2Gi"}},
    }  # fmt: skip
    template = {"spec": {"containers": [container]}}
    first = {"name": "map", "parallelism": 8, "podTemplate": template,
             "output": {"shuffle": {"partitions": 64}}}  # fmt: skip
    second = {"name": "reduce", "podTemplate": template, "inputs": [{"stage": "map"}],
              "output": {"files": "result"}}  # fmt: skip
    return {
        "apiVersion": "crossdock.dev/v1alpha1", "kind": "ShuffleJob",
        "metadata": {"name": f"job-{n:05}"},
        "spec": {"clusterRef": {"name": "main"}, "suspend": True, "stages": [first, second]},
    }  # fmt: skip


class Bench:
    """What the figures share."""

    def __init__(self, site: Site, jobs: int, idle_seconds: float) -> None:
        self.site = site
        self.jobs = jobs
        self.idle_seconds = idle_seconds

    def idle(self) -> Figures:
        """Two operators, then one cluster and no job; then the one that leads is killed."""
        first, second = self.site.operator("first").start(), self.site.operator("second").start()
        wait(lambda: first.fetch("/readyz")[0] == second.fetch("/readyz")[0] == 200, SECONDS)
        time.sleep(3)  # until all is quiet
        rss = max(rss_mib(first), rss_mib(second))
        self.site.create("shuffleclusters", [CLUSTER])
        wait(self.site.replicas, SECONDS)
        time.sleep(3)
        with self.site.audited() as calls:
            time.sleep(self.idle_seconds)
        asked = [call for call in calls if call.resource != "leases"]
        leader, standby = (first, second) if first.events("leads") else (second, first)
        leader.kill9()
        failover = self.site.scale(5)
        standby.terminate()
        return {
            "idle_rss_mib": rss,
            "idle_api_calls_per_minute": len(asked) * 60 / self.idle_seconds,
            "failover_s": failover,
        }

    def many(self) -> Figures:
        """Many jobs that one operator sees for the first time, then another one again."""
        if self.site.admin.get(self.site.path("shuffleclusters", "main")) is None:
            self.site.create("shuffleclusters", [CLUSTER])
        self.site.create("shufflejobs", [job(n) for n in range(self.jobs)])
        operator = self.site.operator("many")
        with self.site.audited() as calls:
            operator.start()
            self._wait_for_all(operator)
            took = self._since_it_leads(operator)
        first = writes(calls)
        transitions = sum(bool(each.get("status")) for each in self.site.jobs())
        assert transitions == self.jobs, f"{transitions} jobs have a status"
        reactions = [self.site.scale(3 + n % 2) for n in range(CHANGES)]
        time.sleep(3)  # until all is quiet
        operator.terminate()  # so that the next one need not wait for the end of its Lease
        with self.site.audited() as calls:
            began = time.monotonic()
            operator.start()
            self._wait_for_all(operator)
            sync = time.monotonic() - began
            rss = rss_mib(operator)
            time.sleep(5)
        again = writes(calls)
        operator.kill9()
        print(f"first: {dict(first)}\nagain: {dict(again)}", flush=True)
        return {
            "sync_s": sync,
            "rss_mib": rss,
            "jobs_per_s": self.jobs / took,
            "writes_per_transition": _of_jobs(first) / transitions,
            "writes_when_unchanged": _of_jobs(again),
            "p95_reaction_s": p95(reactions),
        }

    def vanishing(self) -> Figures:
        """A namespace with a cluster, jobs and a GiB of data is deleted."""
        return {"namespace_gone_s": namespace_gone(self.site, VANISHING_JOBS)}

    def _wait_for_all(self, operator: kube.OperatorProcess) -> None:
        wait(
            lambda: (
                operator.fetch("/readyz")[0] == 200
                and looked_at(operator, "ShuffleJob") >= self.jobs
                and not operator.metric("crossdock_operator_queue_items", state="due")
                and not operator.metric("crossdock_operator_queue_items", state="taken")
            ),
            SECONDS,
        )

    @staticmethod
    def _since_it_leads(operator: kube.OperatorProcess) -> float:
        (leads,) = operator.events("leads")
        return time.time() - datetime.fromisoformat(leads["timestamp"]).timestamp()


def _of_jobs(found: dict[str, int]) -> float:
    return float(sum(found[r] for r in found if r.partition("/")[0] == "shufflejobs"))


def crds() -> Figures:
    return {"crd_kib": max(p.stat().st_size for p in (ROOT / "crds").glob("*.yaml")) / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="*", default=[], choices=PARTS)
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--idle-seconds", type=float, default=150.0, help="a watch lasts as long")
    arguments = parser.parse_args()
    figures: Figures = {}
    with (
        tempfile.TemporaryDirectory(prefix="crossdock-bench-") as directory,
        kube.site(Path(directory)) as site,
    ):
        bench = Bench(site, arguments.jobs, arguments.idle_seconds)
        parts: dict[str, Callable[[], Figures]] = {
            "crds": crds, "vanishing": bench.vanishing, "idle": bench.idle, "many": bench.many,
        }  # fmt: skip
        for name, part in parts.items():
            if not arguments.only or name in arguments.only:
                for key, value in part().items():
                    figures[key] = round(value, 2)
                    print(f"{key:26} {value:8.2f}", flush=True)
    if arguments.json:
        print(json.dumps(figures))
