"""An executor of the small engine of `driver.py`: takes tasks from its queue until it is ended.

python executor.py http://driver:8000
"""

import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request

from driver import MAPS, NUMBERS, REDUCES

import crossdock

IDLE_SECONDS = 0.5


def ask(url: str, said: dict[str, object]) -> dict[str, object] | None:
    """Say something to the driver; return its answer."""
    request = urllib.request.Request(url, json.dumps(said).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, object] | None = json.load(response)
    return answer


def work(job: crossdock.Job, task: dict[str, object]) -> int:
    """Do one task; return its sum."""
    index, attempt = task["index"], task["attempt"]
    assert isinstance(index, int)
    assert isinstance(attempt, int)
    numbers = job.shuffle("numbers", partitions=REDUCES, maps=MAPS)
    if task["stage"] == "deal":
        mine = range(index * NUMBERS, (index + 1) * NUMBERS)
        with numbers.writer(map_id=index, attempt=attempt) as writer:
            for remainder in range(REDUCES):
                dealt = [n for n in mine if n % REDUCES == remainder]
                writer.write(remainder, json.dumps(dealt).encode(), rows=len(dealt))
        return len(mine)
    winners = task["winners"]
    assert isinstance(winners, list)
    view = numbers.view([(map_id, won) for map_id, won in winners])
    return sum(sum(json.loads(bytes(block.data))) for block in view.read(index))


def main(driver: str) -> None:
    """Work, and say what came out; a driver that does not answer is asked again."""
    name = socket.gethostname()
    with crossdock.connect() as cluster:
        job = cluster.job(os.environ["CROSSDOCK_JOB"])
        while True:
            try:
                task = ask(f"{driver}/take", {"executor": name})
                if task is not None:
                    said = {"index": task["index"], "attempt": task["attempt"]}
                    ask(f"{driver}/done", {**said, "result": work(job, task)})
                    continue
            except (urllib.error.URLError, TimeoutError, crossdock.CrossdockError) as error:
                print(error, flush=True)
            time.sleep(IDLE_SECONDS)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main(sys.argv[1])
