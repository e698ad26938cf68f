"""Joining a running Ray cluster: its address, whether it is open to everybody, and the token that it wants."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyconv_search.errors import UserError
from pyconv_search.search import probe

CONNECT_SECONDS = 5.0
# Of which most is the import of Ray; a port that speaks something else takes the probe 15.
PROBE_SECONDS = 60.0
# What Ray waits for a cluster that does not answer, for the probe alone.
PROBE_WAITS = {"RAY_gcs_rpc_server_reconnect_timeout_s": "3"}


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running Ray cluster at ``address`` (``HOST:PORT`` or ``auto``).

    ``insecure``: join it even where it answers without a token, so that whoever reaches its port can run programs on
    its machines.
    """

    address: str
    insecure: bool = False


def admitted(cluster: Cluster) -> tuple[str, str]:
    """The ``HOST:PORT`` of a cluster that will let us in, and Ray's authentication mode for it: token, or disabled.

    Raises:
        UserError: if nothing answers there, the cluster is open and that was not accepted, or our token is not its own.
    """
    address = _reached(cluster.address)
    answer = _asked(address)
    where = f"--address {cluster.address}"
    if answer == probe.OPEN and not cluster.insecure:
        raise UserError(
            f"{where}: this cluster answers without a token, so whoever reaches the port can run programs on its "
            "machines. Stop it and start it with a token: 'ray get-auth-token --generate', and RAY_AUTH_MODE=token "
            "for 'ray start' on every machine (README, A cluster). To join it as it is, add --insecure"
        )
    if answer == probe.MISSING:
        raise UserError(
            f"{where}: this cluster wants its token, and there is none here: copy the head's ~/.ray/auth_token to "
            "~/.ray/auth_token, readable by you alone (chmod 600)"
        )
    if answer == probe.REFUSED:
        raise UserError(
            f"{where}: this cluster wants another token than the one in {token_place()}: copy the head's "
            "~/.ray/auth_token there, readable by you alone (chmod 600)"
        )
    if answer == probe.SILENT:
        raise UserError(f"{where}: something listens there, but it does not answer as Ray does; is it the head's port?")
    return address, "disabled" if answer == probe.OPEN else "token"


def token_place() -> str:
    """Where Ray reads the token of this user from, in words."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the environment variable RAY_AUTH_TOKEN"
    return os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"


@contextmanager
def authentication(mode: str, token: str | None = None) -> Iterator[None]:
    """Let Ray in this process, and in those that it starts, show a token or not; ``token``: instead of the user's own.

    Ray reads the mode when it is imported and keeps the token that it read first.
    """
    wanted = {"RAY_AUTH_MODE": mode} | ({} if token is None else {"RAY_AUTH_TOKEN": token})
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    _read_again()
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
        _read_again()


def _read_again() -> None:
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _reached(address: str) -> str:
    """The ``HOST:PORT`` that is meant, after a quick look whether anything listens there; Ray would try for minutes."""
    found = _automatic() if address == "auto" else address
    if found.startswith("ray://"):
        raise UserError(
            f"--address {found}: Ray Client is not supported; run on a machine of the cluster, with HOST:PORT"
        )
    host, _, port = found.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--address {found}: must be host:port, as 'ray start --head' prints it, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        reason = f"cannot be reached: {error}; is the cluster's head running there?"
        raise UserError(f"--address {found}: {reason}") from None
    return found


def _automatic() -> str:
    """What Ray takes for the running cluster of this machine."""
    from ray._private import services

    try:
        found = services.canonicalize_bootstrap_address("auto")
    except Exception as error:  # Ray's own kinds are many
        raise UserError(f"--address auto: {' '.join(str(error).split())[:200]}") from None
    if found is None:
        raise UserError("--address auto: no running cluster was found on this machine; give HOST:PORT")
    return str(found)


def _asked(address: str) -> str:
    """The word of :mod:`pyconv_search.search.probe` for a cluster."""
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pyconv_search.search.probe", address],
            env={**os.environ, **PROBE_WAITS, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return probe.SILENT
    said = done.stdout.split()
    return said[-1] if said else probe.SILENT
