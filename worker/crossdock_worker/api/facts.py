"""What peers ask of each other."""

from aiohttp import web

from crossdock.errors import ConfigError, Forbidden, ProtocolError
from crossdock.wire.names import check_name
from crossdock.wire.tokens import ANY_JOB, Claims, Right
from crossdock_worker.api.context import CLAIMS, WORKER, query_int
from crossdock_worker.membership import check_peer


async def get_facts(request: web.Request) -> web.Response:
    """Answer what is known of all jobs, or what is new of it. Not for who has one job's token."""
    worker, claims = request.app[WORKER], request[CLAIMS]
    assert isinstance(claims, Claims)
    if claims.job != ANY_JOB and not claims.may(Right.ADMIN):
        raise Forbidden("the token is for one job, and this tells of all")
    if "worker" in request.query:
        url = request.query.get("url", "")
        try:
            check_peer(url)
        except ConfigError as error:
            raise ProtocolError(error.message) from error
        worker.membership.meet(check_name("worker", request.query["worker"]), url)
    page = worker.gossip.page(
        incarnation=query_int(request, "incarnation", 0), since=query_int(request, "since", 0)
    )
    return web.json_response(page.to_json())
