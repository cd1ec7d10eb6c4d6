"""Objects of a shuffle in the store, as any worker answers: with a store, and without one."""

from raw import Peer, Reply, Target


def check_error(reply: Reply, status: int, code: str) -> None:
    assert (reply.status, reply.code) == (status, code), reply
    assert set(reply.json()) >= {"code", "message", "hint"}


def has_store(peer: Peer) -> bool:
    own = peer.ask("GET", "/v1/workers").json()["self"]
    assert isinstance(own["store"], bool)
    return bool(own["store"])


def test_what_is_not_there_is_said(target: Target) -> None:
    listing = target.peer.ask("GET", f"{target.path}/objects?prefix=records/")
    one = target.peer.ask(
        "GET", f"{target.path}/objects/records/none", headers={"Range": "bytes=0-"}
    )
    if has_store(target.peer):
        assert listing.json() == {"objects": [], "more": False}
        check_error(one, 404, "object_missing")
        check_error(target.peer.ask("GET", f"{target.path}/objects/records/none"), 400, "protocol")
        check_error(target.peer.ask("GET", f"{target.path}/objects?after=../x"), 400, "protocol")
    else:
        check_error(listing, 404, "no_store")
        check_error(one, 404, "no_store")


def test_released_shuffles_and_jobs_that_are_not_live_come_first(target: Target) -> None:
    assert target.peer.ask("DELETE", target.path).status == 200
    paths = (f"{target.path}/objects", f"{target.path}/objects/records/none")
    for path in paths:
        check_error(target.peer.ask("GET", path), 410, "shuffle_released")
    unknown = Target(target.peer, f"{target.job}-x")
    check_error(target.peer.ask("GET", f"{unknown.path}/objects"), 404, "job_unknown")
    assert target.peer.ask("DELETE", target.job_path).status == 200
    for path in paths:
        check_error(target.peer.ask("GET", path), 410, "job_fenced")
