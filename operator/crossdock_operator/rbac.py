"""What the operator may do, once: every verb that it uses, and no other. `make roles` writes it.

python -m crossdock_operator.rbac DIRECTORY [--scalable GROUP/VERSION/KIND …] \
    [--owner-kinds KIND.GROUP …]

Options are those of the operator.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from crossdock_operator.kinds import (
    CONFIG_MAP,
    EVENT,
    HORIZONTAL_POD_AUTOSCALER,
    JOB,
    LEASE,
    NAMESPACE,
    NETWORK_POLICY,
    POD,
    POD_DISRUPTION_BUDGET,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    SHUFFLE_CLUSTER,
    SHUFFLE_JOB,
    STATEFUL_SET,
    SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
    Kind,
    Object,
)
from crossdock_operator.leader import LEASE_NAME
from crossdock_operator.plan.owners import OwnerKind
from crossdock_operator.plan.targets import SCALABLE, kind_of_option

NAME: Final = "crossdock-operator"
_GROUP: Final = "rbac.authorization.k8s.io"
_KEPT: Final = ("list", "watch", "create", "patch")
"""Verbs on children: they are watched and applied; the garbage collector deletes them."""

LOOKED_AFTER: Final[Mapping[tuple[Kind, str], tuple[str, ...]]] = {
    (SHUFFLE_CLUSTER, ""): ("list", "watch", "get", "patch"),
    (SHUFFLE_CLUSTER, "status"): ("patch",),
    # Who owns an object with blockOwnerDeletion must be allowed to hold up its owner's end.
    (SHUFFLE_CLUSTER, "finalizers"): ("update",),
    (SHUFFLE_CLUSTER, "scale"): ("patch",),
    (SHUFFLE_JOB, ""): ("list", "watch", "patch", "delete"),
    (SHUFFLE_JOB, "status"): ("patch",),
    (STATEFUL_SET, ""): _KEPT,
    (SERVICE, ""): _KEPT,
    (SERVICE_ACCOUNT, ""): _KEPT,
    (SECRET, ""): ("list", "watch", "create", "get", "patch"),
    (CONFIG_MAP, ""): ("create", "get", "update"),
    (JOB, ""): ("list", "watch", "create", "get", "patch", "delete"),
    (POD, ""): ("list", "patch"),  # what a scale-down takes first is marked
    (HORIZONTAL_POD_AUTOSCALER, ""): ("list",),
    (EVENT, ""): ("create",),
    (NAMESPACE, ""): ("get",),  # its labels, where a cluster's selector asks for some
    (POD_DISRUPTION_BUDGET, ""): _KEPT,
    (NETWORK_POLICY, ""): _KEPT,
}
"""Where the operator looks after objects: verbs by kind and subresource."""


def looked_after(
    scalable: Sequence[Kind] = SCALABLE, owners: Sequence[OwnerKind] = ()
) -> list[Object]:
    """Return the rules for each namespace that is looked after, or for all.

    Args:
        scalable: kinds that hold executors of engines.
        owners: kinds that may own jobs, beside pods and Jobs.
    """
    rights = dict(LOOKED_AFTER)
    for kind in scalable:
        rights[kind, ""] = (*rights.get((kind, ""), ()), "get")
        rights[kind, "scale"] = ("get", "patch")
    for each in owners:
        rights[each.kind(), ""] = ("list",)
    return [_rule(kind, sub, verbs) for (kind, sub), verbs in rights.items()]


def own_namespace() -> list[Object]:
    """Return the rules for where the operator runs: one Lease, and what deleting takes."""
    return [
        _rule(SECRET, "", ("list", "get", "create", "patch", "delete")),  # copies of access
        _rule(LEASE, "", ("get", "update"), names=(LEASE_NAME,)),
        _rule(LEASE, "", ("create",)),  # what is not there yet cannot be named in a role
    ]


def reviews() -> list[Object]:
    """Return the rules for the operator's page: to ask who a viewer is, and what they may see.

    They hold for no namespace, so they take a ClusterRole. With --no-ui they are not needed.
    """
    return [_rule(kind, "", ("create",)) for kind in (TOKEN_REVIEW, SUBJECT_ACCESS_REVIEW)]


def _rule(kind: Kind, sub: str, verbs: tuple[str, ...], *, names: tuple[str, ...] = ()) -> Object:
    rule: Object = {
        "apiGroups": [kind.group],
        "resources": [f"{kind.plural}/{sub}" if sub else kind.plural],
        "verbs": list(verbs),
    }
    return {**rule, "resourceNames": list(names)} if names else rule


def manifests(
    scalable: Sequence[Kind] = SCALABLE, owners: Sequence[OwnerKind] = ()
) -> dict[str, list[Object]]:
    """Return the files of `roles/`, by name; see `looked_after`."""
    rules = looked_after(scalable, owners)
    return {
        "own-namespace.yaml": _bound("Role", NAME, own_namespace()),
        "namespace.yaml": _bound("Role", f"{NAME}-jobs", rules),
        "cluster-wide.yaml": _bound("ClusterRole", NAME, rules),
        "reviews.yaml": _bound("ClusterRole", f"{NAME}-reviews", reviews()),
    }


def _bound(kind: str, name: str, rules: list[Object]) -> list[Object]:
    """Return a role, and its binding to the operator's account."""
    api = {"apiVersion": f"{_GROUP}/v1"}
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAME}
    return [
        {**api, "kind": kind, "metadata": {"name": name}, "rules": rules},
        {
            **api,
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": name},
            "subjects": [subject],
        },
    ]


def text(objects: list[Object]) -> str:
    """Return a file of `roles/`."""
    head = "# Made by `make roles` of operator/crossdock_operator/rbac.py.\n"
    return head + "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in objects)


def main() -> None:
    """Write all files into the directory that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--scalable", action="append", type=kind_of_option)
    parser.add_argument("--owner-kinds", action="append", type=OwnerKind.parse)
    given = parser.parse_args()
    given.directory.mkdir(exist_ok=True)
    found = manifests(given.scalable or SCALABLE, given.owner_kinds or ())
    for name, objects in found.items():
        (given.directory / name).write_text(text(objects))


if __name__ == "__main__":
    main()
