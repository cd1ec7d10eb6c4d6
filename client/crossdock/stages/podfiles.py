"""`crossdock stage-files`: what only pods of a stage can do, since only they see its volumes.

On a cluster the runner has none of the files that stages read and write. So it runs a pod of the
stage's own template with this command: it lists what the stage reads, or publishes what the tasks
that won have written. What it found it tells by a shuffle of the job, which has no bound as exit
codes and last words have. It may run twice, also at once.

The order comes like a stage file, in `CROSSDOCK_STAGE_FILE`:

    {"do": "list", "job": uid, "stage": name, "root": path, "inputs": {name: pattern, …}}
    {"do": "publish", "job": uid, "stage": name, "output": path, "winners": [[index, attempt], …]}
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from crossdock.cluster import connect
from crossdock.errors import ConfigError
from crossdock.job import Job
from crossdock.jobfile.model import FilesInput, Stage
from crossdock.stagefile import ENV_ATTEMPT, ENV_POD_UID, ENV_STAGE_FILE, attempt_of_pod, unpack
from crossdock.stages.inputs import InputFile, find_files
from crossdock.stages.outputs import Output

LIST: Final = "list"
PUBLISH: Final = "publish"


@dataclass(frozen=True, slots=True)
class Order:
    """What a pod is to do."""

    do: str
    job: str
    stage: str
    root: str = ""
    inputs: tuple[tuple[str, str], ...] = ()
    """Name and pattern of each input of files."""
    output: str = ""
    winners: tuple[tuple[int, int], ...] = ()
    """Index and attempt of each task."""

    @property
    def shuffle(self) -> str:
        """The shuffle that tells what came of it; no stage has a dot in its name."""
        return f"{self.do}.{self.stage}"

    def encode(self) -> bytes:
        return json.dumps({n: getattr(self, n) for n in self.__dataclass_fields__}).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Order":
        """Read an order, or raise `ConfigError`."""
        try:
            value = json.loads(data)
            return cls(
                do=str(value["do"]),
                job=str(value["job"]),
                stage=str(value["stage"]),
                root=str(value["root"]),
                inputs=tuple((str(n), str(p)) for n, p in value["inputs"]),
                output=str(value["output"]),
                winners=tuple((int(i), int(a)) for i, a in value["winners"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{ENV_STAGE_FILE} is no order for files: {error!r}") from error


def stage_files(do: str) -> None:
    """Do for a stage of a job on a cluster what needs its volumes; the operator starts this."""
    directory = Path(os.environ.get(ENV_STAGE_FILE, ""))
    try:
        parts = {p.name: p.read_bytes() for p in directory.iterdir() if p.is_file()}
    except OSError as error:
        raise ConfigError(
            f"cannot read {ENV_STAGE_FILE}: {error}", hint="this is for pods of a staged job"
        ) from error
    order = Order.decode(unpack(parts))
    if order.do != do:
        raise ConfigError(f"the order is to {order.do}, not to {do}")
    found = _list(order) if do == LIST else _publish(order)
    attempt = attempt_of_pod(int(os.environ[ENV_ATTEMPT]), os.environ[ENV_POD_UID])
    with connect() as cluster, cluster.job(order.job) as job:
        shuffle = job.shuffle(order.shuffle, partitions=1)
        with shuffle.writer(map_id=0, attempt=attempt) as writer:
            writer.write(0, json.dumps(found).encode(), rows=1)


def _list(order: Order) -> dict[str, list[tuple[str, int]]]:
    return {
        name: [(file.path, file.size) for file in find_files(Path(order.root), pattern)]
        for name, pattern in order.inputs
    }


def _publish(order: Order) -> int:
    output = Output(Path(order.output), order.job)
    return output.publish(order.stage, dict(order.winners), overwrite=False)


def told(job: Job, order: Order) -> object:
    """Return what a pod has told that carried out an order.

    Raises:
        Unavailable: a worker that may have it does not answer.
        ConfigError: it has told nothing.
    """
    shuffle = job.shuffle(order.shuffle, partitions=1)
    attempts = shuffle.complete_attempts()
    if not attempts:
        raise ConfigError(f"the pod that was to {order.do} files of {order.stage} said nothing")
    data = b"".join(bytes(block.data) for block in shuffle.view(attempts).read(range(1)))
    found: object = json.loads(data)
    return found


def listing(found: object) -> Mapping[str, Sequence[InputFile]]:
    """Return the files that a pod has listed, by the name of the input."""
    assert isinstance(found, dict)
    return {
        str(name): [InputFile(str(path), int(size)) for path, size in files]
        for name, files in found.items()
    }


def list_order(stage: Stage, *, job: str, root: str) -> Order:
    """Return the order to list what a stage reads."""
    inputs = tuple((i.name, i.files) for i in stage.inputs if isinstance(i, FilesInput))
    return Order(LIST, job, stage.name, root=root, inputs=inputs)
