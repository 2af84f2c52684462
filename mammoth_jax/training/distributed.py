"""Several hosts in one run, and what happens when one of them is lost.

Each host sends the first one a sign of life; when none came from a host for :data:`LOST_AFTER` seconds, JAX ends the
processes of all others and says on stderr which one is missing.  On CPUs, whose collectives notice a broken connection
by themselves, they end at once.  Nothing is lost but the steps since the last checkpoint.
"""

import dataclasses
import os
import sys

import jax

from mammoth_jax.core.errors import InputError

LOST_AFTER = 60
"""Seconds without a sign of life after which a host counts as lost."""


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Who takes part.

    Attributes:
        coordinator: ``ADDRESS:PORT`` of the first host; None asks the cluster (Slurm, GKE, a TPU pod) for everything.
        count: of processes.
        number: of this one, from 0.
    """

    coordinator: str | None = None
    count: int | None = None
    number: int | None = None


def parse_hosts(text: str) -> Hosts:
    """``auto``, or ``ADDRESS:PORT,COUNT,NUMBER``.

    Raises:
      InputError: it is neither.
    """
    if text == "auto":
        return Hosts()
    parts = text.split(",")
    if len(parts) == 3 and ":" in parts[0] and parts[1].isdigit() and parts[2].isdigit():
        hosts = Hosts(parts[0], int(parts[1]), int(parts[2]))
        if int(parts[2]) < int(parts[1]):
            return hosts
    raise InputError(f"--hosts {text}: write auto, or ADDRESS:PORT,COUNT,NUMBER, e.g. 10.0.0.1:7777,4,0")


def join_hosts(hosts: Hosts, lost_after: int = LOST_AFTER) -> None:
    """Connects this process with the others; call it before anything asks JAX for devices.

    Raises:
      InputError: the cluster says nothing, or the others do not come.
    """
    try:
        jax.distributed.initialize(
            hosts.coordinator,
            hosts.count,
            hosts.number,
            heartbeat_timeout_seconds=lost_after,
            shutdown_timeout_seconds=lost_after,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"cannot join the other hosts: {reason}; give --hosts ADDRESS:PORT,COUNT,NUMBER"
        ) from error


def leave_lost_run(error: Exception) -> None:
    """Ends this process of a run that lost a host, with the reason: nobody is left to say goodbye to."""
    reason = str(error).splitlines()[0]
    leave_run(
        f"a step could not be finished with the other hosts ({reason}); start all of them again, they go on from the "
        "last checkpoint",
        1,
    )


def leave_run(reason: str, status: int) -> None:
    """Ends this process of a run without waiting for the others."""
    print(f"host {jax.process_index()} of {jax.process_count()}: {reason}", file=sys.stderr, flush=True)
    os._exit(status)
