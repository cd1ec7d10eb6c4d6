"""A worker to which all but small objects are too long for one PUT: so uploads are under way."""

import sys

import crossdock.store.s3.store as s3
from crossdock.__main__ import main

s3.MAX_PUT_BYTES = 16 * 2**10  # type: ignore[misc]

if __name__ == "__main__":
    sys.argv[0] = "crossdock"
    main()
