"""What the operator asked of the API server, from the server's own audit log."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """A request of the user `operator` that was answered, or a watch that began."""

    verb: str
    group: str
    resource: str
    """With its subresource, such as shufflejobs/status; "" is none, such as discovery."""
    namespace: str
    name: str
    status: int
    allowed: bool
    """Whether the user's roles allow it."""
    time: str
    """When it arrived, as RFC 3339 has it."""
    agent: str

    @property
    def rights(self) -> set[tuple[str, str, str]]:
        """What a role must grant: group, resource, verb."""
        # An apply that makes an object needs both, and is logged as a patch.
        made = {"create"} if self.verb == "patch" and self.status == 201 else set()
        return {(self.group, self.resource, verb) for verb in {self.verb, *made}}

    @property
    def writes(self) -> bool:
        return self.verb not in {"get", "list", "watch"}


def asked(log: Path, *, skip_bytes: int = 0) -> Iterator[Asked]:
    """Yield what the log has from there on."""
    with log.open("rb") as file:
        file.seek(skip_bytes)
        for line in file:
            if not line.endswith(b"\n"):
                return
            event = json.loads(line)
            watches = event["verb"] == "watch"
            if event["stage"] != ("ResponseStarted" if watches else "ResponseComplete"):
                continue
            if "annotations" not in event:  # it broke off before anybody asked for rights
                continue
            ref = event.get("objectRef", {})
            parts = [ref.get("resource", ""), ref.get("subresource", "")]
            yield Asked(
                verb=event["verb"],
                group=ref.get("apiGroup", ""),
                resource="/".join(part for part in parts if part),
                namespace=ref.get("namespace", ""),
                name=ref.get("name", ""),
                status=event.get("responseStatus", {}).get("code", 0),
                allowed=event["annotations"].get("authorization.k8s.io/decision") == "allow",
                time=event["requestReceivedTimestamp"],
                agent=event.get("userAgent", ""),
            )
