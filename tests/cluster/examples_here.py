"""The examples' own files, as objects of the tests: their image, their store, restricted pods."""

import copy
from typing import Any, Final

import yaml
from objects import CONTAINER, DATA, HERE, IMAGES, POD, RESULTS, TAG, VOLUME, Object

EXAMPLES: Final = HERE.parents[1] / "examples"
IMAGE: Final = f"{IMAGES}/examples:{TAG}"
_OF_EXAMPLES: Final = "crossdock/examples"
_SCRATCH: Final = {"name": "scratch", "emptyDir": {}}


def objects(path: str) -> list[Object]:
    """Return the objects of an example's file, with the image that the node has."""
    text = (EXAMPLES / path).read_text().replace(f"image: {_OF_EXAMPLES}", f"image: {IMAGE}")
    return list(yaml.safe_load_all(text))


def staged(path: str, *, name: str, environment: dict[str, str], **spec: Any) -> Object:
    """Return a job file's job as a cluster runs it: with a volume, restricted pods, its image."""
    (found,) = objects(path)
    found["metadata"]["name"] = name
    found["spec"] |= {"dataRoot": f"{RESULTS}/{name}", **spec}
    for stage in found["spec"]["stages"]:
        stage["podTemplate"] = copy.deepcopy(stage["podTemplate"])
        pod = stage["podTemplate"]["spec"]
        pod |= {"securityContext": POD, "volumes": [VOLUME, _SCRATCH]}
        pod |= {"automountServiceAccountToken": False}
        pod["containers"] = [task(each["command"], environment) for each in pod["containers"]]
    return found


def task(command: list[str], environment: dict[str, str]) -> Object:
    """Return a container of the examples' image."""
    return {
        "name": "task",
        "image": IMAGE,
        "command": command,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": CONTAINER,
        "volumeMounts": [DATA, {"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108
    }


def pod(name: str, command: list[str], environment: dict[str, str]) -> Object:
    """Return a pod that runs a program of the examples, and is not run again."""
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": POD,
        "volumes": [VOLUME, _SCRATCH],
        "containers": [task(command, environment)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
