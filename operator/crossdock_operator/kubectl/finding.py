"""Where the operator runs, when nobody says it."""

from typing import Final

from crossdock.errors import ConfigError
from crossdock_operator.errors import NotAllowed
from crossdock_operator.kinds import CLUSTER_ROLE_BINDING
from crossdock_operator.kubectl.access import Person, explained
from crossdock_operator.plan.names import PART, PART_OF

DEFAULT: Final = "crossdock"
"""The namespace of the quickstart: taken where nothing says another one."""


async def operators_namespace(person: Person) -> str:
    """Return the namespace of the account that ClusterRoleBindings of Crossdock name.

    Not that of any pod with the operator's labels: whoever may run pods could give one such labels,
    and would be sent people's tokens. Only who rules the cluster makes ClusterRoleBindings.

    Raises:
        ConfigError: there are several.
    """
    found: set[str] = set()
    labels = f"{PART_OF}={PART}"
    try:
        with explained("list", CLUSTER_ROLE_BINDING, ""):
            async for body in person.kube.every(CLUSTER_ROLE_BINDING, labels=labels):
                accounts = [s for s in body.get("subjects") or () if s["kind"] == "ServiceAccount"]
                found |= {each["namespace"] for each in accounts}
    except NotAllowed:
        return DEFAULT  # most people may not list them
    if len(found) > 1:
        raise ConfigError(
            f"there are operators in the namespaces {', '.join(sorted(found))}",
            hint="say which one: --operator-namespace, or CROSSDOCK_OPERATOR_NAMESPACE",
        )
    return found.pop() if found else DEFAULT
