"""Which device and which precision are taken."""

from __future__ import annotations

import pytest
import torch

from pyconv_search.errors import UserError
from pyconv_search.study.recipe import Recipe
from pyconv_search.training.device import broken, find_device, precision, settle

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_device_by_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert [find_device(name).type for name in ("auto", "cuda", "cpu")] == ["cuda", "cuda", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [find_device(name).type for name in ("auto", "cpu")] == ["cpu", "cpu"]
    with pytest.raises(UserError, match="device cuda: PyTorch finds no CUDA device"):
        find_device("cuda")
    with pytest.raises(UserError, match="auto, cpu or cuda, but got 'gpu'"):
        find_device("gpu")


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
def test_a_written_precision_is_taken(wanted: str):
    assert precision(Recipe(epochs=1, precision=wanted), CPU) == wanted


def test_auto_asks_the_hardware(monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe(epochs=1, precision="auto")
    for capability, expected in (((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert precision(recipe, CUDA) == expected
    for capabilities, expected in (({"avx512_bf16": True}, "bf16"), ({"avx512_bf16": False}, "fp32"), ({}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found, raising=False)
        assert precision(recipe, CPU) == expected
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert precision(recipe, CPU) == "fp32"


def test_determinism_and_threads_are_set(monkeypatch: pytest.MonkeyPatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    try:
        settle(CPU, 1)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def test_a_process_is_broken_when_cuda_no_longer_answers(monkeypatch: pytest.MonkeyPatch):
    fault = RuntimeError("CUDA error: an illegal memory access was encountered")

    def refuse():
        raise fault

    assert not broken(fault)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert not broken(RuntimeError("a shape does not fit"))
    monkeypatch.setattr(torch.cuda, "synchronize", refuse)
    assert broken(fault)
    assert not broken(ValueError("not of CUDA"))
