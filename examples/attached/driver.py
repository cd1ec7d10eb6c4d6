"""The driver of a small engine: two stages of tasks, a queue for its executors, and its demand.

    python driver.py

The first stage deals numbers out by their remainder, the second adds up those of each remainder.
Between them the driver does something without executors, for `PAUSE_SECONDS`, and says so: the
operator scales them to none.
"""

import http.server
import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http import HTTPStatus

import crossdock

MAPS = 4
REDUCES = 6
NUMBERS = 100_000
"""Of each map."""
LEASE_SECONDS = 30.0
"""An executor that is not done by then is lost, and its task is given out again."""
GATHER_SECONDS = 60.0
"""For so long tasks wait until there is an executor for each."""
REPORT_SECONDS = 1.0


@dataclass
class Queue:
    """Tasks of the stage that runs. A task that is given out twice is two attempts of it."""

    tasks: dict[int, dict[str, object]] = field(default_factory=dict)
    given: dict[int, tuple[str, float]] = field(default_factory=dict)
    results: dict[int, dict[str, int]] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    executors: set[str] = field(default_factory=set)
    """Those that asked for a task of this stage."""
    begun: float = 0.0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def begin(self, tasks: list[dict[str, object]]) -> None:
        """Begin a stage."""
        with self.changed:
            self.tasks = dict(enumerate(tasks))
            self.given, self.results, self.attempts = {}, {}, Counter()
            self.executors, self.begun = set(), time.monotonic()
            self.changed.notify_all()

    def take(self, executor: str) -> dict[str, object] | None:
        """Return a task that nobody works on, once there are enough executors."""
        with self.changed:
            now = time.monotonic()
            self.executors.add(executor)
            if len(self.executors) < len(self.tasks) and now - self.begun < GATHER_SECONDS:
                return None
            for index, task in self.tasks.items():
                _, since = self.given.get(index, ("", now - LEASE_SECONDS))
                if index not in self.results and now - since >= LEASE_SECONDS:
                    self.given[index] = (executor, now)
                    attempt = self.attempts[index]
                    self.attempts[index] += 1
                    return {**task, "index": index, "attempt": attempt}
        return None

    def done(self, index: int, attempt: int, result: int) -> None:
        """Take the first result of a task; its attempt is the winner."""
        with self.changed:
            self.results.setdefault(index, {"attempt": attempt, "result": result})
            self.changed.notify_all()

    def demand(self) -> tuple[int, dict[str, int]]:
        """Return how many tasks are not done, and how many each executor works on."""
        with self.changed:
            busy = Counter(who for i, (who, _) in self.given.items() if i not in self.results)
            return len(self.tasks) - len(self.results), dict(busy)

    def wait(self, seconds: float) -> bool:
        """Wait for the stage's end; tell whether it has come."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.results) == len(self.tasks), seconds)


class Handler(http.server.BaseHTTPRequestHandler):
    """POST /take and /done, both with JSON."""

    queue: Queue

    def do_POST(self) -> None:
        """Answer an executor."""
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/take":
            answer = json.dumps(self.queue.take(said["executor"]))
        else:
            self.queue.done(said["index"], said["attempt"], said["result"])
            answer = "null"
        self.send_response(HTTPStatus.OK)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def run(job: crossdock.Job, queue: Queue, tasks: list[dict[str, object]]) -> dict[int, int]:
    """Run one stage; return the winning attempt of each task."""
    queue.begin(tasks)
    while not queue.wait(REPORT_SECONDS):
        report(job, queue)
    print(f"stage {tasks[0]['stage']} done at {time.time():.3f}", flush=True)
    report(job, queue)
    return {index: done["attempt"] for index, done in queue.results.items()}


def report(job: crossdock.Job, queue: Queue) -> None:
    """Say what is needed. Who is not named is idle, as soon as there are no tasks."""
    tasks, busy = queue.demand()
    job.report_demand(tasks, reporter="driver", busy=busy, valid_seconds=30)


def main() -> None:
    """Run both stages, and check the sum."""
    queue = Queue()
    Handler.queue = queue
    server = http.server.ThreadingHTTPServer(("", 8000), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with crossdock.connect() as cluster:
        job = cluster.job(os.environ["CROSSDOCK_JOB"])
        winners = run(job, queue, [{"stage": "deal"}] * MAPS)
        until = time.monotonic() + float(os.environ.get("PAUSE_SECONDS", "10"))
        while time.monotonic() < until:
            report(job, queue)
            time.sleep(REPORT_SECONDS)
        run(job, queue, [{"stage": "add", "winners": list(winners.items())}] * REDUCES)
    total = sum(done["result"] for done in queue.results.values())
    expected = sum(range(MAPS * NUMBERS))
    print(f"the sum is {total}, as it should be: {total == expected}", flush=True)
    if total != expected:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
