"""The hsmsign command: finds the subcommand, loads it, turns what goes wrong into words and an exit code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

from hsmsign.cli import failures
from hsmsign.cli.common import Session, shared
from hsmsign.model.errors import HsmsignError

# name -> (module:attribute, one line of help): --help loads none of them
_COMMANDS = {
    "key": ("hsmsign.cli.keys:key", "Make, show, attest, rotate and destroy keys."),
    "replica": ("hsmsign.cli.replicas:replica", "Let further tokens that hold a key sign for it."),
    "sign": ("hsmsign.cli.signing:sign", "Sign a file of any size."),
    "verify": ("hsmsign.cli.signing:verify", "Check a signature; exit code 0 valid, 1 not."),
    "csr": ("hsmsign.cli.csr:csr", "Make a certificate signing request (PKCS #10)."),
    "ca": ("hsmsign.cli.ca:ca", "Certificate authorities: make, show, rotate, cross-sign."),
    "cert": ("hsmsign.cli.certs:cert", "Certificates: issue, renew, revoke, list."),
    "crl": ("hsmsign.cli.crls:crl", "Certificate revocation lists."),
    "ocsp": ("hsmsign.cli.ocsp:ocsp", "Status of a certificate; files for servers that staple."),
    "approvals": ("hsmsign.cli.approvals:approvals", "Approve, or refuse, what others asked for."),
    "attest": ("hsmsign.cli.attest:attest", "Check offline where a key lives."),
    "audit": ("hsmsign.cli.audit:audit", "Read and check the audit log: tail, prove, check, verify."),
    "tls": ("hsmsign.cli.tls:tls", "Rights by client certificate, for applications: check rules."),
    "provider": (
        "hsmsign.cli.provider:provider",
        "Keys on devices for nginx, HAProxy, curl, openssl: OpenSSL's provider.",
    ),
    "backend": ("hsmsign.cli.backends:backend", "Show the devices behind the daemon."),
    "bench": ("hsmsign.cli.bench:bench", "Measure signatures of your key on your daemon."),
    "init": ("hsmsign.cli.init:init", "Make a configuration, a token and certificates. [server]"),
    "serve": ("hsmsign.cli.serve:serve", "Run the daemon. [server]"),
    "policy": ("hsmsign.cli.policy:policy", "Check a policy, and why it allows or denies. [server]"),
    "doctor": ("hsmsign.cli.doctor:doctor", "Look for what is wrong with a daemon and its devices. [server]"),
    "ssh-agent": ("hsmsign.cli.ssh_agent:ssh_agent", "Be an ssh-agent whose keys are on a device."),
    "completion": ("hsmsign.cli.about:completion", "Print a completion script for your shell."),
    "version": ("hsmsign.cli.about:version", "Print the version."),
}
_SERVER = ("init", "serve", "policy", "doctor")


class ReaderGone(Exception):
    """Whoever read our output went away."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. click would answer a closed pipe with 1, which here means "no"."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGone from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import it. Raises ClickException where a server's command is not installed."""
        if cmd_name not in _COMMANDS:
            return None
        home, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        try:
            command: click.Command = getattr(importlib.import_module(home), attribute)
        except ModuleNotFoundError as error:
            if cmd_name not in _SERVER:
                raise
            if ctx.resilient_parsing:  # a shell asks for completions: leave it out
                return None
            raise ServerMissing(cmd_name, str(error.name)) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """From the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, words) for name, (_, words) in _COMMANDS.items()])


class ServerMissing(click.ClickException):
    """A command of the daemon, where only the client is installed."""

    exit_code = failures.EX_UNAVAILABLE

    def __init__(self, command: str, module: str) -> None:
        super().__init__(
            f"'hsmsign {command}' belongs to the daemon, which is not installed ({module} is missing)."
            " Install it:  pip install 'hsmsign[server]'"
        )


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from hsmsign.cli.about import installed

        click.echo(f"hsmsign {installed()}")
        context.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@shared
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """Sign with keys that live on a device. A bare NAME means keys/NAME."""
    context.ensure_object(Session)


def main(arguments: Sequence[str]) -> int:
    """Run one command; its exit code."""
    session = Session()
    try:
        code = cli.main(list(arguments), prog_name="hsmsign", standalone_mode=False, obj=session)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (ReaderGone, BrokenPipeError):
        failures.silence_stdout()
        return failures.EX_PIPE
    except (HsmsignError, click.ClickException, click.Abort, KeyboardInterrupt, OSError) as error:
        return failures.report(error, session)
    except Exception as error:  # noqa: BLE001 - the last door: a person gets words, not a traceback
        return failures.report(error, session)
    finally:
        session.close()


def run() -> None:
    """The console script."""
    sys.exit(main(sys.argv[1:]))
