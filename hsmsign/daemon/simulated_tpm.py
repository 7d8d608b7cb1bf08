"""A TPM 2.0 in software, as a factory would hand it over: with an endorsement key, and its certificate from a CA of
its own (swtpm_setup, swtpm_localca)."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from hsmsign.model.errors import ConfigurationError

_PACKAGES = "Debian, Ubuntu: apt-get install swtpm swtpm-tools"
_OPTIONS = "--platform-manufacturer hsmsign\n--platform-version 1\n--platform-model simulator\n"


def make(folder: Path) -> bool:
    """Make `state/`, `ca/` and `ek-ca.pem` in `folder`; False where they are there. Raises ConfigurationError.

    `ek-ca.pem` is what a verifier is given, so that it can tell this TPM's certificate from others.
    """
    if (folder / "state").exists():
        return False
    setup, localca = shutil.which("swtpm_setup"), shutil.which("swtpm_localca")
    if setup is None or localca is None or shutil.which("swtpm") is None:
        raise ConfigurationError("a simulated TPM needs swtpm and swtpm_setup", hint=_PACKAGES)
    aside = Path(tempfile.mkdtemp(prefix=".made-", dir=folder))
    try:
        (aside / "state").mkdir(mode=0o700)
        (aside / "ca").mkdir(mode=0o700)
        _run_setup(setup, localca, aside)
        chain = [aside / "ca" / name for name in ("issuercert.pem", "swtpm-localca-rootca-cert.pem")]
        (folder / "ek-ca.pem").write_text("".join(part.read_text() for part in chain if part.exists()))
        shutil.rmtree(folder / "ca", ignore_errors=True)
        (aside / "ca").rename(folder / "ca")
        (aside / "state").rename(folder / "state")  # the last step: with it, all is there
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _run_setup(setup: str, localca: str, aside: Path) -> None:
    ca = aside / "ca"
    (ca / "localca.conf").write_text(
        f"statedir = {ca}\nsigningkey = {ca}/signkey.pem\nissuercert = {ca}/issuercert.pem\n"
        f"certserial = {ca}/certserial\n"
    )
    (ca / "localca.options").write_text(_OPTIONS)
    (ca / "setup.conf").write_text(
        f"create_certs_tool={localca}\ncreate_certs_tool_config={ca}/localca.conf\n"
        f"create_certs_tool_options={ca}/localca.options\n"
    )
    command = [setup, "--tpm2", "--tpmstate", str(aside / "state"), "--createek", "--create-ek-cert", "--lock-nvram"]
    done = subprocess.run(
        [*command, "--config", str(ca / "setup.conf")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(aside), "XDG_CONFIG_HOME": str(aside)},
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().rpartition("\n")[2]
        raise ConfigurationError(f"swtpm_setup could not make a TPM: {said}", hint=_PACKAGES)
