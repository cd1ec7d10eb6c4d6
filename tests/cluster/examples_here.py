"""The examples' own files, as they are applied, but for the image that the node has."""

from typing import Any, Final

import yaml
from objects import HERE, IMAGES, RESULTS, TAG, Object

EXAMPLES: Final = HERE.parents[1] / "examples"
IMAGE: Final = f"{IMAGES}/examples:{TAG}"
_OF_EXAMPLES: Final = "crossdock/examples:0.1.0"
_A_POD: Final = "on-kubernetes/tpch-q5-verify.yaml"


def objects(path: str) -> list[Object]:
    """Return the objects of an example's file, with the image that the node has."""
    text = (EXAMPLES / path).read_text().replace(f"image: {_OF_EXAMPLES}", f"image: {IMAGE}")
    return list(yaml.safe_load_all(text))


def staged(path: str, *, name: str, environment: dict[str, str], **spec: Any) -> Object:
    """Return an example's job for a cluster under another name, with other variables."""
    (found,) = objects(path)
    found["metadata"]["name"] = name
    found["spec"] |= {"dataRoot": f"{RESULTS}/{name}", **spec}
    # Of an anchor, the parser makes one object for all stages.
    template = found["spec"]["stages"][0]["podTemplate"]
    assert all(stage["podTemplate"] is template for stage in found["spec"]["stages"])
    (container,) = template["spec"]["containers"]
    container["env"] = _variables(environment)
    return found


def pod(name: str, command: list[str], environment: dict[str, str]) -> Object:
    """Return a pod as those of the examples, that runs this and is not run again."""
    (found,) = objects(_A_POD)
    found["metadata"]["name"] = name
    (container,) = found["spec"]["containers"]
    container |= {"command": command, "env": _variables(environment)}
    return found


def _variables(environment: dict[str, str]) -> list[Object]:
    return [{"name": name, "value": value} for name, value in environment.items()]
