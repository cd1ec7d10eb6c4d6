"""The CustomResourceDefinitions, as objects and as the files of `crds/`.

python -m crossdock_operator.api.crds crds
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

from crossdock_operator.api.cluster import ShuffleClusterSpec
from crossdock_operator.api.cluster_status import ShuffleClusterStatus
from crossdock_operator.api.common import GROUP, VERSION
from crossdock_operator.api.fields import NAME_CHARACTERS
from crossdock_operator.api.job import ShuffleJobSpec, ShuffleJobStatus
from crossdock_operator.api.schema import Schema, schema_of, without_defaults

_AGE: Final = ("Age", "date", ".metadata.creationTimestamp")
_COLUMNS: Final = {
    "ShuffleCluster": (
        ("Workers", "string", ".status.summary"),
        ("Phase", "string", ".status.phase"),
        ("Store", "string", ".spec.store.url"),
        ("Clean", "string", ".status.conditions[?(@.type=='StorageClean')].status"),
        _AGE,
    ),
    "ShuffleJob": (
        ("Cluster", "string", ".spec.clusterRef.name"),
        ("Phase", "string", ".status.phase"),
        ("Stages", "string", ".status.progress"),
        ("Executors", "integer", ".status.executors.current"),
        ("Clean", "string", ".status.conditions[?(@.type=='StorageClean')].status"),
        _AGE,
    ),
}
CLUSTER_NAME_CHARACTERS: Final = 40
"""Names of its StatefulSet, of that's pods with their revision, and of Services are made of it."""
_HEADER: Final = "# Made by `make crds` from operator/crossdock_operator/api. Do not edit.\n"


def crds() -> dict[str, Schema]:
    """Return the CRDs by the names of their files."""
    cluster = _crd(
        "ShuffleCluster",
        "shc",
        "Shuffle workers and the object store that they persist to.",
        schema_of(ShuffleClusterSpec),
        without_defaults(schema_of(ShuffleClusterStatus)),
        name_characters=CLUSTER_NAME_CHARACTERS,
    )
    cluster["spec"]["versions"][0]["subresources"]["scale"] = {
        "specReplicasPath": ".spec.workers.replicas",
        "statusReplicasPath": ".status.workers.replicas",
        "labelSelectorPath": ".status.selector",
    }
    job = _crd(
        "ShuffleJob",
        "shj",
        "A job's shuffles: its stages, run one after the other, or those of an attached engine.",
        schema_of(ShuffleJobSpec),
        without_defaults(schema_of(ShuffleJobStatus)),
        name_characters=NAME_CHARACTERS,
    )
    return {"shuffleclusters.yaml": cluster, "shufflejobs.yaml": job}


def texts() -> dict[str, str]:
    """Return the files' contents by their names."""
    return {
        name: _HEADER + yaml.safe_dump(crd, sort_keys=False, width=110, allow_unicode=True)
        for name, crd in crds().items()
    }


def _crd(
    kind: str, short: str, description: str, spec: Schema, status: Schema, *, name_characters: int
) -> Schema:
    plural = f"{kind.lower()}s"
    schema: dict[str, Any] = {
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this format."},
            "kind": {"type": "string", "description": "What the object is."},
            "metadata": {"type": "object", "properties": {"name": _name(name_characters)}},
            "spec": {"description": "What is wanted.", **spec},
            "status": {"description": "What the operator saw last.", **status},
        },
    }
    columns = [
        {"name": name, "type": type_, "jsonPath": path} for name, type_, path in _COLUMNS[kind]
    ]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }
    names = {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["crossdock"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def _name(characters: int) -> Schema:
    return {
        "type": "string",
        "maxLength": characters,
        "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    }


def main() -> None:
    """Write the files into the directory that the command line names."""
    directory = Path(sys.argv[1])
    directory.mkdir(exist_ok=True)
    for name, text in texts().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main()
