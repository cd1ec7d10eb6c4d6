"""The files of `roles/` are what the code says."""

from pathlib import Path

import pytest

from crossdock_operator import rbac

ROLES = Path(__file__).parents[2] / "roles"


@pytest.mark.parametrize("name", sorted(rbac.manifests()))
def test_files_are_up_to_date(name: str) -> None:
    assert (ROLES / name).read_text() == rbac.text(rbac.manifests()[name]), "run `make roles`"


def test_there_are_no_others() -> None:
    assert {path.name for path in ROLES.iterdir()} == set(rbac.manifests())


def test_nothing_is_granted_by_a_star() -> None:
    for objects in rbac.manifests().values():
        for rule in objects[0]["rules"]:
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
