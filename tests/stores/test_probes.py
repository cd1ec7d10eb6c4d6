"""Probes whose process was killed: what they leave is found by who comes later, and goes."""

from datetime import timedelta
from typing import NoReturn

import pytest
from places import keys
from servers import S3Server, s3_options

from crossdock.store.opening import open_store
from crossdock.store.probes import FOLDER, clear_old_probes
from crossdock.store.s3.multipart import Multipart
from harness import eventually


@pytest.mark.parametrize("kind", ["versitygw", pytest.param("minio", marks=pytest.mark.servers)])
def test_an_upload_of_a_probe_is_found_on_any_server(
    request: pytest.FixtureRequest, kind: str, job_uid: str
) -> None:
    """Also where uploads are listed by their key alone; other probes may be under way."""
    server: S3Server = request.getfixturevalue(kind)
    before = server.left()
    store = open_store(f"s3://{server.bucket}/{job_uid}", s3_options(server))
    begun: list[str] = []

    class Dies(BaseException):
        pass

    def dies(_: Multipart) -> NoReturn:
        begun.append("")
        raise Dies

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Multipart, "abort", dies)
        with pytest.raises(Dies):
            _ = store.capabilities
    assert begun
    assert server.left() - before
    assert clear_old_probes(store) == 0, "it is young"

    def cleared() -> bool:
        clear_old_probes(store, older=timedelta(seconds=1))
        return server.left() <= before

    eventually(cleared, pause=0.2)
    store.close()


def test_old_probes_go_and_young_ones_stay(versitygw: S3Server, job_uid: str) -> None:
    """Not on moto: there all uploads began at one and the same time."""
    store = open_store(f"s3://{versitygw.bucket}/{job_uid}", s3_options(versitygw))
    key = f"{FOLDER}0123456789abcdef/condition"
    store.put(key, b"crossdock")
    store.put("default/job/homes/worker", b"somebody's")
    store.upload(f"{FOLDER}0123456789abcdef/upload").write(bytes(17 * 2**20))
    eventually(lambda: list(store.uploads(FOLDER)))
    assert clear_old_probes(store) == 0
    assert keys(store, FOLDER) == [key]

    def cleared() -> bool:
        """One of the two may be old enough before the other."""
        clear_old_probes(store, older=timedelta(seconds=1))
        return not keys(store, FOLDER) and not list(store.uploads(FOLDER))

    eventually(cleared, pause=0.2)
    assert keys(store) == ["default/job/homes/worker"]
    assert not list(store.uploads(""))
    assert clear_old_probes(store, older=timedelta()) == 0
    store.delete(["default/job/homes/worker"])
    store.close()
