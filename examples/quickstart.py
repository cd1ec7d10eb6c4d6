"""Word counts of two texts, shuffled by word. Needs a worker on port 7070: see README.md."""

import uuid
from zlib import crc32

import crossdock

TEXTS = ["the quick brown fox jumps over the lazy dog", "the dog barks and the fox runs"]

with crossdock.connect(["http://127.0.0.1:7070"]) as cluster:
    job = cluster.job(uuid.uuid4().hex, owner="runner")
    shuffle = job.shuffle("words", partitions=4, maps=len(TEXTS))
    for map_id, text in enumerate(TEXTS):
        with shuffle.writer(map_id=map_id) as writer:
            for word in text.split():
                writer.write(crc32(word.encode()) % 4, word.encode() + b"\n", rows=1)
    for partition in range(4):
        words = b"".join(bytes(b.data) for b in shuffle.view().read(partition)).decode().split()
        print(partition, {word: words.count(word) for word in sorted(set(words))})
    job.end()
