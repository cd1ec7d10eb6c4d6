"""A stub of S3 that lists a million objects and no uploads, and has nothing of it in memory.

python -m support.listing OBJECTS      prints its port
"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE = 1000
SHUFFLE = 10_000
"""Objects of one shuffle."""
NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
WHEN = "2020-01-01T00:00:00.000Z"


def key(prefix: str, number: int) -> str:
    """Return the key of an object; keys rise with numbers."""
    job, rest = divmod(number, SHUFFLE)
    if rest < PAGE:  # a tenth are intents: the dearest to sweep
        return f"{prefix}job-{job:06d}/abcd/words/0/intents/run-{rest:06d}"
    return f"{prefix}job-{job:06d}/abcd/words/0/segments/run/{rest:06d}"


class Handler(BaseHTTPRequestHandler):
    """Answers listings."""

    protocol_version = "HTTP/1.1"
    objects = 0

    def do_GET(self) -> None:
        query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        if "uploads" in urlsplit(self.path).query.split("&"):
            body = f'<ListMultipartUploadsResult xmlns="{NAMESPACE}"/>'
        else:
            body = self.page(query)
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def page(self, query: dict[str, str]) -> str:
        first = int(query.get("continuation-token", "0"))
        most = min(PAGE, int(query.get("max-keys", PAGE)))
        last = min(first + most, self.objects)
        prefix = query.get("prefix", "")
        contents = "".join(
            f"<Contents><Key>{key(prefix, n)}</Key><LastModified>{WHEN}</LastModified>"
            f'<ETag>"abc"</ETag><Size>100</Size></Contents>'
            for n in range(first, last)
        )
        more = last < self.objects
        following = f"<NextContinuationToken>{last}</NextContinuationToken>" if more else ""
        return (
            f'<ListBucketResult xmlns="{NAMESPACE}"><IsTruncated>{str(more).lower()}</IsTruncated>'
            f"{following}{contents}</ListBucketResult>"
        )

    def log_request(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    Handler.objects = int(sys.argv[1])
    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
