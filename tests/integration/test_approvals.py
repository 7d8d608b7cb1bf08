"""A root that signs, changes and goes only when two others have looked at it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from hsmsign.audit import reading
from hsmsign.client import Client
from hsmsign.model.algorithms import InputKind
from hsmsign.model.dual_control import ApprovalState, DualControl, Operation
from hsmsign.model.errors import (
    ApprovalRequiredError,
    BatchSizeError,
    OwnRequestError,
    PermissionDeniedError,
    PurposeError,
    VersionStateError,
)
from hsmsign.model.purpose import Purpose, PurposeKind
from tests.support.daemon import hsmsign
from tests.support.site import Site

RULES = """
[[allow]]
principals = ["spiffe://corp/ca"]
actions = ["sign", "read"]
keys = ["root*"]

[[allow]]
principals = ["spiffe://corp/officer/*"]
actions = ["approve"]
keys = ["root*"]
"""
ROOT = x509.Name.from_rfc4514_string("CN=Root")


class Room:
    """The site, its CA, and three officers."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(RULES)
        self.folder = folder

    def client(self, who: str) -> Client:
        """A client of that principal."""
        return self.site.client(self.folder / who.replace("/", "-"), self.site.certificate(who))

    def grant(self, name: str, *officers: str) -> ApprovalState:
        """Have officers grant a request; its state then."""
        for officer in officers:
            with self.client(f"officer/{officer}") as client:
                state = client.grant_approval(name).state
        return state


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    made = Room(tmp_path_factory.mktemp("room"))
    purpose = Purpose(PurposeKind.CA, "CN=Root", path_length=1)
    with made.site.daemon.client() as owner:
        owner.create_key("root", "ecdsa-p256", purpose=purpose, dual_control=DualControl(2, signing=True, within=3600))
        owner.create_key("root-2", "ecdsa-p256", dual_control=DualControl(1))
    yield made
    made.site.daemon.remove()


def sign_root(key) -> x509.Certificate:
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(ROOT)
        .subject_name(x509.Name.from_rfc4514_string("CN=Issuing \u0430"))
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=300))
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .sign(key, hashes.SHA256())
    )


def test_a_root_signs_exactly_what_two_others_have_seen(room: Room) -> None:
    with room.client("ca") as ca:
        key = ca.key("root")
        with pytest.raises(ApprovalRequiredError) as refused:
            sign_root(key)
        name = refused.value.metadata["approval"]
        with room.client("officer/ann") as ann:
            (seen,) = ann.approvals()
            assert (seen.name, seen.operation, seen.requester) == (name, Operation.SIGN, "spiffe://corp/ca")
            for words in ("certificate for CN=Issuing \\u0430", "CA, path length 0", "serial abc"):
                assert words in seen.summary
            assert b"Issuing" in seen.message
            with pytest.raises(PermissionDeniedError):
                ann.sign("root", message=seen.message)
        with pytest.raises(PermissionDeniedError):
            ca.grant_approval(name)
        assert room.grant(name, "ann") is ApprovalState.PENDING
        with pytest.raises(ApprovalRequiredError):
            sign_root(key)
        assert room.grant(name, "ben") is ApprovalState.GRANTED
        made = sign_root(key)
        key.public_key().verify(made.signature, made.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
        with pytest.raises(ApprovalRequiredError) as again:
            sign_root(key)
        assert again.value.metadata["approval"] != name
        ca.deny_approval(again.value.metadata["approval"])  # it is withdrawn
    said = [
        (record["event"], record.get("method"), record["outcome"])
        for record in map(json.loads, dict(reading.records(room.site.daemon.folder / "audit", 0)).values())
        if name in (record.get("approval"), record.get("key"))
    ]
    assert ("sign", None, "APPROVAL_REQUIRED") in said
    assert said.count(("call", "GrantApproval", "OK")) == 2
    assert said[-1] == ("sign", None, "OK")


def test_nobody_is_asked_about_what_is_never_signed(room: Room) -> None:
    with room.site.daemon.client() as owner, room.client("ca") as ca:
        owner.create_key("root-many", "ecdsa-p256", dual_control=DualControl(1, signing=True))
        before = {one.name for one in owner.approvals(everything=True)}
        with pytest.raises(PurposeError):
            ca.sign("root", message=b"anything")
        with pytest.raises(BatchSizeError, match="one input at a time"):
            ca.sign_batch("root-many", [b"a", b"b"], kind=InputKind.MESSAGE)
        assert {one.name for one in owner.approvals(everything=True)} == before


def test_a_device_that_fails_uses_no_approval_up(room: Room) -> None:
    with room.site.daemon.client() as owner, room.client("officer/ann") as ann:
        owner.create_key("root-digest", "ecdsa-p256", dual_control=DualControl(1, signing=True))
        with pytest.raises(ApprovalRequiredError) as refused:
            owner.sign("root-digest", digest=bytes(32))
        ann.grant_approval(refused.value.metadata["approval"])
        owner.disable_version("keys/root-digest/versions/1")
        with pytest.raises(VersionStateError):
            owner.sign("root-digest", digest=bytes(32))
        owner.enable_version("keys/root-digest/versions/1")
        assert owner.sign("root-digest", digest=bytes(32)).value


def test_the_owner_cannot_lift_the_control_alone(room: Room) -> None:
    with room.site.daemon.client() as owner:
        with pytest.raises(ApprovalRequiredError) as refused:
            owner.set_dual_control("root-2", DualControl())
        with pytest.raises(OwnRequestError):
            owner.grant_approval(refused.value.metadata["approval"])
        with pytest.raises(ApprovalRequiredError):
            owner.set_purpose("root-2", "jwt")
        assert owner.get_key("root-2").dual_control == DualControl(1)
        room.grant(refused.value.metadata["approval"], "ann")
        assert owner.set_dual_control("root-2", DualControl()).dual_control == DualControl()


def test_on_the_command_line_a_person_waits_and_another_says_yes(room: Room, tmp_path: Path) -> None:
    daemon, client = room.site.daemon, {"HSMSIGN_CLIENT": str(room.site.daemon.folder / "client.toml")}
    key, certificate = room.site.certificate("officer/cleo")
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "certificate.pem").write_bytes(certificate)
    officer = tmp_path / "client.toml"
    officer.write_text(
        f'endpoint = "dns:///{daemon.endpoints["tcp"]}"\nca = "{daemon.tls.ca}"\n'
        'certificate = "certificate.pem"\nkey = "key.pem"\n'
    )
    cleo = {"HSMSIGN_CLIENT": str(officer)}
    made = hsmsign("key", "create", "root-3", "-a", "ecdsa-p256", "--approvals", "1", environment=client)
    assert made.returncode == 0, made.stderr
    assert "1 others" in hsmsign("key", "show", "root-3", environment=client).stdout
    dry = hsmsign("key", "destroy", "root-3", "--dry-run", environment=client)
    assert "after 1 others have approved" in dry.stdout
    assert "nothing waits" in hsmsign("approvals", "list", "--key", "root-3", environment=client).stdout
    refused = hsmsign("--json", "key", "destroy", "root-3", "--yes", environment=client)
    error = json.loads(refused.stderr)["error"]
    assert (refused.returncode, error["reason"]) == (75, "APPROVAL_REQUIRED")
    id = error["metadata"]["approval"].removeprefix("approvals/")
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(hsmsign, "key", "destroy", "root-3", "--yes", "--wait", environment=client)
        assert "destroy keys/root-3/versions/1" in hsmsign("approvals", "show", id, environment=cleo).stdout
        granted = hsmsign("approvals", "grant", id, "--yes", environment=cleo)
        assert granted.returncode == 0, granted.stderr
        assert "1 of 1" in granted.stdout
        done = waits.result()
    assert (done.returncode, done.stdout) == (0, "destroyed keys/root-3/versions/1\n"), done.stderr
    listed = json.loads(hsmsign("--json", "approvals", "list", "--all", "--key", "root-3", environment=client).stdout)
    assert [one["state"] for one in listed] == ["used"]
