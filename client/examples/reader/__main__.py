"""Start the app: `python -m client.examples.reader --pack runs/NAME/pack`."""

from __future__ import annotations

import argparse
import socket
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

import uvicorn

from client.examples.reader.app import application
from client.examples.reader.room import Room
from fedrec import FedrecError, Recommender

_DAYS = 180


def main() -> int:
    """Serve one person on this machine until they stop it."""
    words = argparse.ArgumentParser(prog="python -m client.examples.reader", description=__doc__)
    words.add_argument("--pack", type=Path, required=True, help="the model: the folder pack/ of a run")
    words.add_argument("--folder", type=Path, default=Path("~/.fedrec-reader"), help="where what you do is kept")
    words.add_argument("--port", type=int, default=8765, help="0 takes any that is free")
    words.add_argument("--open", action="store_true", help="open it in the browser")
    asked = words.parse_args()
    try:
        folder = asked.folder.expanduser()
        with Recommender.open(folder, pack=asked.pack, retention_days=_DAYS) as rec:
            serve(Room(rec, folder, _DAYS), asked.port, browser=asked.open)
    except FedrecError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"port {asked.port} cannot be used: {error.strerror}. Choose another with --port.", file=sys.stderr)
        return 1
    return 0


def serve(room: Room, port: int, *, browser: bool = False) -> None:
    """Until it is interrupted. The address is printed, for it lets in whoever has it."""
    with socket.create_server(("127.0.0.1", port)) as bell:
        address = f"http://127.0.0.1:{bell.getsockname()[1]}/enter/{room.keys.door}"
        print(f"Your reader is at {address}\nCtrl-C ends it.", flush=True)
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(
            application(room), log_level="warning", access_log=False, lifespan="off", ws="none", server_header=False
        )
        with suppress(KeyboardInterrupt):  # which uvicorn hands on when it has ended
            uvicorn.Server(config).run(sockets=[bell])


if __name__ == "__main__":
    raise SystemExit(main())
