"""Requests that must not get past a site's door, whoever keeps it."""

import re

TARGETS = (
    "POST /v1/control/start-run",
    "POST /v1/control/register-node",
    "POST /v1/runtime/pull-task",
    "POST /v1/fleet/get-fab",
    "POST /v1/fleet/register-node",
    "POST /v1/fleet/unregister-node",
    "POST /v1/fleet",
    "POST /v1/fleet/",
    "POST /v1/fleet/pull-messages/",
    "POST /v1/fleet/pull-messages?x=1",
    "POST /v1/fleet/pull-messages#x",
    "POST /v1/fleet/pull-messages;x",
    "POST /v1/fleet/pull-messages%20",
    "POST /v1/fleet/pull%2dmessages",
    "POST /v1/fleet/../control/start-run",
    "POST /v1/fleet/./../control/start-run",
    "POST /v1/fleet/%2e%2e/control/start-run",
    "POST /v1/fleet/%2E%2E%2Fcontrol/start-run",
    "POST /v1/fleet/..%2fcontrol%2fstart-run",
    "POST /v1/fleet/..%5ccontrol/start-run",
    "POST /v1/fleet\\..\\control\\start-run",
    "POST /v1/fleet/..;/control/start-run",
    "POST /v1/fleet/%252e%252e/control/start-run",
    "POST /v1/control/../fleet/pull-messages",
    "POST /v1/control/%2e%2e/fleet/pull-messages",
    "POST //v1/control/start-run",
    "POST //v1/fleet/pull-messages",
    "POST /v1//fleet/pull-messages",
    "POST /v1/fleet//pull-messages",
    "POST /V1/FLEET/pull-messages",
    "POST /v1/fleet/pull-messages%00",
    "POST /v1/fleet/pull-messages%0d%0aHost:x",
    "POST http://127.0.0.1/v1/control/start-run",
    "POST https://127.0.0.1:1/v1/control/start-run",
    "POST http:///v1/control/start-run",
    "POST v1/fleet/pull-messages",
    "POST *",
    "GET /v1/fleet/pull-messages",
    "HEAD /v1/fleet/pull-messages",
    "PUT /v1/fleet/pull-messages",
    "OPTIONS /v1/fleet/pull-messages",
    "TRACE /v1/fleet/pull-messages",
    "post /v1/fleet/pull-messages",
    "CONNECT 127.0.0.1:1",
    "GET /",
    "GET /docs",
    "GET /openapi.json",
    "GET /health",
    "GET /healthz",
    "GET /metrics",
    "GET /fedrec/v1/",
    "GET /fedrec/v1/enrol",
    "POST /fedrec/v1/ca",
    "GET /fedrec/v1/task/../../keys/signing.pem",
    "GET /fedrec/v1/task/..%2f..%2fkeys%2fsigning.pem",
    "GET /fedrec/v1/task/ledger.jsonl",
    "GET /fedrec/v1/task/.hidden",
    "GET /fedrec/v1/pack/../server.toml",
    "GET /fedrec/v1/pack/1/..%2f..%2fserver.toml",
    "GET /fedrec/v1/pack/keys/signing.pem",
    "GET /fedrec/v1/pack/1/.pack",
    "GET /fedrec/v1/bell?after=x",
    "GET /fedrec/v1/../../v1/control/start-run",
)

INNER = b"POST /v1/control/start-run HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"

# What follows the request line of an allowed call: ways to make two programs see two different ends of it.
FRAMES = {
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + INNER + b"\r\n0\r\n\r\n",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks, twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
    "chunks, disguised": b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n" + INNER,
    "chunks, with a space": b"Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n" + INNER,
    "chunks, with a tab": b"Transfer-Encoding:\tchunked\r\nContent-Length: 0\r\n\r\n" + INNER,
    "chunks, folded": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n" + INNER,
    "two lengths": b"Content-Length: 0\r\nContent-Length: 68\r\n\r\n" + INNER,
    "two lengths in one": b"Content-Length: 0, 68\r\n\r\n" + INNER,
    "a length with a sign": b"Content-Length: +0\r\n\r\n" + INNER,
    "a negative length": b"Content-Length: -1\r\n\r\n" + INNER,
    "a length in hex": b"Content-Length: 0x0\r\n\r\n" + INNER,
    "no length": b"\r\n" + INNER,
    "bare line feeds": b"Content-Length: 0\nTransfer-Encoding: chunked\n\n0\n\n" + INNER,
    "a pipelined call": b"Content-Length: 0\r\n\r\n" + INNER,
    "an upgrade": b"Content-Length: 0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" + INNER,
}

SEEN = {
    f"/v1/fleet/{name}"
    for name in (
        "activate-node", "confirm-message-received", "deactivate-node", "get-run", "pull-messages", "pull-object",
        "push-messages", "push-object", "send-node-heartbeat",
    )
}  # fmt: skip


def request(line: str, after: bytes = b"Content-Length: 0\r\n\r\n") -> bytes:
    return line.encode() + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + after


def statuses(answer: bytes) -> list[int]:
    """The status of every response in `answer`."""
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]
