"""The tasks of the cluster's tests: words are drawn, sent to the partition of each, and counted.

Runs in pods, from a ConfigMap, and is imported by the tests, which count the same words. Maps with
an odd number wait until the file `go` is there.
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


def main() -> None:
    import crossdock  # noqa: PLC0415 -- the tests import this file, too

    with crossdock.task() as task:
        counts: Counter[str] = Counter()
        if task.stage == "draw":
            counts.update(drawn(task.index))
            while task.index % 2 and not Path("/data/go").exists():
                time.sleep(0.1)
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
    sys.exit(main())
