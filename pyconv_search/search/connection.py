"""Ray itself: started on this machine for one run, or joined where it runs already."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import ray
from ray.tune import PlacementGroupFactory

from pyconv_search.errors import UserError
from pyconv_search.search import TOKEN
from pyconv_search.search.sessions import Guard, own_sessions
from pyconv_search.study.study import Resources, Study
from pyconv_search.training import allocator
from pyconv_search.training.estimate import parts

CONNECT_SECONDS = 5.0

# Read by Ray, and by the C library when worker processes start.
ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "600",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # A worker that waits for one that died cannot leave its process group in order.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "2",
    # Trials that share a GPU must not lose its memory to gaps (PyTorch, CUDA semantics: memory management).
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    **allocator.VARIABLES,
}


@contextmanager
def connected(address: str | None, guard: Guard | None = None) -> Iterator[None]:
    """Ray on this machine alone, ended with the run, or the running cluster at ``address``, left running.

    The processes of a Ray on this machine lead sessions of their own, over which ``guard`` watches; whoever gives one
    also closes it.

    Raises:
        UserError: if Ray cannot be started, or nothing answers at the address.
    """
    added = {key: value for key, value in ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(added)
    own = Guard() if guard is None and address is None else None
    try:
        with own_sessions(guard or own):
            _connect(address)
        yield
    finally:
        ray.shutdown()
        if own is not None:
            own.close()
        for key in added:
            os.environ.pop(key, None)


def _connect(address: str | None) -> None:
    if address is not None:
        _check_address(address)
    try:
        with _silent_stderr():
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong becomes a row or one line
            ray.init(
                address=address or "local",
                logging_level=logging.ERROR,
                log_to_driver=False,
                include_dashboard=None if address else False,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        hint = f" (a cluster with tokens wants its own in {TOKEN})" if address else ""
        raise UserError(f"cannot use Ray{f' at {address}' if address else ''}: {reason}{hint}") from None
    if address is None and TOKEN.is_file():
        TOKEN.chmod(0o600)  # Ray leaves it readable for everyone, and it is a key to this machine.


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Ray's C++ core writes its attempts to connect straight to standard error, a line a second."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_address(address: str) -> None:
    """A quick look whether anything listens there; Ray itself would try for half a minute."""
    host, _, port = address.rpartition(":")
    if address.startswith("ray://"):
        raise UserError(
            f"--address {address}: Ray Client is not supported; run on a machine of the cluster, with HOST:PORT"
        )
    if not host or not port.isdigit():
        if address != "auto":
            raise UserError(f"--address {address}: must be host:port, as 'ray start --head' prints it, or auto")
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--address {address}: cannot be reached: {error}; is the cluster's head running there?"
        ) from None


def room(study: Study) -> int:
    """How many trials of the study fit on the machines at once; the workers of one may be on several.

    Raises:
        UserError: if not even one does, which Ray would wait for in silence.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    resources, workers = study.resources, study.resources.workers
    wanted = {"CPU": resources.cpu / workers, "GPU": resources.gpu / workers}
    wanted = {kind: amount for kind, amount in wanted.items() if amount}
    places = sum(min(parts(m.get(kind, 0.0), amount) for kind, amount in wanted.items()) for m in machines)
    if places >= workers:
        return places // workers
    whose = "a trial takes" if workers == 1 else f"each of {workers} workers takes"
    for kind, amount in wanted.items():
        most = max((machine.get(kind, 0.0) for machine in machines), default=0.0)
        if kind == "GPU" and not most:
            raise UserError(f"resources.gpu: {whose} {amount:g}, but Ray finds no GPU on {len(machines)} machines")
        if amount > most:
            raise UserError(
                f"resources.{kind.lower()}: {whose} {amount:g}, but the largest of {len(machines)} machines has "
                f"{most:g}; nearest: {most:g}"
            )
    each = f"{wanted['CPU']:g} CPUs and {wanted.get('GPU', 0.0):g} GPUs together"
    if not places:
        raise UserError(f"resources: no machine has {each}")
    raise UserError(
        f"resources.workers: a trial takes {workers} with {each} for each, but {len(machines)} machines have room for "
        f"{places}; nearest: {places}"
    )


def needs(resources: Resources) -> PlacementGroupFactory:
    """What the actor of a trial takes; workers of its own take theirs themselves, and it then next to nothing."""
    if resources.workers > 1:
        # One byte of memory: Tune has no trial without resources, and a part of a core would cost a whole one.
        return PlacementGroupFactory([{"memory": 1}])
    return PlacementGroupFactory([{"CPU": resources.cpu, "GPU": resources.gpu}])


def whole_device(resources: Resources) -> Resources:
    """What a trial takes that shares its device with no other: a whole GPU, or all cores of the largest machine."""
    if resources.gpu:
        return replace(resources, gpu=max(resources.gpu, 1.0))
    most = max(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"])
    return replace(resources, cpu=int(most))
