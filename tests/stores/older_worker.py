"""A worker of a version that takes no releases from others: it answers 404."""

import sys

from crossdock.__main__ import main
from crossdock.wire import names
from crossdock_worker import routes, server

routes.ROUTES = tuple(each for each in routes.ROUTES if each.path != names.RELEASED)
server.ROUTES = routes.ROUTES  # type: ignore[attr-defined]

if __name__ == "__main__":
    sys.argv[0] = "crossdock"
    main()
