"""A site: everything one server is, in one folder."""

from __future__ import annotations

import ipaddress
import math
import re
import secrets
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import tomli_w
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, field_validator, model_validator

from fedrec.deploy.certificates import CA, create_authority, fingerprint, issue_server, write_secret
from fedrec.deploy.invitation import Invitation
from fedrec.deploy.manifest import CATALOGUE, PLAN, STATEMENT, seal
from fedrec.errors import RunError, SpecError
from fedrec.files import write_atomic
from fedrec.settings import Section, checked, read_text

SETTINGS = "server.toml"
BEGIN = 0.8  # of all seats: a seat is never given twice, and one lost device must not keep the others waiting

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")


class SiteSpec(Section):
    """How a server is reached and how patient it is. What it trains is the plan's matter.

    `hosts` are the names and addresses that devices may reach it by; invitations carry the first. `operators` is where
    health, metrics and the status page are. Round 1 waits until a share `begin` of the `seats` is enrolled and online.
    A phase of a round ends after `phase_seconds`, a request is refused beyond `request_bytes`. `superlink` and `desk`
    are ports on the loopback; the desk has one only behind nginx.
    """

    hosts: tuple[str, ...] = Field(min_length=1)
    seats: int = Field(ge=1)
    front: Literal["door", "nginx"] = "door"
    bind: str = "0.0.0.0"
    port: int = Field(9443, ge=1, le=65535)
    operators: str = "127.0.0.1:9444"
    superlink: int = Field(9445, ge=1, le=65535)
    desk: int = Field(9446, ge=1, le=65535)
    begin: float = Field(BEGIN, ge=0, le=1)
    phase_seconds: float = Field(120.0, gt=0)
    invitation_days: float = Field(14.0, gt=0)
    packs: int = Field(5, ge=2)
    connections: int = Field(1024, ge=1)
    connections_per_address: int = Field(256, ge=1)
    request_bytes: int = Field(32 * 1024 * 1024, ge=1024 * 1024)

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _is_host(host):
                raise ValueError("a host is a name or an address without a port or a scheme")
        return hosts

    @field_validator("bind")
    @classmethod
    def _bind(cls, bind: str) -> str:
        ipaddress.ip_address(bind)
        return bind

    @field_validator("operators")
    @classmethod
    def _operators(cls, operators: str) -> str:
        split_address(operators)
        return operators

    @model_validator(mode="after")
    def _ports(self) -> Self:
        ports = [self.port, self.operators_at[1], self.superlink, self.desk]
        if len(set(ports)) < len(ports):
            raise ValueError("port, operators, superlink and desk are four different ports")
        return self

    @property
    def operators_at(self) -> tuple[str, int]:
        """Address and port of the operators' listener."""
        return split_address(self.operators)

    @property
    def superlink_at(self) -> str:
        """Address and port of the SuperLink, which this machine alone can reach."""
        return f"127.0.0.1:{self.superlink}"

    @property
    def awaited(self) -> int:
        """How many seats are online before round 1."""
        return math.ceil(self.begin * self.seats)

    @property
    def url(self) -> str:
        """Where devices reach the server."""
        host = f"[{self.hosts[0]}]" if ":" in self.hosts[0] else self.hosts[0]
        return f"https://{host}:{self.port}"


@dataclass(frozen=True)
class Prepared:
    """A run folder that is ready: the hash of its task, and the statement that people read."""

    task: str
    statement: str


@dataclass(frozen=True)
class Site:
    """The folder of one server. It is complete once it has a `server.toml`."""

    path: Path

    @classmethod
    def create(cls, path: Path, spec: SiteSpec, prepare: Callable[[Path], Prepared]) -> Self:
        """Make a site; `prepare` fills its run folder, and finds it filled when it is called again after a crash.

        What an interrupted `create` left is gone on with; a finished site is left alone.
        """
        site = cls(path)
        if site.settings.exists():
            remedy = "Choose another folder; a site's keys are never replaced."
            raise RunError("a new site needs a folder without one", remedy=remedy, path=str(path))
        try:
            site._make(spec, prepare)
        except OSError as error:
            remedy = "Choose another folder, or get the right to write there."
            raise RunError("the site can be written", remedy=remedy, path=str(path), reason=error.strerror) from None
        return site

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing site."""
        if not (path / SETTINGS).is_file():
            remedy = "`fedrec server init` makes one; run it again if it was interrupted."
            raise RunError("a site has a server.toml", remedy=remedy, path=str(path))
        return cls(path)

    def _make(self, spec: SiteSpec, prepare: Callable[[Path], Prepared]) -> None:
        for folder in (self.path, self.keys, self.packs, self.state, self.logs, self.task):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_authority(self.keys)
        issue_server(self.keys, spec.hosts)
        if not self.signing_file.exists():
            form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            write_secret(self.signing_file, Ed25519PrivateKey.generate().private_bytes(*form))
        if not self.executor_secret.exists():
            write_secret(self.executor_secret, secrets.token_hex(32).encode())
        self._seal(prepare(self.run))
        write_atomic(self.settings, tomli_w.dumps(spec.model_dump(mode="json")).encode())

    def _seal(self, prepared: Prepared) -> None:
        """Sign what devices download."""
        write_atomic(self.task / STATEMENT, prepared.statement.encode())
        sources = {PLAN: self.run / PLAN, CATALOGUE: self.run / CATALOGUE, STATEMENT: self.task / STATEMENT}
        seal(self.task, sources, prepared.task, self.signing)

    @property
    def spec(self) -> SiteSpec:
        """The settings as they are in the file now."""
        try:
            content = tomllib.loads(read_text(self.settings, "server's settings"))
        except tomllib.TOMLDecodeError as error:
            raise SpecError(f"server.toml is not valid TOML: {error}", remedy="Repair the line.") from None
        return checked(SiteSpec, content, "deploy")

    @property
    def id(self) -> str:
        """SHA-256 of the authority's certificate, in hex."""
        return fingerprint(self.ca)

    @property
    def ca(self) -> bytes:
        """The authority's certificate, in PEM."""
        return (self.keys / CA).read_bytes()

    @property
    def signing(self) -> Ed25519PrivateKey:
        """The key that signs seats, tasks and packs."""
        key = serialization.load_pem_private_key(self.signing_file.read_bytes(), password=None)
        assert isinstance(key, Ed25519PrivateKey)
        return key

    @property
    def roster_key(self) -> bytes:
        """The public half of `signing`, raw."""
        return self.signing.public_key().public_bytes_raw()

    def invite(self, secret: str) -> Invitation:
        """The invitation that carries `secret`."""
        return Invitation(self.spec.url, self.id, secret)

    @property
    def settings(self) -> Path:
        """server.toml."""
        return self.path / SETTINGS

    @property
    def keys(self) -> Path:
        """The folder of keys and certificates."""
        return self.path / "keys"

    @property
    def signing_file(self) -> Path:
        """The file of the key `signing`."""
        return self.keys / "signing.pem"

    @property
    def executor_secret(self) -> Path:
        """What only our own executor and the SuperLink know."""
        return self.keys / "superexec.secret"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.path / "run"

    @property
    def task(self) -> Path:
        """The signed list of what devices download, and the statement."""
        return self.path / "task"

    @property
    def roster(self) -> Path:
        """The database of seats."""
        return self.path / "roster.sqlite"

    @property
    def database(self) -> Path:
        """The SuperLink's database."""
        return self.path / "superlink.db"

    @property
    def packs(self) -> Path:
        """Published packs."""
        return self.path / "packs"

    @property
    def encoder(self) -> Path | None:
        """The exported text encoder that packs are published with, `encoder/`; None without one."""
        folder = self.path / "encoder"
        return folder if folder.is_dir() else None

    @property
    def state(self) -> Path:
        """Small files for operators."""
        return self.path / "state"

    @property
    def bell(self) -> Path:
        """The count of rings (`fedrec.deploy.bell`)."""
        return self.state / "bell"

    @property
    def logs(self) -> Path:
        """Logs, in JSON lines."""
        return self.path / "logs"


def split_address(address: str) -> tuple[str, int]:
    """Address and port of `127.0.0.1:9444` or `[::1]:9444`."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("an address of a listener is an IP address, a colon and a port")
    return str(ipaddress.ip_address(host)), int(port)


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return bool(_HOST.fullmatch(host))
    return True
