"""Several processes that train one model together, each on its part of every batch (Li et al. 2020, DDP in PyTorch).

They meet in the default process group of torch.distributed, which whoever starts them has made. Every process must come
to each of these functions, in the same order; with one process there is nothing to exchange.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from pyconv_search.training.learner import Learner, compiled
from pyconv_search.training.tally import Tally


def place() -> tuple[int, int]:
    """This process's number, from 0, and how many there are: (0, 1) where there is no process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def joined(learner: Learner) -> Learner:
    """The learner as one of all processes: they begin with the weights of the first, and average their gradients.

    Each process's batch normalisation sees its part of a batch, and the running statistics are those of the first, as
    in the papers' trainings (no SyncBatchNorm).
    """
    rank, world = place()
    if world == 1:
        return learner
    # PyTorch reorders what it sums after the first step, so that a training that goes on would sum in another order
    # than the uninterrupted one, unless it looks for unused parameters. Of two summands the order is nothing.
    fixed = learner.recipe.deterministic and world > 2
    network = DistributedDataParallel(learner.model, find_unused_parameters=fixed)
    return replace(learner, network=compiled(network, learner.recipe), rank=rank, world=world)


@torch.no_grad()
def share_buffers(learner: Learner) -> None:
    """Give every process the running statistics of the first, those of the averaged weights included."""
    if learner.world == 1:
        return
    for model in (learner.model, learner.averages):
        for buffer in [] if model is None else model.buffers():
            distributed.broadcast(buffer, 0)


def summed(tally: Tally) -> Tally:
    """A tally over the images of all processes."""
    if place()[1] > 1:
        distributed.all_reduce(tally.sums)
    return tally


def gathered(tally: Tally) -> tuple[float, ...]:
    """The four sums of every process's tally, in the order of the processes."""
    world = place()[1]
    if world == 1:
        return tally.plain()
    every = [torch.empty_like(tally.sums) for _ in range(world)]
    distributed.all_gather(every, tally.sums)
    return tuple(torch.cat(every).tolist())


def decided(wish: bool, device: torch.device) -> bool:
    """What the first process wishes."""
    if place()[1] == 1:
        return wish
    flag = torch.tensor(int(wish), device=device)
    distributed.broadcast(flag, 0)
    return bool(flag)


def largest(number: int, device: torch.device) -> int:
    """The largest of the processes' numbers."""
    if place()[1] == 1:
        return number
    found = torch.tensor(number, device=device)
    distributed.all_reduce(found, distributed.ReduceOp.MAX)
    return int(found)


@contextmanager
def first_before_others() -> Iterator[None]:
    """A context that the first process has left before the others enter it."""
    rank, world = place()
    if rank:
        distributed.barrier()
    yield
    if world > 1 and not rank:
        distributed.barrier()


def check_equal(what: str, *numbers: int) -> None:
    """RuntimeError unless all processes have the same numbers."""
    world = place()[1]
    if world == 1:
        return
    every: list[tuple[int, ...]] = [()] * world
    distributed.all_gather_object(every, numbers)
    if len(set(every)) > 1:
        raise RuntimeError(f"{what}: the processes of one trial disagree: {every}")


def severed(error: BaseException) -> bool:
    """Whether ``error`` is but the consequence of another process's end: nothing more is heard of it."""
    if isinstance(error, distributed.DistError):
        return True
    # What gloo, which CPUs use, throws has no type of its own.
    return isinstance(error, RuntimeError) and "gloo" in str(error)
