"""`fedrec server` as an operator meets it, as far as nothing has to run: making a site, and what is done by hand."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from fedrec.deploy.identity import point_of
from fedrec.deploy.invitation import Invitation, digest
from fedrec.deploy.roster import Roster
from fedrec.deploy.site import Site
from fedrec.exchange import superlink
from fedrec.model.pack_files import read_pack
from fedrec.spec import Plan

ITEMS = "id,text\n" + "".join(f"book-{n},A book about number {n}\n" for n in range(24))
SMALL = ["-s", "model.encoder=hash", "-s", "model.dim=4", "-s", "privacy.force=true"]


@pytest.fixture
def made(cli, tmp_path):
    """A new site, and what was said of it."""
    (tmp_path / "items.csv").write_text(ITEMS)
    answer = cli("server", "init", tmp_path / "site", "--host", "recs.example.org", "--host", "10.0.0.7", "--seats", 40,
                 "--catalogue", tmp_path / "items.csv", *SMALL)  # fmt: skip
    assert answer.code == 0, answer.err
    return Site.open(tmp_path / "site"), answer.out


def test_by_default_nothing_leaves_a_device_that_is_not_noised_and_masked(made):
    site, said = made
    plan = Plan.read(site.run / "plan.toml")
    assert (plan.privacy.mode, plan.shares.masked, plan.clients) == ("layered", True, 40)
    assert "because it sees sums only" in said and "It does not protect:" in said
    assert f"fedrec server start {site.path.name}" in said.replace(str(site.path.parent) + "/", "")


def test_a_site_is_made_once(made, cli, tmp_path):
    site, _ = made
    before = site.ca
    again = cli(
        "server", "init", site.path, "--host", "x.example", "--seats", 40, "--catalogue", tmp_path / "items.csv"
    )
    assert again.code == 5 and "a site's keys are never replaced" in again.err
    assert site.ca == before


def test_a_site_has_items_of_its_own(cli, tmp_path):
    answer = cli("server", "init", tmp_path / "site", "--host", "x.example", "--seats", 40, *SMALL)
    assert answer.code == 2 and "--catalogue" in answer.err
    assert not (tmp_path / "site" / "server.toml").exists()


def test_invitations_are_for_this_site_and_for_as_many_as_asked(made, cli):
    site, _ = made
    lines = cli("server", "invite", site.path, "--count", 3).out.split()
    offers = [Invitation.decode(line) for line in lines]
    assert {(offer.server, offer.site) for offer in offers} == {("https://recs.example.org:9443", site.id)}
    with Roster(site.roster, 40) as roster:
        assert roster.open_invitations() == 3
        key = ec.generate_private_key(ec.SECP384R1()).public_key()
        assert roster.redeem(digest(offers[0].secret), point_of(key)) == 0


def test_a_renewed_certificate_is_under_the_same_authority(made, cli):
    site, _ = made
    server, authority = site.keys / "server.pem", site.ca
    old = x509.load_pem_x509_certificate(server.read_bytes()).serial_number
    said = cli("server", "renew", site.path)
    new = x509.load_pem_x509_certificate(server.read_bytes())
    assert said.code == 0 and f"{new.not_valid_after_utc:%Y-%m-%d}" in said.out
    assert new.serial_number != old and new.not_valid_after_utc > datetime.now(UTC) and site.ca == authority
    new.verify_directly_issued_by(x509.load_pem_x509_certificate(authority))


def test_a_model_is_published_signed_and_after_what_devices_have(made, cli):
    site, _ = made
    assert cli("server", "publish", site.path).out.split() == ["version", "1"]
    assert cli("server", "publish", site.path, "--after", 6).out.split() == ["version", "7"]
    pack = read_pack(site.packs / "7", site.signing.public_key())
    assert (len(pack.catalogue), pack.info.round, pack.info.version) == (24, 0, 7)


def test_a_seat_that_is_revoked_is_shut_out_at_the_superlink_too(made, cli, monkeypatch):
    site, _ = made
    told = []
    monkeypatch.setattr(superlink, "unregister", lambda address, authority, node: told.append((address, node)))
    with Roster(site.roster, 40) as roster:
        (secret,) = roster.issue(1, seconds=60)
        seat = roster.redeem(digest(secret), point_of(ec.generate_private_key(ec.SECP384R1()).public_key()))
        roster.bind(seat, 77)
    assert cli("server", "revoke", site.path, seat).code == 0
    assert told == [("127.0.0.1:9445", 77)]
    with Roster(site.roster, 40) as roster:
        assert roster.nodes() == {} and roster.seats()[0].revoked is not None


def test_nginx_gets_a_configuration_for_this_site(made, cli):
    site, _ = made
    said = cli("server", "nginx", site.path)
    assert said.code == 0 and "/v1/fleet/" in said.out
    assert f"{site.keys}/server.pem" in said.out and "9443" in said.out


def test_a_site_that_does_not_run_says_so(made, cli):
    site, _ = made
    answer = cli("server", "status", site.path)
    assert answer.code == 5 and "stopped" in answer.out and "0 of 40 seats" in answer.out
    assert cli("server", "stop", site.path).out.strip() == "it does not run"
