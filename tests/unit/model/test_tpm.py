from __future__ import annotations

import pytest

from hsmsign.model import tpm
from hsmsign.model.errors import UriError
from hsmsign.model.object_uri import parse
from hsmsign.model.tpm import Trouble


@pytest.mark.parametrize(
    ("rc", "name"),
    [
        (0x1DF, "TPM_RC_INTEGRITY"),  # of parameter 1
        (0x98E, "TPM_RC_AUTH_FAIL"),  # of session 1
        (0x18B, "TPM_RC_HANDLE"),  # of handle 1
        (0x921, "TPM_RC_LOCKOUT"),
        (0x100, "TPM_RC_INITIALIZE"),
        (0xC0921, "TPM_RC_LOCKOUT"),  # as a resource manager hands it on
        (0xA000A, "TSS2_TCTI_RC_0xA"),
        (0x7FF, "TPM_RC_0x7FF"),
    ],
)
def test_response_codes_have_the_names_of_the_specification(rc: int, name: str) -> None:
    assert tpm.name(rc) == name


@pytest.mark.parametrize("trouble", Trouble)
def test_a_code_comes_out_of_its_number_again(trouble: Trouble) -> None:
    assert tpm.read_code(tpm.code(0x1DF, trouble)) == (0x1DF, trouble)
    assert tpm.code(0x1DF, trouble) < 1 << 64


def test_a_pkcs11_return_value_is_no_tpm_code() -> None:
    assert tpm.read_code(0xFFFFFFFF) is None


def test_a_persistent_handle_is_an_id_of_four_bytes() -> None:
    assert parse("tpm2:handle=0x81010001").id == b"\x81\x01\x00\x01"
    assert parse("pkcs11:id=%01").id == b"\x01"


@pytest.mark.parametrize("text", ["tpm2:", "tpm2:handle=0x80000000", "tpm2:handle=81010001", "tpm2:handle=0x810100011"])
def test_what_names_no_persistent_handle_is_refused(text: str) -> None:
    with pytest.raises(UriError, match="persistent"):
        parse(text)
