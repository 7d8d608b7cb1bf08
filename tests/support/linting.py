"""What linters say of certificates: pkilint, and zlint where it was built (`make zlint`, which needs Go)."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint import loader
from pkilint.pkix import certificate as lint
from pkilint.pkix import extension as lint_extension
from pkilint.pkix import name as lint_name
from pkilint.validation import ValidationFindingSeverity

ZLINT = shutil.which("zlint") or Path(__file__).parents[2] / "build" / "zlint" / "zlint"


def pkilint(made: x509.Certificate) -> list[str]:
    """Its findings, by the rules of RFC 5280."""
    container = lint.create_pkix_certificate_validator_container(
        lint.create_decoding_validators(lint_name.ATTRIBUTE_TYPE_MAPPINGS, lint_extension.EXTENSION_MAPPINGS),
        [
            lint.create_issuer_validator_container([]),
            lint.create_validity_validator_container(),
            lint.create_subject_validator_container([]),
            lint.create_extensions_validator_container([]),
            lint.create_spki_validator_container([]),
        ],
    )
    document = loader.load_certificate(made.public_bytes(Encoding.DER), "test")
    return [
        f"{one.finding.severity.name} {one.finding.code}: {one.message or ''}"
        for result in container.validate(document.root)
        for one in result.finding_descriptions
        if one.finding.severity <= ValidationFindingSeverity.NOTICE
    ]


def zlint(made: x509.Certificate, folder: Path) -> list[str]:
    """Its errors, by the rules that are not of the public web's CAs alone. Raises OSError where it is not there."""
    path = folder / "linted.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    command = [
        str(ZLINT),
        "-includeSources",
        "RFC3279,RFC5280,RFC5480,RFC5891,RFC8813,Community",
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(done.stdout)
    return [f"{name}: {said}" for name, said in found.items() if said["result"] in ("error", "fatal")]
