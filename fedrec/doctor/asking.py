"""Ask a server one question, over TLS that believes one authority and no other; and who listens on this machine."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from fedrec.deploy.certificates import explain, trusting

PATIENCE = 10.0  # seconds
_MOST = 1 << 20  # bytes of an answer
_LISTENS = "0A"  # TCP's state in the kernel's table


@dataclass(frozen=True)
class Reply:
    """What came back; `date` is the server's clock in Unix seconds, None if it does not tell."""

    status: int
    body: bytes
    date: float | None


@dataclass(frozen=True)
class Server:
    """A listener at `address`, asked for by the name `name`; plain HTTP if no authority is given."""

    address: tuple[str, int]
    name: str
    ca: bytes = b""

    def ask(self, path: str, *, method: str = "GET") -> Reply:
        """Its answer, as it is: no redirect, no proxy. Raises the error that says what to do when there is none."""
        connection = HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            connection.sock = self._connected()
            connection.request(method, path, headers={"Host": f"{self._spelt}:{self.address[1]}"})
            answer = connection.getresponse()
            return Reply(answer.status, answer.read(_MOST), _seconds(answer.getheader("Date")))
        except (OSError, HTTPException) as error:
            raise explain(error, f"{self._spelt}:{self.address[1]}") from None
        finally:
            connection.close()

    @property
    def listens(self) -> bool:
        """Whether anything at all accepts connections there."""
        try:
            socket.create_connection(self.address, PATIENCE).close()
        except OSError:
            return False
        return True

    def _connected(self) -> socket.socket:
        plain = socket.create_connection(self.address, PATIENCE)
        if not self.ca:
            return plain
        try:
            return trusting(self.ca).wrap_socket(plain, server_hostname=self.name)
        except BaseException:
            plain.close()
            raise

    @property
    def _spelt(self) -> str:
        return f"[{self.name}]" if ":" in self.name else self.name


def listeners(port: int, tables: tuple[Path, ...] = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))) -> set[str]:
    """The local addresses on which somebody on this machine listens at `port`, by the kernel's own table (Linux)."""
    found = set()
    for table in tables:
        for line in table.read_text().splitlines()[1:] if table.exists() else ():
            _, local, _, state, *_ = line.split()
            address, _, number = local.partition(":")
            if state == _LISTENS and int(number, 16) == port:
                found.add(_address(address))
    return found


def is_loopback(address: str) -> bool:
    """Whether nobody outside this machine reaches `address`."""
    found = ipaddress.ip_address(address)
    inner = getattr(found, "ipv4_mapped", None)
    return bool((inner or found).is_loopback)


def _address(words: str) -> str:
    """The kernel writes addresses as 32-bit words in the machine's own order."""
    raw = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    return str(ipaddress.ip_address(raw))


def _seconds(date: str | None) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None
