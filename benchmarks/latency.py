# SPDX-License-Identifier: ZPL-2.1
"""From the return of the put's commit to the start of the job, with an idle dispatcher."""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import transaction
import ZODB
from ZODB.FileStorage import FileStorage

from benchmarks import work
from tests.support.postgres import PostgresServer
from zasync.interfaces import COMPLETED, KEY
from zasync.job import Job
from zasync.storage import EmbeddedServer, close_database, open_database

POLL_INTERVAL = 5.0  # seconds; so nothing here is owed to polling


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds from put to start."""

    what: str
    jobs: int
    median: float
    p99: float


def in_process(jobs: int = 200, gap: float = 0.01) -> Latency:
    """FileStorage, the dispatcher in the process that puts."""
    spans = []
    with tempfile.TemporaryDirectory() as directory:
        database = ZODB.DB(FileStorage(str(Path(directory) / "Data.fs")))
        with work.performing(database, 3, POLL_INTERVAL) as (queue, _uuid):
            for number in range(jobs):
                queue.put(Job(work.no_op, number))
                transaction.commit()
                put = time.perf_counter()
                work.wait_for(1)
                spans.append((work.starts[number] - put) * 1000)
                time.sleep(gap)
                transaction.begin()
    return _latency("FileStorage, one process", spans)


def wall_clock(number: int) -> float:
    """A job that answers when it was called; the clock is that of the machine."""
    return time.time()


def over_zeo(jobs: int = 200) -> Latency:
    """Two processes and a ZEO server on one machine."""
    with (
        tempfile.TemporaryDirectory() as directory,
        EmbeddedServer(f"file://{directory}/Data.fs") as server,
    ):
        return _between_processes("ZEO, two processes", server.uri, jobs)


def over_postgresql(jobs: int = 200) -> Latency:
    """Two processes and a PostgreSQL server on one machine; raises NoPostgres."""
    with PostgresServer() as server:
        uri = server.uri(server.create_database(), keep_history="false")
        return _between_processes("RelStorage/PostgreSQL, two processes", uri, jobs)


def _between_processes(what: str, uri: str, jobs: int, gap: float = 0.01) -> Latency:
    """A worker process, and this process, which puts."""
    spans = []
    command = [sys.executable, "-m", "zasync", "worker", "--poll-interval", str(POLL_INTERVAL)]
    database = open_database(uri)
    work.install(database)
    worker = subprocess.Popen([*command, "--db", uri], stderr=subprocess.DEVNULL)
    try:
        connection = database.open()
        queue = connection.root()[KEY][""]
        for number in range(jobs):
            job = queue.put(Job(wall_clock, number))
            transaction.commit()
            put = time.time()
            _wait(job)
            spans.append((job.result - put) * 1000)
            time.sleep(gap)
            transaction.begin()
        transaction.abort()
        connection.close()
    finally:
        worker.terminate()
        worker.wait(60)
        close_database(database)
    return _latency(what, spans[1:])  # the first waits for the worker's start


def _wait(job: Job) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        transaction.begin()
        if job.status == COMPLETED:
            return
        time.sleep(0.001)
    raise TimeoutError("a job was not performed within 60 s")


def _latency(what: str, spans: list[float]) -> Latency:
    ordered = sorted(spans)
    p99 = ordered[len(ordered) * 99 // 100]
    return Latency(what, len(ordered), statistics.median(ordered), p99)
