"""Ray itself: started on this machine for one run, or joined where it runs already."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.tune import PlacementGroupFactory

from pyconv_search.errors import UserError
from pyconv_search.search.joining import Cluster, admitted, authentication
from pyconv_search.search.local import loopback, options, scratch, waiting_in_turns
from pyconv_search.search.patching import patched
from pyconv_search.search.sessions import Guard, own_sessions
from pyconv_search.study.study import Resources, Study
from pyconv_search.training import allocator
from pyconv_search.training.estimate import parts

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
    # So long after the death of the GCS Ray ends this process, which has its tables and its report to write.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
    # A worker that waits for one that died cannot leave its process group in order.
    "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "2",
    # Trials that share a GPU must not lose its memory to gaps (PyTorch, CUDA semantics: memory management).
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    **allocator.VARIABLES,
}


@contextmanager
def connected(cluster: Cluster | str | None, guard: Guard | None = None) -> Iterator[None]:
    """Ray on this machine alone, ended with the run, or the running ``cluster`` (or its address), left running.

    The processes of a Ray on this machine lead sessions of their own, over which ``guard`` watches; whoever gives one
    also closes it.

    Raises:
        UserError: if Ray cannot be started, nothing answers at the address, or the cluster is open to everybody.
    """
    if ray.is_initialized():
        raise UserError("this program uses Ray already; end that with ray.shutdown() first, or run in another process")
    added = {key: value for key, value in ENVIRONMENT.items() if key not in os.environ}
    os.environ.update(added)
    try:
        with _started(guard) if cluster is None else _joined(cluster):
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        for key in added:
            os.environ.pop(key, None)


@contextmanager
def _started(guard: Guard | None) -> Iterator[None]:
    """Ray on this machine, which nobody else can reach: on the loopback interface, with a token of this run alone."""
    watching = guard or Guard()
    with scratch() as folder, authentication("token", secrets.token_hex(32)), loopback(), waiting_in_turns():
        try:
            watching.remove(folder.parent)  # should this process be killed
            with own_sessions(watching):
                _connect("Ray cannot be started on this machine", watching, address="local", **options(folder))
            yield
        finally:
            if guard is None:
                watching.close()


@contextmanager
def _joined(cluster: Cluster | str) -> Iterator[None]:
    """The running cluster."""
    cluster = Cluster(cluster) if isinstance(cluster, str) else cluster
    address, mode = admitted(cluster)
    with authentication(mode):
        _connect(f"--address {cluster.address}: the cluster cannot be joined", None, address=address)
        yield


def _connect(failure: str, guard: Guard | None, **arguments: Any) -> None:
    """Call ``ray.init``; whatever it raises becomes one UserError that begins with ``failure``."""
    try:
        with _silent_stderr(), _command_in_utf8():
            logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what goes wrong becomes a row or one line
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **arguments)
    except BaseException as error:
        if guard is not None:
            guard.ending = True
        ray.shutdown()  # of what was started by then
        if not isinstance(error, (Exception, SystemExit)):  # Ray raises plain Exception, too, and exits in places
            raise
        if isinstance(error, UnicodeEncodeError):
            raise UserError(f"{failure}: it needs names in UTF-8, and {error.object!r} is none") from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{failure}: {reason}") from None


@contextmanager
def _command_in_utf8() -> Iterator[None]:
    """Ray keeps the command line, and fails where a name in it is not UTF-8."""
    from ray._private import utils

    usual = getattr(utils, "get_entrypoint_name", str)
    with patched(utils, "get_entrypoint_name", lambda: usual().encode(errors="replace").decode()):
        yield


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
