"""CRLs in pieces: the judges are the builder and the parser of `cryptography`, and the openssl command."""

from __future__ import annotations

import datetime as dt
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsign.model.algorithms import Scheme
from hsmsign.model.purpose import Purpose, PurposeKind
from hsmsign.model.signed_der import wrap
from hsmsign.pki import crl
from hsmsign.pki.capturing import hash_of, padding_of
from hsmsign.pki.crl import CrlFacts, ShardName
from hsmsign.pki.crl_entries import Entry, encode_entries, encode_time
from hsmsign.purposes import Signer, check
from tests.support.private_keys import TestCa, openssl, private_key, signature, write_pem

NOW = dt.datetime(2026, 5, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
EC = Scheme.ECDSA_P256_SHA256
ROOT = x509.Name.from_rfc4514_string("CN=Root,O=Bücher & Söhne,C=DE")
URL = "http://ca.example.org/crl/root/1/0.crl"
HELD, BACK = x509.ReasonFlags.certificate_hold, x509.ReasonFlags.remove_from_crl
REASONS = [None, *x509.ReasonFlags]
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "delta": {"number": 7, "base": 5},
    "shard": {"shard": ShardName((URL,))},
    "shard of leaves": {"shard": ShardName((URL, "http://b.example.org/0.crl"), user_certificates_only=True)},
    "of CAs": {"shard": ShardName(ca_certificates_only=True)},
    "with deltas": {"freshest": ("http://ca.example.org/d.crl", "http://b.example.org/d.crl")},
    "shard with deltas": {"shard": ShardName((URL,)), "freshest": ("http://ca.example.org/d.crl",)},
    "delta of a shard": {"number": 2**150, "base": 2**150 - 1, "shard": ShardName((URL,))},
    "until 2060": {"next_update": NOW.replace(year=2060)},
}


def facts(scheme: Scheme = EC, **changes: Any) -> CrlFacts:
    given: dict[str, Any] = {"number": 5, "this_update": NOW, "next_update": NOW + DAY, **changes}
    return CrlFacts(issuer=ROOT, key_identifier=bytes(range(20)), scheme=scheme, **given)


def entries(count: int) -> list[Entry]:
    """Of all lengths and reasons."""
    return [
        Entry(
            (7919 * number + 1) << (number % 128),
            NOW - number * DAY,
            REASONS[number % len(REASONS)],
            NOW - number * dt.timedelta(hours=1) if number % 3 == 1 else None,
        )
        for number in range(count)
    ]


def built(told: CrlFacts, revoked: list[Entry]) -> x509.CertificateRevocationList:
    """The same CRL by the builder of `cryptography`."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(told.issuer)
    builder = builder.last_update(told.this_update).next_update(told.next_update)
    builder = builder.add_extension(x509.AuthorityKeyIdentifier(told.key_identifier, None, None), critical=False)
    builder = builder.add_extension(x509.CRLNumber(told.number), critical=False)
    if told.base is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(told.base), critical=True)
    if told.shard is not None:
        urls = [x509.UniformResourceIdentifier(url) for url in told.shard.urls] or None
        only = (told.shard.user_certificates_only, told.shard.ca_certificates_only)
        builder = builder.add_extension(
            x509.IssuingDistributionPoint(urls, None, *only, None, False, False), critical=True
        )
    if told.freshest:
        points = [x509.UniformResourceIdentifier(url) for url in told.freshest]
        freshest = x509.FreshestCRL([x509.DistributionPoint(points, None, None, None)])
        builder = builder.add_extension(freshest, critical=False)
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.revoked)
        if one.reason not in (None, x509.ReasonFlags.unspecified):
            entry = entry.add_extension(x509.CRLReason(one.reason), critical=False)
        if one.invalidity is not None:
            entry = entry.add_extension(x509.InvalidityDate(one.invalidity), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    key = private_key(told.scheme)
    return builder.sign(key, hash_of(told.scheme), rsa_padding=padding_of(told.scheme))


def pieces(told: CrlFacts, revoked: list[Entry], key: Any = None) -> Iterator[bytes]:
    """A CRL as it is written to disk: 100 entries at a time."""
    body = [encode_entries(revoked[at : at + 100]) for at in range(0, len(revoked), 100)]
    before, after = crl.frame(told, sum(map(len, body)))
    tbs = b"".join((before, *body, after))
    signed = signature(key or private_key(told.scheme), told.scheme, tbs)
    opening, closing = crl.close(told.scheme, len(tbs), signed)
    yield from (opening, before, *body, after, closing)


def parsed(told: CrlFacts, revoked: list[Entry], key: Any = None) -> x509.CertificateRevocationList:
    return x509.load_der_x509_crl(b"".join(pieces(told, revoked, key)))


def listed(*revoked: Entry) -> list[x509.RevokedCertificate]:
    return list(parsed(facts(), list(revoked)))


# --- what is written


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_a_crl_is_to_the_byte_what_cryptography_builds(kind: str, count: int) -> None:
    told, revoked = facts(**KINDS[kind]), entries(count)
    assert crl.build(told, encode_entries(revoked)) == built(told, revoked).tbs_certlist_bytes


@pytest.mark.parametrize("scheme", Scheme, ids=lambda scheme: scheme.name)
def test_a_crl_of_every_scheme_is_signed_as_its_issuer_signs(scheme: Scheme) -> None:
    told, revoked = facts(scheme), entries(3)
    found = parsed(told, revoked)
    assert found.is_signature_valid(private_key(scheme).public_key())
    assert found.tbs_certlist_bytes == built(told, revoked).tbs_certlist_bytes
    assert found.signature_algorithm_oid == built(told, revoked).signature_algorithm_oid


@pytest.mark.parametrize("count", [0, 1, 3, 250, 1000, 2000])
def test_the_pieces_are_the_whole(count: int) -> None:
    written = b"".join(pieces(facts(), entries(count)))
    found = x509.load_der_x509_crl(written)
    assert len(found) == count
    assert wrap(crl.build(facts(), encode_entries(entries(count))), EC, found.signature) == written


def test_a_crl_without_entries_has_no_list_of_them() -> None:
    before, after = crl.frame(facts(), 0)
    assert before.endswith(encode_time(NOW + DAY))
    assert after.startswith(b"\xa0")
    assert list(parsed(facts(), [])) == []


def test_a_crl_is_what_a_key_of_a_ca_signs() -> None:
    key = private_key(EC)
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    purpose = Purpose(PurposeKind.CA, ROOT.rfc4514_string()).check()
    for kind in KINDS.values():
        check(Signer("keys/k/versions/1", purpose, EC, spki), crl.build(facts(**kind), encode_entries(entries(2))))


def test_entries_of_a_large_crl_are_written_in_little_memory() -> None:
    pages = [(page * 2_000, (page + 1) * 2_000) for page in range(20)]
    size = 0
    encode_entries([Entry(1, NOW, x509.ReasonFlags.superseded)])
    tracemalloc.start()
    try:
        for first, last in pages:
            page = (Entry(2**158 + one, NOW, x509.ReasonFlags.superseded) for one in range(first, last))
            size += len(encode_entries(page))
        crl.frame(facts(), size)
        assert tracemalloc.get_traced_memory()[1] < size / 3
    finally:
        tracemalloc.stop()


# --- entries


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF, 0x8000, 2**63, 2**127, 2**158, 2**159 - 1])
def test_a_serial_number_of_any_length_is_on_the_crl(serial: int) -> None:
    assert [one.serial_number for one in listed(Entry(serial, NOW))] == [serial]
    assert crl.build(facts(), encode_entries([Entry(serial, NOW)])) == (
        built(facts(), [Entry(serial, NOW)]).tbs_certlist_bytes
    )


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_is_on_the_crl_unless_it_is_none(reason: x509.ReasonFlags | None) -> None:
    (found,) = listed(Entry(5, NOW, reason))
    if reason in (None, x509.ReasonFlags.unspecified):
        assert list(found.extensions) == []
    else:
        (one,) = found.extensions
        assert (one.value, one.critical) == (x509.CRLReason(reason), False)


def test_since_when_a_certificate_is_bad_is_on_the_crl() -> None:
    (found,) = listed(Entry(5, NOW, x509.ReasonFlags.key_compromise, NOW - DAY))
    assert found.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc == NOW - DAY


@pytest.mark.parametrize(
    ("time", "tag"),
    [
        (dt.datetime(1950, 1, 1, tzinfo=dt.UTC), 0x17),
        (dt.datetime(2049, 12, 31, 23, 59, 59, tzinfo=dt.UTC), 0x17),
        (dt.datetime(2049, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC), 0x17),
        (dt.datetime(2050, 1, 1, 0, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))), 0x17),
        (dt.datetime(2050, 1, 1, tzinfo=dt.UTC), 0x18),
        (dt.datetime(2049, 12, 31, 23, 30, tzinfo=dt.timezone(-dt.timedelta(hours=1))), 0x18),
        (dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC), 0x18),
    ],
)
def test_times_change_their_form_at_2050_in_utc(time: dt.datetime, tag: int) -> None:
    (found,) = listed(Entry(5, time, None, time))
    assert found.revocation_date_utc == time.replace(microsecond=0)
    assert encode_time(time)[0] == tag
    assert crl.build(facts(), encode_entries([Entry(5, time)])) == built(facts(), [Entry(5, time)]).tbs_certlist_bytes


@given(
    st.lists(
        st.builds(
            Entry,
            st.integers(1, 2**159 - 1),
            st.datetimes(dt.datetime(1950, 1, 2), dt.datetime(9999, 12, 30), timezones=st.timezones()),
            st.sampled_from(REASONS),
            st.none() | st.datetimes(dt.datetime(1950, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC)),
        ),
        max_size=5,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_entries_are_written_as_cryptography_writes_them(revoked: list[Entry]) -> None:
    assert crl.build(facts(), encode_entries(revoked)) == built(facts(), revoked).tbs_certlist_bytes


@pytest.mark.parametrize(
    ("serial", "revoked", "invalidity"),
    [
        (0, NOW, None),
        (-1, NOW, None),
        (2**159, NOW, None),
        (5, NOW.replace(tzinfo=None), None),
        (5, NOW, NOW.replace(tzinfo=None)),
    ],
)
def test_an_entry_that_no_certificate_can_have_is_refused(
    serial: int, revoked: dt.datetime, invalidity: dt.datetime | None
) -> None:
    with pytest.raises(ValueError, match="serial number"):
        Entry(serial, revoked, None, invalidity)


@pytest.mark.parametrize(
    "changes",
    [
        {"next_update": NOW},
        {"next_update": NOW - DAY},
        {"this_update": NOW.replace(tzinfo=None)},
        {"next_update": NOW.replace(tzinfo=None, year=2030)},
        {"number": -1},
        {"base": 6},
        {"base": -1},
        {"base": 4, "freshest": (URL,)},
    ],
)
def test_facts_that_contradict_each_other_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="CRL"):
        facts(**changes)


@pytest.mark.parametrize("given", [{}, {"user_certificates_only": True, "ca_certificates_only": True}])
def test_a_shard_that_is_no_part_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        ShardName(**given)


# --- the openssl command


class Scene:
    """A CA, a certificate of it, and CRLs that the openssl command judges them by."""

    def __init__(self, folder: Path, scheme: Scheme = EC) -> None:
        self.folder, self.ca = folder, TestCa.make(scheme)
        points = [x509.DistributionPoint([x509.UniformResourceIdentifier(URL)], None, None, None)]
        self.leaf = self.ca.issue(private_key(EC, "leaf"), x509.CRLDistributionPoints(points))
        write_pem(folder / "ca.pem", self.ca.certificate)
        write_pem(folder / "leaf.pem", self.leaf)

    def crl(self, *reasons: x509.ReasonFlags | None, **changes: Any) -> x509.CertificateRevocationList:
        """One on which the certificate is with that reason, if any, and two others are."""
        now = dt.datetime.now(dt.UTC)
        identifier = self.ca.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        told = facts(self.ca.scheme, this_update=now - DAY, next_update=now + DAY, **changes)
        told = replace(told, issuer=self.ca.name, key_identifier=identifier)
        own = [Entry(self.leaf.serial_number, now - DAY, reason) for reason in reasons]
        return parsed(told, [Entry(77, now - DAY), *own, Entry(78, now - DAY)], self.ca.key)

    def judge(self, *crls: x509.CertificateRevocationList, options: tuple[str, ...] = ()) -> tuple[int, str]:
        path = write_pem(self.folder / "crls.pem", *crls)
        where = ("-CAfile", self.folder / "ca.pem", "-CRLfile", path)
        return openssl("verify", "-crl_check", "-x509_strict", *options, *where, self.folder / "leaf.pem")


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


@pytest.mark.parametrize("scheme", Scheme, ids=lambda scheme: scheme.name)
def test_openssl_finds_the_signature_of_a_crl_right(tmp_path: Path, scheme: Scheme) -> None:
    scene = Scene(tmp_path, scheme)
    path = write_pem(tmp_path / "crl.pem", scene.crl())
    code, said = openssl("crl", "-in", path, "-CAfile", tmp_path / "ca.pem", "-verify", "-noout", "-text")
    assert (code, "verify OK" in said) == (0, True), said
    assert "Serial Number: 4D" in said


def test_openssl_finds_a_certificate_good_that_is_not_on_the_crl(scene: Scene) -> None:
    code, said = scene.judge(scene.crl())
    assert (code, "OK" in said) == (0, True), said


def test_openssl_finds_a_certificate_revoked_that_is_on_the_crl(scene: Scene) -> None:
    code, said = scene.judge(scene.crl(x509.ReasonFlags.key_compromise))
    assert code != 0
    assert "certificate revoked" in said


def test_openssl_reads_a_delta_beside_the_full_crl(scene: Scene) -> None:
    full = scene.crl(freshest=(URL + ".delta",))
    delta = scene.crl(x509.ReasonFlags.superseded, number=6, base=5)
    code, said = scene.judge(full, delta, options=("-use_deltas",))
    assert code != 0
    assert "certificate revoked" in said
    assert scene.judge(full, delta)[0] == 0


def test_openssl_takes_a_certificate_back_that_a_delta_removes(scene: Scene) -> None:
    full = scene.crl(HELD, freshest=(URL + ".delta",))
    assert scene.judge(full, options=("-use_deltas",))[0] != 0
    code, said = scene.judge(full, scene.crl(BACK, number=6, base=5), options=("-use_deltas",))
    assert code == 0, said


@pytest.mark.parametrize("leaves", [False, True])
def test_openssl_takes_the_crl_of_the_certificates_own_shard(scene: Scene, leaves: bool) -> None:
    own = ShardName((URL,), user_certificates_only=leaves)
    assert scene.judge(scene.crl(shard=own))[0] == 0
    code, said = scene.judge(scene.crl(None, shard=own))
    assert code != 0
    assert "certificate revoked" in said


@pytest.mark.parametrize("other", [ShardName(("http://ca.example.org/crl/root/1/1.crl",)), ShardName((), False, True)])
def test_openssl_takes_no_crl_of_another_shard(scene: Scene, other: ShardName) -> None:
    code, said = scene.judge(scene.crl(shard=other))
    assert code != 0
    assert "different CRL scope" in said.lower() or "scope" in said.lower(), said
