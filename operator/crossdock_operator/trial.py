"""The job that `helm test` runs: two stages whose tasks check every byte that they read."""

import secrets
from collections.abc import Sequence
from typing import Final

from crossdock_operator.kinds import Object

_MAPS: Final = 2
_PARTITIONS: Final = 4
_BYTES: Final = 65_536
"""Of each map for each partition."""
_TASK: Final = f"""\
import random
import crossdock

def block(of, to):
    return random.Random(of * 1000 + to).randbytes({_BYTES})

with crossdock.task() as task:
    if task.stage == "write":
        with task.output.writer() as writer:
            for to in range(task.output.partitions):
                writer.write(to, block(task.index, to), rows=1)
    else:
        read = [(b.map_id, b.partition, bytes(b.data)) for b in task.input().read()]
        wanted = [(of, to, block(of, to)) for of in range({_MAPS}) for to in range({_PARTITIONS})]
        assert sorted(read) == wanted, "it did not read exactly what was written"
        with task.output.writer() as writer:
            writer.write(0, b"all right", rows=1)
"""


def trial_job(namespace: str, cluster: str, image: str, pull_secrets: Sequence[str] = ()) -> Object:
    """Return a ShuffleJob that succeeds only where shuffles work."""
    container = {
        "name": "task",
        "image": image,
        "command": ["python3", "-c", _TASK],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pulled = [{"name": name} for name in pull_secrets]
    template = {
        "spec": {
            **({"imagePullSecrets": pulled} if pulled else {}),
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        }
    }
    stages: list[Object] = [
        {
            "name": "write",
            "parallelism": _MAPS,
            "output": {"shuffle": {"partitions": _PARTITIONS}},
        },
        {
            "name": "check",
            "parallelism": 1,  # it must see all
            "inputs": [{"stage": "write"}],
            "output": {"shuffle": {"partitions": 1}},
        },
    ]
    return {
        "metadata": {"namespace": namespace, "name": f"crossdock-test-{secrets.token_hex(3)}"},
        "spec": {
            "clusterRef": {"name": cluster},
            "stages": [{**stage, "podTemplate": template} for stage in stages],
        },
    }
