"""What a cluster answered decides whether it is joined, and how; the answers themselves are in tests/cluster."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from ray._raylet import AuthenticationMode, AuthenticationTokenLoader, get_authentication_mode

from pyconv_search.errors import UserError
from pyconv_search.search import probe
from pyconv_search.search.joining import Cluster, admitted, authentication


@pytest.fixture
def address() -> Iterator[str]:
    """Where something listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the cluster answer so."""

    def say(word: str) -> None:
        done = subprocess.CompletedProcess([], 0, stdout=f"{word}\n", stderr="")
        monkeypatch.setattr(subprocess, "run", lambda *words, **options: done)

    return say


@pytest.mark.parametrize(
    ("word", "insecure", "mode"),
    [(probe.ADMITTED, False, "token"), (probe.ADMITTED, True, "token"), (probe.OPEN, True, "disabled")],
)
def test_joined(word: str, insecure: bool, mode: str, address: str, answer: Any) -> None:
    answer(word)
    assert admitted(Cluster(address, insecure)) == (address, mode)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        (probe.OPEN, ["answers without a token", "run programs", "ray get-auth-token --generate", "RAY_AUTH_MODE=token",
                      "--insecure"]),
        (probe.MISSING, ["there is none here", "~/.ray/auth_token", "chmod 600"]),
        (probe.REFUSED, ["another token", "the environment variable RAY_AUTH_TOKEN"]),
        (probe.SILENT, ["does not answer as Ray does"]),
        ("", ["does not answer as Ray does"]),
    ],
)  # fmt: skip
def test_refused(word: str, wanted: list[str], address: str, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    answer(word)
    with pytest.raises(UserError) as caught:
        admitted(Cluster(address))
    said = str(caught.value)
    assert said.startswith(f"--address {address}: ")
    assert [text for text in wanted if text not in said] == []
    assert "mine" not in said


def test_a_probe_that_hangs(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(words: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(words, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UserError, match="does not answer as Ray does"):
        admitted(Cluster(address))


@pytest.mark.parametrize(
    ("wrong", "wanted"),
    [
        ("ray://head:10001", "Ray Client is not supported"),
        ("head", "must be host:port"),
        ("head:port", "must be host:port"),
        (":6379", "must be host:port"),
        ("127.0.0.1:99999", "cannot be reached"),
        ("127.0.0.1:1", "cannot be reached"),
        ("a..b:6379", "cannot be reached"),
        (f"{'x' * 70}.example:6379", "cannot be reached"),
    ],
)
def test_addresses_that_are_none(wrong: str, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted):
        admitted(Cluster(wrong))


def test_auto_is_what_ray_takes_it_for(address: str, answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray._private.services.get_node_ip_address", lambda: "127.0.0.1")
    answer(probe.ADMITTED)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert admitted(Cluster("auto")) == (address, "token")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="--address auto: Invalid address format: ray://head:10001"):
        admitted(Cluster("auto"))
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr("ray._private.services.canonicalize_bootstrap_address", lambda address: None)
    with pytest.raises(UserError, match="--address auto: no running cluster was found"):
        admitted(Cluster("auto"))


def test_ray_reads_mode_and_token_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process that has imported Ray long before; and what was there before stands again."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    loader = AuthenticationTokenLoader.instance()
    with authentication("token", "b" * 64):
        assert get_authentication_mode() == AuthenticationMode.TOKEN
        assert loader.get_raw_token() == "b" * 64
        with authentication("disabled"):
            assert get_authentication_mode() == AuthenticationMode.DISABLED
        assert get_authentication_mode() == AuthenticationMode.TOKEN
    assert loader.get_raw_token(ignore_auth_mode=True) == "a" * 64
    assert get_authentication_mode() == AuthenticationMode.DISABLED
    assert "RAY_AUTH_MODE" not in os.environ
