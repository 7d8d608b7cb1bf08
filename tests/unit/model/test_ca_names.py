"""Names of authorities, versions and certificates."""

from __future__ import annotations

import pytest

from hsmsign.model import ca_names
from hsmsign.model.ca_names import AuthorityName
from hsmsign.model.errors import ResourceNameError
from hsmsign.server import wire_pki
from hsmsign.v1 import authorities_pb2 as pb

BAD = ["", "issuing/1", "issuing\n", "\nissuing", "Issuing", "-a", "a-", "a" * 64, "ä", "a b", "../a", "a" * 100_000]


@pytest.mark.parametrize("text", ["issuing", "a", "a.b_c-d", "9", "a" * 63])
def test_an_authority_is_named_by_its_id(text: str) -> None:
    assert ca_names.authority(f"cas/{text}") == AuthorityName(text)
    assert str(ca_names.authority(f"cas/{text}/versions/7")) == f"cas/{text}/versions/7"
    assert ca_names.authority_id(f"cas/{text}") == text


@pytest.mark.parametrize("text", BAD)
def test_an_id_outside_the_grammar_names_nothing(text: str) -> None:
    for make in (AuthorityName, lambda id: AuthorityName(id, 1), lambda id: ca_names.authority(f"cas/{id}")):
        with pytest.raises(ResourceNameError) as found:
            make(text)
        assert len(found.value.message) < 150
        assert "\n" not in found.value.message


@pytest.mark.parametrize("number", [0, -1, 1_000_000_000, 1 << 70])
def test_a_version_is_a_number_within_bounds(number: int) -> None:
    with pytest.raises(ResourceNameError):
        AuthorityName("issuing", number)
    with pytest.raises(ResourceNameError):
        ca_names.version(f"cas/issuing/versions/{number}")
    assert AuthorityName("issuing", 999_999_999).number == 999_999_999


@pytest.mark.parametrize("text", ["issuing", "cas", "cas/a/versions", "cas/a/versions/01", "keys/a", "cas//versions/1"])
def test_what_is_no_name_of_an_authority_is_refused(text: str) -> None:
    with pytest.raises(ResourceNameError):
        ca_names.authority(text)


def test_an_authority_is_no_version_nor_the_other_way_round() -> None:
    with pytest.raises(ResourceNameError):
        ca_names.authority_id("cas/a/versions/1")
    with pytest.raises(ResourceNameError):
        ca_names.version("cas/a")


@pytest.mark.parametrize("text", BAD)
def test_a_request_with_a_bad_id_is_refused_before_anything_is_made_of_it(text: str) -> None:
    with pytest.raises(ResourceNameError):
        wire_pki.wish(pb.CreateAuthorityRequest(authority_id=text))
    with pytest.raises(ResourceNameError):
        wire_pki.order(pb.IssueCertificateRequest(authority=f"cas/{text}"), None)
    if text:
        with pytest.raises(ResourceNameError):
            wire_pki.wish(pb.CreateAuthorityRequest(authority_id="a", parent=f"cas/{text}"))
        with pytest.raises(ResourceNameError):
            wire_pki.wanted(pb.ListCertificatesRequest(authority=f"cas/{text}"))


def test_a_request_may_say_a_parent_and_what_a_list_is_of_with_or_without_cas() -> None:
    for text in ("root", "cas/root"):
        assert wire_pki.wish(pb.CreateAuthorityRequest(authority_id="a", parent=text)).parent == "root"
        assert wire_pki.wanted(pb.ListCertificatesRequest(authority=text)).authority == "root"
    assert wire_pki.wish(pb.CreateAuthorityRequest(authority_id="a")).parent == ""
    assert wire_pki.wanted(pb.ListCertificatesRequest()).authority == ""


@pytest.mark.parametrize("text", ["certificates/4F:0a", "4f0a", "certificates/0004f0a", "4F0A"])
def test_a_serial_number_is_read_as_other_programs_print_it(text: str) -> None:
    assert ca_names.certificate(text) == "4f0a"


@pytest.mark.parametrize("text", ["", "0", "certificates/", "xyz", "1" * 41, "4f\n", "4f/1"])
def test_what_is_no_serial_number_is_refused(text: str) -> None:
    with pytest.raises(ResourceNameError):
        ca_names.certificate(text)
