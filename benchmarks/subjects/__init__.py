# SPDX-License-Identifier: ZPL-2.1
"""What is measured: zasync and its peers, each in a module that only its own processes import.

Such a module has `install()` (what must be there before the first put), `put(work, number)`,
`put_many(work, numbers)` in one go (or None), and `fill(work, count)`, as fast as it can.  `work`
is the name of a function in `benchmarks.work`, or `fan_out`.  The environment names the place.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import sys

from benchmarks.places import Missing

TEXT = "a small argument"
PYTHON = (sys.executable, "-m")
_SUBJECTS = "benchmarks.subjects"


@dataclasses.dataclass(frozen=True)
class Subject:
    """A system in one of its set-ups."""

    name: str
    package: str  # the distribution, which has the version
    module: str
    storages: tuple[str, ...]
    worker: tuple[str, ...]  # the command of its worker; {uri} is the place
    title: str  # its name in tables
    about: str  # the settings of the worker, in words

    @property
    def path(self) -> str:
        return f"{_SUBJECTS}.{self.module}"

    @property
    def version(self) -> str:
        """The version that is installed; raises Missing."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            raise Missing(f"{self.package} is not installed") from None


def _peer(
    name: str,
    module: str,
    storages: tuple[str, ...],
    worker: tuple[str, ...],
    title: str,
    about: str,
) -> Subject:
    return Subject(name, module, module, storages, PYTHON + worker, title, about)


_PROCRASTINATE = ("procrastinate", "--app", f"{_SUBJECTS}.procrastinate.app", "worker")
_HUEY = ("huey.bin.huey_consumer", f"{_SUBJECTS}.huey.huey", "--quiet", "-k", "thread")
_CELERY = ("celery", "--app", f"{_SUBJECTS}.celery", "worker", "--loglevel", "WARNING")
_DRAMATIQ = ("dramatiq", f"{_SUBJECTS}.dramatiq")
_RQ = ("rq.cli", "worker", "--quiet", "--url", "unix://{uri}")
_REDISES = ("redis", "redis-aof")

ZASYNC = Subject(
    "zasync",
    "zasync",
    "zasync",
    ("filestorage", "zeo", "sqlite", "postgresql"),
    (*PYTHON, "benchmarks.worker"),
    "zasync",
    "one process, 10 threads, poll interval 5 s",
)

PEERS = (
    _peer(
        "procrastinate",
        "procrastinate",
        ("peer-postgresql",),
        (*_PROCRASTINATE, "--concurrency", "10"),
        "Procrastinate (10)",
        "one process, concurrency 10, synchronous jobs",
    ),
    _peer(
        "procrastinate-1",
        "procrastinate",
        ("peer-postgresql",),
        (*_PROCRASTINATE, "--concurrency", "1"),
        "Procrastinate (1)",
        "one process, concurrency 1 (its default)",
    ),
    _peer(
        "huey",
        "huey",
        ("peer-sqlite", *_REDISES),
        (*_HUEY, "-w", "4"),
        "Huey (4 threads)",
        "one process, 4 threads",
    ),
    _peer(
        "celery",
        "celery",
        _REDISES,
        (*_CELERY, "--pool", "prefork", "--concurrency", "2"),
        "Celery (prefork 2)",
        "2 processes (prefork), results kept for the fan-out only",
    ),
    _peer(
        "celery-threads",
        "celery",
        _REDISES,
        (*_CELERY, "--pool", "threads", "--concurrency", "10"),
        "Celery (10 threads)",
        "one process, 10 threads, results kept for the fan-out only",
    ),
    _peer(
        "dramatiq",
        "dramatiq",
        _REDISES,
        (*_DRAMATIQ, "--processes", "2", "--threads", "8"),
        "Dramatiq (2 x 8)",
        "2 processes, 8 threads each",
    ),
    _peer(
        "dramatiq-1",
        "dramatiq",
        _REDISES,
        (*_DRAMATIQ, "--processes", "1", "--threads", "8"),
        "Dramatiq (1 x 8)",
        "one process, 8 threads",
    ),
    _peer(
        "rq",
        "rq",
        _REDISES,
        (*_RQ, "bench"),
        "RQ (forking)",
        "one worker, which forks for each job",
    ),
    _peer(
        "rq-simple",
        "rq",
        _REDISES,
        (*_RQ, "--worker-class", "rq.worker.SimpleWorker", "bench"),
        "RQ (SimpleWorker)",
        "one worker, SimpleWorker (no fork)",
    ),
)

SUBJECTS = {subject.name: subject for subject in (ZASYNC, *PEERS)}
