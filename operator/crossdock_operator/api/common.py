"""What both kinds are made of."""

from dataclasses import dataclass
from typing import Annotated, Final, TypeAlias

from crossdock_operator.api.fields import Items, ObjectName, Range, Text

GROUP: Final = "crossdock.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
PAUSED: Final = f"{GROUP}/paused"
"""Annotation of any of our objects; while it is "true" the operator changes nothing of it."""

YEAR_SECONDS: Final = 366 * 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretReference:
    """A Secret of the same namespace."""

    name: Annotated[ObjectName, "Name of the Secret."]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One answer about an object, by Kubernetes' conventions."""

    type: Annotated[str, "What is asked, such as Available.", Text(63, least=1)]
    status: Annotated[str, "True, False or Unknown.", Text(7, "^(True|False|Unknown)$")]
    reason: Annotated[str, "Why, in one word for programs.", Text(128, least=1)]
    message: Annotated[str, "Why, and what to do, for people.", Text(4096)] = ""
    observed_generation: Annotated[int, "Generation of the object that the answer is about."] = 0
    last_transition_time: Annotated[str, "When status changed last.", Text(40)]


Conditions: TypeAlias = Annotated[tuple[Condition, ...], Items(24, keys=("type",))]
Seconds: TypeAlias = Annotated[int, Range(0, YEAR_SECONDS)]
