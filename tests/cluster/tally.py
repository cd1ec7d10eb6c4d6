"""The tasks of the cluster's tests: words are drawn, sent to the partition of each, and counted.

Runs in pods, from a ConfigMap, with the job's name, and is imported by the tests, which count the
same words. Beside its words each map sends ballast. Maps with an odd number stop half through what
they write, until their stage's gate is open; so do tasks that count: one before it reads, the other
one while it does.
"""

import json
import random
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import crossdock
from crossdock.tasks import Task

MAPS = 4
PARTITIONS = 8
WORDS = 50_000
"""Of each map."""
BALLAST = 6
"""Pieces of each map in each partition, so that a map sends several frames."""
PIECE_BYTES = 2**19
BALLAST_BYTES = MAPS * PARTITIONS * BALLAST * PIECE_BYTES
"""Of a job; noise, which nobody can compress."""


def drawn(of: int) -> list[str]:
    """Return the words of a map."""
    random_words = random.Random(of)
    return [f"word-{int(random_words.expovariate(0.01))}" for _ in range(WORDS)]


def expected() -> dict[str, int]:
    """Return what comes out, if each word and each byte of ballast is counted once."""
    ballast = {_ballast(n): BALLAST_BYTES // PARTITIONS for n in range(PARTITIONS)}
    return ballast | Counter(word for of in range(MAPS) for word in drawn(of))


def gate(job: str, stage: str) -> Path:
    """Return the file that opens a gate."""
    return Path(f"/data/gates/{job}-{stage}")


def _ballast(partition: int) -> str:
    return f"ballast of {partition}"


def _pass(job: str, task: Task) -> None:
    opened = gate(job, task.stage)
    opened.with_name(f"{opened.name}-waits-{task.index}").touch()
    while not opened.exists():
        time.sleep(0.1)


def main(job: str) -> None:
    with crossdock.task() as task:
        if task.stage == "draw":
            _draw(job, task)
        else:
            counts = _counted(job, task)
            task.output.path(".json").write_text(json.dumps(counts))


def _draw(job: str, task: Task) -> None:
    counts = Counter(drawn(task.index))
    print(f"map {task.index} drew its words", flush=True)
    parts: list[dict[str, int]] = [{} for _ in range(PARTITIONS)]
    for word, n in counts.items():
        parts[zlib.crc32(word.encode()) % PARTITIONS][word] = n
    noise = random.Random(task.index)
    with task.output.writer() as writer:
        for number in range(BALLAST):
            for partition in range(PARTITIONS):
                writer.write(partition, noise.randbytes(PIECE_BYTES), rows=0)
            if number == BALLAST // 2 and task.index % 2:
                _pass(job, task)
        for partition, words in enumerate(parts):
            writer.write(partition, json.dumps(words).encode(), rows=len(words))


def _counted(job: str, task: Task) -> Counter[str]:
    counts: Counter[str] = Counter()
    if task.index % 2:
        _pass(job, task)
    for number, block in enumerate(task.input().read()):
        if number == 1 and not task.index % 2:
            _pass(job, task)
        words = bytes(block.data[BALLAST * PIECE_BYTES :])
        counts[_ballast(block.partition)] += len(block.data) - len(words)
        counts.update(json.loads(words))
    return counts


if __name__ == "__main__":
    main(sys.argv[1])
