"""The tasks of job.yaml: split text into words, count each word, sort the counts."""

import json
import re
import sysconfig
import zlib
from collections import Counter
from pathlib import Path

import crossdock
from crossdock.tasks import FilesOutput, ShuffleOutput, Task

WORD = re.compile(r"[A-Za-z_]+")


def split(task: Task, output: ShuffleOutput) -> None:
    """Send each word, with how often this task saw it, to the partition of its hash."""
    library = Path(sysconfig.get_paths()["stdlib"])
    sources = sorted(p for p in library.rglob("*.py") if "site-packages" not in p.parts)
    counts: Counter[str] = Counter()
    for source in sources[task.index :: task.count]:
        counts.update(WORD.findall(source.read_text("utf-8", "replace")))
    parts: list[dict[str, int]] = [{} for _ in range(output.partitions)]
    for word, n in counts.items():
        parts[zlib.crc32(word.encode()) % output.partitions][word] = n
    with output.writer() as writer:
        for partition, words in enumerate(parts):
            writer.write(partition, json.dumps(words).encode(), rows=len(words))


def count(task: Task, output: ShuffleOutput) -> None:
    """Add up what all tasks saw of this task's words."""
    counts: Counter[str] = Counter()
    for block in task.input().read():
        counts.update(json.loads(bytes(block.data)))
    with output.writer() as writer:
        writer.write(0, json.dumps(counts).encode(), rows=len(counts))


def top(task: Task, output: FilesOutput) -> None:
    """Write all words, the most frequent first."""
    counts: Counter[str] = Counter()
    for block in task.input().read():
        counts.update(json.loads(bytes(block.data)))
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    output.path(".tsv").write_text("".join(f"{word}\t{n}\n" for word, n in ranked))


def main() -> None:
    with crossdock.task() as task:
        match task.stage, task.output:
            case "split", ShuffleOutput() as output:
                split(task, output)
            case "count", ShuffleOutput() as output:
                count(task, output)
            case "top", FilesOutput() as output:
                top(task, output)


if __name__ == "__main__":
    main()
