"""From an invitation to a node of a real SuperLink, with nothing but the door between."""

import subprocess
from contextlib import closing, contextmanager
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sites import knock, make_site, open_door, wait_for
from tricks import request, statuses

from fedrec.deploy.enrol import enrol
from fedrec.deploy.identity import Identity
from fedrec.deploy.roster import Roster
from fedrec.errors import FedrecError
from fedrec.exchange.fleet import Node
from fedrec.exchange.superlink import SuperLink, online, register, unregister


@contextmanager
def superlink(site):
    link = SuperLink(
        port=site.spec.superlink, authority=site.keys / "ca.pem", certificate=site.keys / "server.pem",
        key=site.keys / "server.key", database=site.database, secret=site.executor_secret, home=site.path / "flwr",
    )  # fmt: skip
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(link.command(), env=link.environment(), stdout=quiet, stderr=quiet)
    try:
        wait_for(site, site.spec.superlink)
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_an_invitation_leads_to_a_node_and_a_key_alone_does_not(tmp_path):
    site = make_site(tmp_path / "site")
    address = f"127.0.0.1:{site.spec.superlink}"
    with superlink(site), open_door(site, None, partial(register, address, site.ca)):
        with Roster(site.roster, 3) as roster:
            (secret,) = roster.issue(1, seconds=60)
        enrol(tmp_path / "device", site.invite(secret).encode())
        device = Identity.read(tmp_path / "device")
        ca = (tmp_path / "device" / "ca.pem").read_bytes()
        with Roster(site.roster, 3) as roster:
            (node,) = roster.nodes().values()
        front = f"127.0.0.1:{site.spec.port}"
        with closing(Node(front, device.key, ca)) as member:
            assert member.activate() == node and online(address, site.ca) == 1
            member.beat()
            assert member.once(lambda message: message) is False
            member.deactivate()
        stranger = Node(front, ec.generate_private_key(ec.SECP384R1()), ca)
        with closing(stranger), pytest.raises(FedrecError):
            stranger.activate()
        unregister(address, site.ca, node)
        with closing(Node(front, device.key, ca)) as former, pytest.raises(FedrecError):
            former.activate()
        # The SuperLink does answer these, to whoever reaches it; the door does not.
        call = request("POST /v1/control/list-runs", b"Content-Type: application/protobuf\r\nContent-Length: 0\r\n\r\n")
        assert statuses(knock(site, call)) == [404]
        assert statuses(knock(site, call, site.spec.superlink))[0] == 200
