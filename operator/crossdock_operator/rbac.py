"""What the operator may do, once: every verb that it uses, and no other. `make roles` writes it.

python -m crossdock_operator.rbac ROLES CHART_FILES [--scalable GROUP/VERSION/KIND …] \
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
    SERVICE_MONITOR,
    SHUFFLE_CLUSTER,
    SHUFFLE_JOB,
    STATEFUL_SET,
    SUBJECT_ACCESS_REVIEW,
    TOKEN_REVIEW,
    Kind,
    Object,
)
from crossdock_operator.leader import LEASE_NAME
from crossdock_operator.plan.names import PART, PART_OF
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
    (SECRET, ""): ("list", "watch", "create", "get", "patch", "delete"),
    (CONFIG_MAP, ""): ("create", "get", "update"),
    (JOB, ""): ("list", "watch", "create", "get", "patch", "delete"),
    (POD, ""): ("list", "patch"),  # what a scale-down takes first is marked
    (HORIZONTAL_POD_AUTOSCALER, ""): ("list",),
    (EVENT, ""): ("create",),
    (NAMESPACE, ""): ("get",),  # its labels, where a cluster's selector asks for some
    (POD_DISRUPTION_BUDGET, ""): _KEPT,
    (NETWORK_POLICY, ""): _KEPT,
    # It may be a kind that is not there, so it is not watched.
    (SERVICE_MONITOR, ""): ("create", "patch", "delete"),
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
    found = [_rule(kind, sub, verbs) for (kind, sub), verbs in LOOKED_AFTER.items()]
    for kind in scalable:
        found += [_rule(kind, "", ("get",)), _rule(kind, "scale", ("get", "patch"))]
    return found + [_rule(each.kind(), "", ("list",)) for each in owners]


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


def hooks_anywhere() -> list[Object]:
    """Return the rules for the chart's hooks, wherever the operator looks after objects."""
    return [_rule(kind, "", ("list",)) for kind in (SHUFFLE_CLUSTER, SHUFFLE_JOB)]


def hooks() -> list[Object]:
    """Return the rules for the chart's hooks in the release's namespace."""
    return [
        _rule(SHUFFLE_CLUSTER, "", ("get", "list", "create", "patch", "delete")),
        _rule(SHUFFLE_JOB, "", ("get", "create", "delete")),
    ]


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


def chart_files() -> dict[str, list[Object]]:
    """Return rules for the chart, by file.

    It names roles and accounts itself, and adds what its values say of kinds.
    """
    return {
        "own-namespace.yaml": own_namespace(),
        "looked-after.yaml": looked_after(scalable=()),
        "reviews.yaml": reviews(),
        "hooks.yaml": hooks(),
        "hooks-anywhere.yaml": hooks_anywhere(),
    }


def _bound(kind: str, name: str, rules: list[Object]) -> list[Object]:
    """Return a role, and its binding to the operator's account."""
    api = {"apiVersion": f"{_GROUP}/v1"}
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": NAME}
    metadata = {"name": name, "labels": {PART_OF: PART}}  # by which the plugin finds it
    return [
        {**api, "kind": kind, "metadata": metadata, "rules": rules},
        {
            **api,
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": name},
            "subjects": [subject],
        },
    ]


_HEAD: Final = "# Made by `make roles` of operator/crossdock_operator/rbac.py.\n"


def text(objects: list[Object]) -> str:
    """Return a file of `roles/`."""
    return _HEAD + "---\n".join(yaml.safe_dump(each, sort_keys=False) for each in objects)


def chart_text(rules: list[Object]) -> str:
    """Return a file of the chart."""
    return _HEAD + yaml.safe_dump(rules, sort_keys=False)


def main() -> None:
    """Write manifests into the first directory, and the chart's rules into the second."""
    parser = argparse.ArgumentParser()
    parser.add_argument("manifests", type=Path)
    parser.add_argument("chart", type=Path)
    parser.add_argument("--scalable", action="append", type=kind_of_option)
    parser.add_argument("--owner-kinds", action="append", type=OwnerKind.parse)
    given = parser.parse_args()
    for directory in (given.manifests, given.chart):
        directory.mkdir(parents=True, exist_ok=True)
    scalable, owners = given.scalable or SCALABLE, given.owner_kinds or ()
    for name, objects in manifests(scalable, owners).items():
        (given.manifests / name).write_text(text(objects))
    for name, rules in chart_files().items():
        (given.chart / name).write_text(chart_text(rules))


if __name__ == "__main__":
    main()
