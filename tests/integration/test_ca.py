"""A certificate authority on device keys, as callers and relying parties meet it; what it makes is judged by others."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import verification

from hsmsign.client import CertificateState
from hsmsign.model.dual_control import DualControl
from hsmsign.model.errors import (
    AlreadyRevokedError,
    ApprovalRequiredError,
    AuthorityExistsError,
    AuthorityNotFoundError,
    AuthorityStateError,
    CertificateNotFoundError,
    CsrError,
    FailedPreconditionError,
    HsmsignError,
    InvalidArgumentError,
    PermissionDeniedError,
    ProfileError,
    ProfileNotFoundError,
    PurposeError,
    ResourceNameError,
)
from hsmsign.model.purpose import Purpose, PurposeKind
from tests.support.daemon import Daemon, eventually
from tests.support.pki import URL, Files, fetch, make_csr, make_hierarchy, openssl, with_ca


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    running = with_ca()(Daemon()).start()
    with running.client() as client:
        make_hierarchy(client)
    yield running
    running.remove()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def chain_files(daemon: Daemon, files: Files) -> tuple[Path, Path]:
    """The root and the issuing authority."""
    with daemon.client() as client:
        root, issuing = client.ca.get("root").primary, client.ca.get("issuing").primary
    assert root is not None
    assert issuing is not None
    return files.put("root.pem", root.certificate), files.put("issuing.pem", issuing.certificate)


def test_what_it_issues_is_accepted_by_openssl_and_by_cryptography(daemon: Daemon, files: Files) -> None:
    root, issuing = chain_files(daemon, files)
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr("web.example.org"), profile="server")
        assert made.state is CertificateState.ISSUED
        assert made.names == ("dns:web.example.org",)
        assert client.ca.certificate(made.serial) == made
        assert client.ca.certificate(f"0{made.serial.upper()}") == made
    leaf = files.put("leaf.pem", made)
    good, words = files.verify(leaf, root, "-purpose", "sslserver", untrusted=[issuing])
    assert good, words
    served = x509.load_pem_x509_certificates(made.chain.encode())
    assert [one.subject.rfc4514_string() for one in served] == ["", "CN=Example Issuing,O=Example"]
    store = verification.Store(x509.load_pem_x509_certificates(root.read_bytes()))
    verifier = verification.PolicyBuilder().store(store).build_server_verifier(x509.DNSName("web.example.org"))
    assert len(verifier.verify(served[0], served[1:])) == 3


def test_certificates_say_where_everything_is_found_and_it_is_there(daemon: Daemon) -> None:
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr("web.example.org"), profile="server").certificate
    access = made.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    found = {one.access_method: one.access_location.value for one in access}
    issuer = fetch(daemon, found[x509.AuthorityInformationAccessOID.CA_ISSUERS].removeprefix(URL))
    assert issuer.headers["content-type"] == "application/pkix-cert"
    made.verify_directly_issued_by(x509.load_der_x509_certificate(issuer.body))
    points = made.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    path = points[0].full_name[0].value.removeprefix(URL)
    crl = eventually(lambda: page if (page := fetch(daemon, path)).status == 200 else None, "there is no CRL")
    assert crl.headers["content-type"] == "application/pkix-crl"
    assert x509.load_der_x509_crl(crl.body).issuer == made.issuer
    assert found[x509.AuthorityInformationAccessOID.OCSP] == f"{URL}/ocsp"


def test_a_revoked_certificate_is_on_the_crl_and_openssl_rejects_it(daemon: Daemon, files: Files) -> None:
    root, issuing = chain_files(daemon, files)
    since = dt.datetime.now(dt.UTC).replace(microsecond=0) - dt.timedelta(days=3)
    with daemon.client() as client:
        bad, good = (client.ca.issue("issuing", make_csr("a.example.org"), profile="server") for _ in range(2))
        done = client.ca.revoke(bad.serial, reason="keyCompromise", invalidity=since)
        assert (done.state, done.reason, done.invalidity) == (CertificateState.REVOKED, "keyCompromise", since)

        def crl() -> x509.CertificateRevocationList | None:
            found = x509.load_der_x509_crl(b"".join(client.ca.crl("issuing")))
            return found if found.get_revoked_certificate_by_serial_number(int(bad.serial, 16)) else None

        found = eventually(crl, "it never came onto the CRL")
    entry = found.get_revoked_certificate_by_serial_number(int(bad.serial, 16))
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc == since
    pem = files.put("crl.pem", found.public_bytes(Encoding.PEM))
    assert openssl("crl", "-in", pem, "-noout", "-verify", "-CAfile", issuing).returncode == 0
    options = ("-crl_check", "-CRLfile", pem)
    accepted, words = files.verify(files.put("good.pem", good), root, *options, untrusted=[issuing])
    assert accepted, words
    accepted, words = files.verify(files.put("bad.pem", bad), root, *options, untrusted=[issuing])
    assert not accepted
    assert "certificate revoked" in words


def test_revoking_twice_and_revoking_nothing(daemon: Daemon) -> None:
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr("a.example.org"), profile="server")
        first = client.ca.revoke(made.serial, reason="superseded")
        assert client.ca.revoke(made.serial, reason="superseded") == first
        with pytest.raises(AlreadyRevokedError, match="superseded"):
            client.ca.revoke(made.serial, reason="privilegeWithdrawn")
        worse = client.ca.revoke(made.serial, reason="keyCompromise")
        assert (worse.reason, worse.revoked) == ("keyCompromise", first.revoked)
        with pytest.raises(CertificateNotFoundError):
            client.ca.revoke("1234", reason="superseded")
        with pytest.raises(InvalidArgumentError, match="no reason"):
            client.ca.revoke(made.serial, reason="certificateHold")
        with pytest.raises(ResourceNameError):
            client.ca.revoke("not a serial number")
        tomorrow = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
        with pytest.raises(InvalidArgumentError, match="future"):
            client.ca.revoke(made.serial, invalidity=tomorrow)


def test_the_same_request_again_is_the_same_certificate(daemon: Daemon) -> None:
    csr, again = make_csr("a.example.org"), str(uuid.uuid4())
    with daemon.client() as client:
        first = client.ca.issue("issuing", csr, profile="server", request_id=again)
        assert client.ca.issue("issuing", csr, profile="server", request_id=again) == first
        assert client.ca.issue("issuing", csr, profile="server").serial != first.serial
        with pytest.raises(FailedPreconditionError, match="used for another request"):
            client.ca.issue("issuing", make_csr("b.example.org"), profile="server", request_id=again)


def test_many_at_once_are_answered_each_for_itself(daemon: Daemon) -> None:
    csrs: list[x509.CertificateSigningRequest | bytes] = [make_csr(f"n{n}.example.org") for n in range(40)]
    csrs[7], csrs[11] = make_csr("www.example.com"), b"no request"
    with daemon.client() as client:
        made = client.ca.issue_many("issuing", csrs, profile="server")
        failed = {n: type(one) for n, one in enumerate(made) if isinstance(one, HsmsignError)}
        assert failed == {7: ProfileError, 11: CsrError}
        serials = {one.serial for one in made if not isinstance(one, HsmsignError)}
        assert len(serials) == 38
        listed = {one.serial for one in client.ca.certificates(text=".example.org")}
        assert serials <= listed


def test_a_dry_run_issues_nothing(daemon: Daemon) -> None:
    with daemon.client() as client:
        before = [one.serial for one in client.ca.certificates()]
        would = client.ca.issue("issuing", make_csr("dry.example.org"), profile="server", validate_only=True)
        assert (would.names, would.der) == (("dns:dry.example.org",), b"")
        assert [one.serial for one in client.ca.certificates()] == before
        client.ca.create("never", subject="CN=Never", validate_only=True)
        with pytest.raises(AuthorityNotFoundError):
            client.ca.get("never")
        assert "keys/never" not in {one.name for one in client.list_keys()}


def test_a_key_of_the_daemon_gets_a_certificate_without_a_request(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.create_key("web", "ecdsa-p256", purpose=PurposeKind.TLS_SERVER)
        made = client.ca.issue("issuing", profile="server", key="web", names=["dns:web.example.org"])
        assert made.certificate.public_key() == client.public_key("web")
        with pytest.raises(InvalidArgumentError):
            client.ca.issue("issuing", make_csr("a.example.org"), profile="server", key="web")
        with pytest.raises(InvalidArgumentError, match="is no name"):
            client.ca.issue("issuing", profile="server", key="web", names=["web.example.org"])


def test_what_does_not_fit_is_said(daemon: Daemon) -> None:
    with daemon.client() as client:
        csr = make_csr("web.example.org")
        with pytest.raises(AuthorityNotFoundError):
            client.ca.issue("nobody", csr, profile="server")
        with pytest.raises(ProfileNotFoundError, match="did you mean 'server'"):
            client.ca.issue("issuing", csr, profile="servr")
        with pytest.raises(ProfileError, match=r"www\.example\.com"):
            client.ca.issue("issuing", make_csr("www.example.com"), profile="server")
        with pytest.raises(AuthorityExistsError):
            client.ca.create("issuing", subject="CN=Another")
        with pytest.raises(InvalidArgumentError, match="path length"):
            client.ca.create("deep", subject="CN=Deep", parent="issuing", path_length=0)
        with pytest.raises(InvalidArgumentError):
            client.ca.create("bad", subject="not a name")
        client.create_key("for-all", "ecdsa-p256")
        with pytest.raises(FailedPreconditionError, match="for it alone"):
            client.ca.create("shares", subject="CN=Shares", key="for-all")


def test_the_key_of_an_authority_signs_for_it_alone(daemon: Daemon) -> None:
    """Also for who may sign with it: the daemon's own issuing is not a way around."""
    with daemon.client() as client:
        assert client.get_key("issuing").purpose == Purpose(PurposeKind.CA, "CN=Example Issuing,O=Example")
        with pytest.raises(PurposeError):
            client.sign("issuing", message=b"anything")


def test_who_may_issue_need_not_be_able_to_sign_and_the_other_way_round(daemon: Daemon) -> None:
    policy = daemon.folder / "policy.toml"
    before = policy.read_text()
    mine = f"unix:{daemon.folder.stat().st_uid}"
    only = before.replace(f'"{mine}"', '"unix:1"') + (
        f'\n[[allow]]\nprincipals = ["{mine}"]\nactions = ["ACTION"]\nkeys = ["issuing"]\n'
    )
    try:
        for action, issues, revokes in (("issue", True, False), ("sign", False, False), ("revoke", False, True)):
            policy.write_text(only.replace("ACTION", action))
            reload(daemon)
            with daemon.client() as owner, daemon.unix_client() as client:
                made = owner.ca.issue("issuing", make_csr("a.example.org"), profile="server")
                outcomes = []
                for work in (
                    lambda: client.ca.issue("issuing", make_csr("a.example.org"), profile="server"),
                    lambda: client.ca.revoke(made.serial),  # noqa: B023
                ):
                    try:
                        work()
                        outcomes.append(True)
                    except PermissionDeniedError:
                        outcomes.append(False)
                assert outcomes == [issues, revokes], action
                with pytest.raises(PermissionDeniedError):
                    client.ca.issue("nobody", make_csr("a.example.org"), profile="server")
    finally:
        policy.write_text(before)
        reload(daemon)


def reload(daemon: Daemon) -> None:
    """SIGHUP, and wait until the new worker serves."""
    import signal

    worker = daemon.pid("worker")
    daemon.kill("supervisor", signal.SIGHUP)
    eventually(lambda: daemon.pid("worker") != worker, "it did not reload")


def test_a_new_version_issues_beside_the_old_one(daemon: Daemon, files: Files) -> None:
    with daemon.client() as client:
        client.ca.create("turning", subject="CN=Turning,O=Example", parent="root")
        old = client.ca.issue("turning", make_csr("old.example.org"), profile="server")
        before = client.ca.trust_bundle().sequence
        staged = client.ca.rotate("turning", staged=True)
        assert staged.primary_version == "cas/turning/versions/1"
        assert client.ca.trust_bundle().sequence > before
        chosen = client.ca.update("turning", primary=2, retire=1)
        assert chosen.primary_version == "cas/turning/versions/2"
        assert client.get_key("turning").primary_version == "keys/turning/versions/2"
        new = client.ca.issue("turning", make_csr("new.example.org"), profile="server")
        root = client.ca.get("root").primary
        assert root is not None
        roots = files.put("root.pem", root.certificate)
        both = files.put("both.pem", *(one.certificate for one in chosen.versions))
        crls = []
        for number in (1, 2):  # the retired one goes on telling what it revoked
            published = b"".join(client.ca.crl(f"turning/versions/{number}"))
            crls.append(x509.load_der_x509_crl(published).public_bytes(Encoding.PEM))
        pem = files.put("crls.pem", *crls)
        for name, leaf in (("old.pem", old), ("new.pem", new)):
            options = ("-crl_check", "-CRLfile", pem)
            good, words = files.verify(files.put(name, leaf), roots, *options, untrusted=[both])
            assert good, words
        with pytest.raises(AuthorityStateError, match="retired"):
            client.ca.update("turning", primary=1)


def test_a_cross_signed_root_leads_to_the_old_one(daemon: Daemon, files: Files) -> None:
    with daemon.client() as client:
        old = client.ca.create("old-root", subject="CN=Old Root,O=Example", path_length=2).primary
        client.ca.create("new-root", subject="CN=New Root,O=Example", path_length=1)
        client.ca.create("under", subject="CN=Under,O=Example", parent="new-root")
        crossed = client.ca.cross_sign("new-root", "old-root").primary
        under = client.ca.get("under").primary
        leaf = client.ca.issue("under", make_csr("a.example.org"), profile="server")
        assert old is not None
        assert under is not None
        assert crossed is not None
        assert crossed.cross_certificates in client.ca.trust_bundle().intermediates
        with pytest.raises(AuthorityStateError, match="path length"):
            client.ca.cross_sign("old-root", "new-root")
    good, words = files.verify(
        files.put("leaf.pem", leaf),
        files.put("old.pem", old.certificate),
        untrusted=[files.put("above.pem", under.certificate, crossed.cross_certificates)],
    )
    assert good, words


def test_an_outside_root_signs_its_request(daemon: Daemon, files: Files) -> None:
    key, root = files.folder / "outside.key", files.folder / "outside.pem"
    made = openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes", "-days", "30",
        "-subj", "/CN=Outside Root", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", key, "-out", root,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with daemon.client() as client:
        waiting = client.ca.create("below-outside", subject="CN=Below Outside,O=Example", external=True)
        assert waiting.primary_version == ""
        csr = files.put("below.csr", waiting.versions[0].csr)
        assert "verify OK" in (done := openssl("req", "-in", csr, "-noout", "-verify")).stdout + done.stderr
        with pytest.raises(AuthorityStateError, match="waits for its certificate"):
            client.ca.issue("below-outside", make_csr("a.example.org"), profile="server")
        extensions = files.put(
            "ext", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
        )  # fmt: skip
        signed = openssl(
            "x509", "-req", "-in", csr, "-CA", root, "-CAkey", key, "-days", "20", "-extfile", extensions,
            "-out", files.folder / "below.pem",
        )  # fmt: skip
        assert signed.returncode == 0, signed.stderr
        below = (files.folder / "below.pem").read_text()
        with pytest.raises(InvalidArgumentError, match="Outside Root is missing"):
            client.ca.import_chain("below-outside", below)
        with pytest.raises(InvalidArgumentError, match="no certificate of the chain"):
            client.ca.import_chain("below-outside", root.read_text())
        done = client.ca.import_chain("below-outside", root.read_text() + below)
        assert done.primary_version == "cas/below-outside/versions/1"
        leaf = client.ca.issue("below-outside", make_csr("a.example.org"), profile="server")
    good, words = files.verify(files.put("leaf.pem", leaf), root, untrusted=[files.folder / "below.pem"])
    assert good, words


def test_a_root_under_dual_control_signs_exactly_what_was_approved(daemon: Daemon, files: Files) -> None:
    with daemon.client() as client, daemon.unix_client() as officer:
        purpose = Purpose(PurposeKind.CA, "CN=Guarded Root,O=Example", path_length=1)
        client.create_key("guarded", "ecdsa-p256", purpose=purpose, dual_control=DualControl(1, signing=True))

        def approved(work):  # type: ignore[no-untyped-def]
            with pytest.raises(ApprovalRequiredError) as error:
                work()
            officer.grant_approval(error.value.metadata["approval"])
            return work()

        root = approved(lambda: client.ca.create("guarded", subject="CN=Guarded Root,O=Example", path_length=1))
        below = approved(
            lambda: client.ca.create("guarded-below", subject="CN=Guarded Below,O=Example", parent="guarded")
        )
    good, words = files.verify(
        files.put("below.pem", below.primary.certificate), files.put("root.pem", root.primary.certificate)
    )
    assert good, words


@pytest.mark.parametrize("algorithm", ["ecdsa-p384", "rsa-2048", "ed25519"])
def test_authorities_of_other_algorithms(daemon: Daemon, files: Files, algorithm: str) -> None:
    name = f"of-{algorithm}"
    with daemon.client() as client:
        root = client.ca.create(
            name, subject=f"CN={name}", algorithm=algorithm, pss=algorithm.startswith("rsa")
        ).primary
        leaf = client.ca.issue(name, make_csr("a.example.org"), profile="server")
        client.ca.publish_crls(name)
        crl = x509.load_der_x509_crl(b"".join(client.ca.crl(name)))
        assert root is not None
    pem = files.put("crl.pem", crl.public_bytes(Encoding.PEM))
    options = ("-crl_check", "-CRLfile", pem)
    good, words = files.verify(files.put("leaf.pem", leaf), files.put("root.pem", root.certificate), *options)
    assert good, words


def test_names_of_an_authority_are_constrained_in_its_certificate_and_by_its_key(daemon: Daemon, files: Files) -> None:
    with daemon.client() as client:
        root = client.ca.create("narrow", subject="CN=Narrow,O=Example", permitted_names=["dns:a.example.org"]).primary
        assert root is not None
        inside = client.ca.issue("narrow", make_csr("a.example.org"), profile="server")
        with pytest.raises(PurposeError, match=r"a\.example\.org"):
            client.ca.issue("narrow", make_csr("b.example.org"), profile="server")
        pending = [one for one in client.ca.certificates(authority="narrow") if one.state is CertificateState.PENDING]
        assert pending == []
    good, words = files.verify(files.put("leaf.pem", inside), files.put("root.pem", root.certificate))
    assert good, words


def test_an_authority_below_a_narrow_one_is_as_narrow(daemon: Daemon, files: Files) -> None:
    with daemon.client() as client:
        root = client.ca.create(
            "narrow-root", subject="CN=Narrow Root,O=Example", path_length=1, permitted_names=["dns:example.org"]
        ).primary
        with pytest.raises(InvalidArgumentError, match=r"example\.com is outside"):
            client.ca.create("wider", subject="CN=Wider", parent="narrow-root", permitted_names=["dns:example.com"])
        below = client.ca.create("narrow-below", subject="CN=Narrow Below,O=Example", parent="narrow-root").primary
        leaf = client.ca.issue("narrow-below", make_csr("a.example.org"), profile="server")
        assert client.get_key("narrow-below").purpose.permitted_names == ("dns:example.org",)
        with pytest.raises(PurposeError):
            client.ca.issue("narrow-below", make_csr("uri:spiffe://example.org/x"), profile="client")
    assert root is not None
    assert below is not None
    good, words = files.verify(
        files.put("leaf.pem", leaf),
        files.put("root.pem", root.certificate),
        untrusted=[files.put("below.pem", below.certificate)],
    )
    assert good, words


def test_shards_have_crls_of_their_own_and_certificates_say_which(daemon: Daemon, files: Files) -> None:
    with daemon.client() as client:
        root = client.ca.create("sharded", subject="CN=Sharded,O=Example", shards=4).primary
        assert root is not None
        leaves = [client.ca.issue("sharded", make_csr("a.example.org"), profile="server") for _ in range(12)]
        for leaf in leaves:
            client.ca.revoke(leaf.serial)
        client.ca.publish_crls("sharded")
        seen = set()
        for leaf in leaves:
            points = leaf.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
            url = points[0].full_name[0].value
            crl = x509.load_der_x509_crl(fetch(daemon, url.removeprefix(URL)).body)
            name = crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value.full_name
            assert [one.value for one in name] == [url]
            assert crl.get_revoked_certificate_by_serial_number(int(leaf.serial, 16)) is not None
            seen.add(url)
        assert len(seen) > 1
        numbers = [one.number for one in client.ca.get("sharded").versions[0].crls]
        assert len(set(numbers)) == 4
    options = ("-crl_check", "-extended_crl", "-CRLfile", files.put("crl.pem", crl.public_bytes(Encoding.PEM)))
    good, words = files.verify(files.put("leaf.pem", leaves[-1]), files.put("root.pem", root.certificate), *options)
    assert not good
    assert "certificate revoked" in words


def test_everything_is_in_the_audit_log(daemon: Daemon) -> None:
    with daemon.client() as client:
        made = client.ca.issue("issuing", make_csr("log.example.org"), profile="server")
        with pytest.raises(ProfileError):
            client.ca.issue("issuing", make_csr("www.example.com"), profile="server")
        client.ca.revoke(made.serial)
        records = [json.loads(record) for _, record in client.audit_records(last=40)]
    said = [(one.get("method"), one.get("key"), one.get("outcome")) for one in records if one["event"] == "call"]
    assert ("IssueCertificate", "cas/issuing", "OK") in said
    assert ("IssueCertificate", "cas/issuing", "PROFILE_MISMATCH") in said
    assert ("RevokeCertificate", f"certificates/{made.serial}", "OK") in said
    signed = [one for one in records if one["event"] == "sign" and one["key"] == "keys/issuing/versions/1"]
    assert signed[-1]["principal"] in ("spiffe://hsmsign/client/root", "hsmsign:ca")


def test_an_ec_key_with_another_curve_is_no_key_for_a_certificate(daemon: Daemon) -> None:
    csr = make_csr("a.example.org", key=ec.generate_private_key(ec.SECP256K1()))
    with daemon.client() as client, pytest.raises(HsmsignError) as error:
        client.ca.issue("issuing", csr, profile="server")
    assert error.value.code == "INVALID_ARGUMENT"
