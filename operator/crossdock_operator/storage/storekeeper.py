"""A process that does what is to be done in one cluster's store: `python -m …storekeeper`.

Its credentials are the first line of its standard input, as variables of an environment; tasks are
the lines that follow. Results go as lines to its standard output, in any order, and before them
what is waited for. It ends with its input, so also when the operator is killed: then whatever was
under way is begun anew by the next one, and nothing has to be kept.
"""

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Final, TextIO

from crossdock.errors import CrossdockError
from crossdock_operator.storage.tasks import Audit, EndJob, place_from, task_from
from crossdock_operator.storage.work import Bench, Note, audit_cluster, end_job, probe

AT_ONCE: Final = 128
"""Tasks under way, most of which wait."""


def serve(tasks: TextIO, results: TextIO) -> None:
    """Take credentials, and do what comes until the input ends; what is under way is given up."""
    # What is set now is found by the libraries in this process alone.
    os.environ.update(json.loads(tasks.readline() or "{}"))
    bench = Bench()
    lock = threading.Lock()

    def answer(line: dict[str, object]) -> None:
        with lock:
            results.write(json.dumps(line) + "\n")
            results.flush()

    threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="storekeeper")
    for text in tasks:
        asked = json.loads(text)
        threads.submit(_guarded, bench, asked, answer)
    bench.cancel.set()
    # Not waited for: a request to a store cannot be taken back, and whoever asked is gone.
    os._exit(0)


def _guarded(
    bench: Bench, asked: dict[str, Any], answer: Callable[[dict[str, object]], None]
) -> None:
    number = asked["id"]

    def note(problem: CrossdockError) -> None:
        answer({"id": number, "note": problem.to_json()})

    try:
        answer({"id": number, "result": _do(bench, asked, note)})
    except CrossdockError as error:
        answer({"id": number, "error": error.to_json()})
    except Exception as error:  # noqa: BLE001 -- a defect: said, and the others go on
        told = {"code": "error", "message": f"{type(error).__name__}: {error}", "hint": ""}
        answer({"id": number, "error": told})


def _do(bench: Bench, asked: dict[str, Any], note: Note) -> dict[str, object]:
    place, task = place_from(asked["place"]), task_from(asked["do"], asked["arguments"])
    if isinstance(task, EndJob):
        return asdict(end_job(bench, place, task, note))
    if isinstance(task, Audit):
        return asdict(audit_cluster(bench, place, task))
    return asdict(probe(bench, place, task))


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
