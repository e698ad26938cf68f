"""What the package and its documents say of the defaults of Ray and PyTorch is so, in the versions at hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import torch
from ray._private import services
from ray._private.authentication import authentication_token_setup

from pyconv_search.search.connection import ENVIRONMENT
from pyconv_search.search.local import loopback
from pyconv_search.training import allocator


def test_rays_token_is_readable_for_every_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which is why the README makes it under a umask and sets its mode."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0o022)
    try:
        authentication_token_setup.generate_and_save_token()
    finally:
        os.umask(before)
    assert (tmp_path / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o644


def test_ray_replaces_loopback_by_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why :func:`loopback` is needed."""
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda address: "192.0.2.7")
    assert services.resolve_ip_for_localhost("127.0.0.1") == "192.0.2.7"
    with loopback():
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
        assert services.get_node_ip_address() == "127.0.0.1"
    assert services.get_node_ip_address() == "192.0.2.7"


def test_ray_places_its_folder_by_these_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.utils import get_default_system_temp_dir

    monkeypatch.setenv("TMPDIR", "/b")
    monkeypatch.setenv("RAY_TMPDIR", "/a")
    assert get_default_system_temp_dir() == "/a"
    monkeypatch.delenv("RAY_TMPDIR")
    assert get_default_system_temp_dir() == "/b"


OWN = sorted(set(ENVIRONMENT) - set(allocator.VARIABLES) - {"PYTORCH_CUDA_ALLOC_CONF"})


@pytest.mark.parametrize("name", OWN)
def test_ray_reads_the_variables_that_are_set_for_it(name: str) -> None:
    """One that a later Ray no longer reads would change nothing, and nobody would see it."""
    folder = Path(ray.__file__).parent
    if name != name.upper():  # a setting of Ray's core, which it knows without the prefix
        assert name.removeprefix("RAY_").encode() in (folder / "_raylet.so").read_bytes()
        return
    places = [folder / "tune", folder / "train", folder / "_private", folder / "_common", folder / "air"]
    sources = (path.read_text(encoding="utf-8") for place in places for path in place.rglob("*.py"))
    assert any(f'"{name}"' in source for source in sources)


def test_usage_is_not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._common.usage import usage_lib

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    assert usage_lib.usage_stats_enabled()
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", ENVIRONMENT["RAY_USAGE_STATS_ENABLED"])
    assert not usage_lib.usage_stats_enabled()


def test_pytorch_reads_the_allocators_setting() -> None:
    """It refuses a wrong value of it, and passes over a setting that it does not know."""
    setting, _, value = ENVIRONMENT["PYTORCH_CUDA_ALLOC_CONF"].partition(":")
    with pytest.raises(ValueError, match="Expected 'True' or 'False'"):
        torch._C._accelerator_setAllocatorSettings(f"{setting}:maybe")
    torch._C._accelerator_setAllocatorSettings(f"{setting}:{value}")


def test_pytorchs_own_settings_of_cudnn() -> None:
    """Those that the plain loop of ``bench train`` is timed with."""
    code = "import torch; print(torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
