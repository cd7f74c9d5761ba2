"""Throw-away sites with a toy instead of a SuperLink, and ways to knock at their doors."""

import asyncio
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from fedrec.deploy.certificates import serving, trusting
from fedrec.deploy.listen import Listener, Places, bind, keep_open, listen
from fedrec.deploy.site import Prepared, Site, SiteSpec

TASK = "ab" * 32


def prepare(run: Path) -> Prepared:
    run.mkdir(exist_ok=True)
    (run / "plan.toml").write_text('name = "toy"\n')
    (run / "catalogue.parquet").write_bytes(b"PAR1" * 5000)
    (run / "ledger.jsonl").write_text("not for the outside\n")
    return Prepared(TASK, "What is protected from whom.\n")


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        places = [stack.enter_context(bind("127.0.0.1", 0)) for _ in range(count)]
        return [place.getsockname()[1] for place in places]


def make_site(path: Path, **settings) -> Site:
    port, operators, superlink, desk = free_ports(4)
    spec = {"hosts": ("127.0.0.1",), "seats": 3, "bind": "127.0.0.1", "port": port, "superlink": superlink,
            "operators": f"127.0.0.1:{operators}", "desk": desk}  # fmt: skip
    return Site.create(path, SiteSpec(**{**spec, **settings}), prepare)


@dataclass
class Toy:
    """Answers like a SuperLink, and remembers what reached it."""

    reached: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.reached.append((scope["method"], scope["raw_path"].decode(), headers, body))
        status = int(headers.get("accept", "200")) if headers.get("accept", "").isdigit() else 200
        answer = Response(b"toy:" + body, status, {"flwr-note": "kept", "x-secret": "dropped"}, "application/protobuf")
        await answer(scope, receive, send)

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.reached]


@contextmanager
def running(serve):
    """A thread whose loop runs `serve(stop)`."""
    begun, loops = threading.Event(), []

    async def run():
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        begun.set()
        await serve(stop)

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    begun.wait()
    try:
        yield
    finally:
        loop, stop = loops[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive()


def toy_superlink(site: Site, toy: Toy, *, keys: Path | None = None):
    place = bind("127.0.0.1", site.spec.superlink)
    place.listen()
    return running(lambda stop: listen([Listener(toy, place, serving(keys or site.keys))], stop))


@contextmanager
def open_door(site: Site, toy: Toy | None, register=lambda key: 2**64 - 7, keys: Path | None = None):
    """The site's door and desk, with `toy` behind them, or nobody."""
    operators = Starlette(routes=[Route("/healthz", lambda request: PlainTextResponse("fine"))])
    places = Places.of(site.spec)
    for place in (places.public, places.operators):
        place.listen()  # whoever knocks at once is let in a moment later

    def serve(stop):
        return keep_open(site, operators, register=register, places=places, stop=stop)

    with ExitStack() as stack:
        if toy is not None:
            stack.enter_context(toy_superlink(site, toy, keys=keys))
        stack.enter_context(running(serve))
        yield


def connect(site: Site, port: int | None = None) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port or site.spec.port), timeout=5)
    return trusting(site.ca).wrap_socket(plain, server_hostname="127.0.0.1")


def wait_for(site: Site, port: int | None = None):
    """Until somebody with the site's certificate answers there."""
    for _ in range(400):
        try:
            return connect(site, port).close()
        except OSError:
            time.sleep(0.05)
    raise AssertionError("nobody answers")


def knock(site: Site, content: bytes, port: int | None = None) -> bytes:
    """What comes back for raw bytes, until the other side closes or has said all it had to."""
    answer = b""
    with connect(site, port) as line:
        line.sendall(content)
        try:
            while chunk := line.recv(65536):
                answer += chunk
                line.settimeout(0.15)
        except OSError:
            pass
    return answer
