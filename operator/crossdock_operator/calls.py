"""Requests to the API server by what they do: names for metrics, and for what watches there are."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class Call:
    """What a request does, in the words of roles."""

    verb: str
    """get, list, watch, create, update, patch or delete."""
    resource: str
    """Such as shufflejobs/status; what is no resource is "discovery"."""
    namespace: str = ""
    """Of the object or objects; empty: all, or none."""


def call_of(method: str, url: str) -> Call:
    """Return what a request does.

    Args:
        method: of HTTP.
        url: its path at least.
    """
    found = urlsplit(url)
    parts = [unquote(part) for part in found.path.split("/") if part]
    root = 2 if parts[:1] == ["api"] else 3
    if parts[:1] not in (["api"], ["apis"]) or len(parts) <= root:
        return Call("get", "discovery")
    namespace, parts = "", parts[root:]
    if parts[0] == "namespaces" and len(parts) > 2:
        namespace, parts = parts[1], parts[2:]
    resource = "/".join([parts[0], *parts[2:3]])
    if method != "GET":
        return Call(_VERBS.get(method, method.lower()), resource, namespace)
    if len(parts) > 1:
        return Call("get", resource, namespace)
    watches = parse_qs(found.query).get("watch") == ["true"]
    return Call("watch" if watches else "list", resource, namespace)
