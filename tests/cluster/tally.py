"""The tasks of the cluster's tests: words are drawn, sent to the partition of each, and counted.

Runs in pods, from a ConfigMap, with the job's name, and is imported by the tests, which count the
same words. Maps with an odd number, and tasks that count, wait until their stage's gate is open.
"""

import json
import random
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

MAPS = 4
WORDS = 50_000
"""Of each map."""


def drawn(of: int) -> list[str]:
    """Return the words of a map."""
    random_words = random.Random(of)
    return [f"word-{int(random_words.expovariate(0.01))}" for _ in range(WORDS)]


def expected() -> dict[str, int]:
    """Return what comes out, if each word is counted once."""
    return dict(Counter(word for of in range(MAPS) for word in drawn(of)))


def gate(job: str, stage: str) -> Path:
    """Return the file that opens a gate."""
    return Path(f"/data/gates/{job}-{stage}")


def main(job: str) -> None:
    import crossdock  # noqa: PLC0415 -- the tests import this file, too

    with crossdock.task() as task:
        counts: Counter[str] = Counter()
        if task.stage == "draw":
            counts.update(drawn(task.index))
            print(f"map {task.index} drew its words", flush=True)
        while (task.index % 2 or task.stage != "draw") and not gate(job, task.stage).exists():
            time.sleep(0.1)
        if task.stage == "draw":
            parts: list[dict[str, int]] = [{} for _ in range(task.output.partitions)]
            for word, n in counts.items():
                parts[zlib.crc32(word.encode()) % len(parts)][word] = n
            with task.output.writer() as writer:
                for partition, words in enumerate(parts):
                    writer.write(partition, json.dumps(words).encode(), rows=len(words))
            return
        for block in task.input().read():
            counts.update(json.loads(bytes(block.data)))
        task.output.path(".json").write_text(json.dumps(counts))


if __name__ == "__main__":
    main(sys.argv[1])
