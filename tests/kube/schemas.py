"""JSON schemas of every kind that an API server knows, or a CRD says, as kubeconform reads them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from administrator import Administrator, Object

LOCATION: Final = "{{ .Group }}_{{ .ResourceAPIVersion }}_{{ .ResourceKind }}.json"
"""Of a schema, in the directory."""


def write_schemas(directory: Path, admin: Administrator, *crds: Path) -> None:
    """Write a schema for each kind; fields that a kind does not have are errors."""
    for each in admin.ask("GET", "/openapi/v3")["paths"].values():
        found = admin.ask("GET", each["serverRelativeURL"])
        parts = found.get("components", {}).get("schemas", {})
        for name, schema in parts.items():
            for is_of in schema.get("x-kubernetes-group-version-kind", ()):
                if not (schema.get("properties", {}).keys() >= {"kind", "metadata"}):
                    continue  # of calls, not of objects
                reference = {"$ref": f"#/components/schemas/{name}"}
                kind = (is_of["group"], is_of["version"], is_of["kind"])
                _write(directory, kind, {**reference, "components": {"schemas": parts}})
    for path in crds:
        for kind, whole in _kinds(yaml.safe_load(path.read_text())["spec"]):
            _write(directory, kind, whole)


def _write(directory: Path, of: tuple[str, str, str], schema: Object) -> None:
    group, version, kind = of
    name = f"{group or version}_{version}_{kind.lower()}.json"  # as kubeconform sees a core kind
    (directory / name).write_text(json.dumps(_closed(schema)))


def _kinds(spec: Object) -> Iterator[tuple[tuple[str, str, str], Object]]:
    for version in spec["versions"]:
        schema = version["schema"]["openAPIV3Schema"]
        own: Object = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        own["metadata"] = {"type": "object"}
        whole = {**schema, "properties": {**schema["properties"], **own}}
        yield (spec["group"], version["name"], spec["names"]["kind"]), whole


def _closed(schema: Any) -> Any:
    """Return a schema that allows no other fields than it names."""
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _closed(each) for name, each in schema.items()}
    names_fields = isinstance(found.get("properties"), dict) and found.get("type") == "object"
    if names_fields and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found
