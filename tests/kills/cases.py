# SPDX-License-Identifier: ZPL-2.1
"""One case of the kill grid: jobs in a queue of their own, a death, who goes on, and the checks."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from tests.kills import jobs_for_kills as jobs
from tests.kills.grid import Point, Recovery, Who
from tests.support.nursery import Nursery, Worker
from tests.support.running import Site, until
from torture.lines import read
from torture.worker import FINISHED
from zasync.failure import Failure
from zasync.interfaces import COMPLETED, KEY
from zasync.job import Job, NeverRetry
from zasync.queue import Queue, Queues
from zasync.storage import close_database, open_database

POLL, PING, DEATH = 0.05, 0.1, 0.6
JOBS = 3
SECONDS = 30.0  # until whatever a case waits for must have come


class Ground:
    """A database that many cases share, each with a queue of its own."""

    def __init__(self, uri: str, nursery: Nursery, directory: Path) -> None:
        self.uri, self.nursery, self.directory = uri, nursery, directory
        self.db = open_database(uri)
        self.site = Site(self.db, queue_names=())
        self.site.commit(self._install)

    def _install(self) -> None:
        root = self.site.root
        if jobs.MARKS not in root:
            root[jobs.MARKS] = jobs.OOBTree()

    def close(self) -> None:
        self.site.close()
        close_database(self.db)


class Case:
    """Puts jobs, has a process die at a point, lets others go on, and checks what came of it."""

    def __init__(self, ground: Ground, point: Point, recovery: Recovery) -> None:
        self.ground, self.point, self.recovery = ground, point, recovery
        self.site = ground.site
        self.name = f"{point.number}-{recovery.name}-{uuid.uuid4().hex[:6]}"
        self.lines = ground.directory / f"{self.name}.jsonl"
        self.uuid = uuid.uuid4()
        self.workers: list[Worker] = []
        self.jobs: list[Any] = []
        self.site.commit(self._make_queue)

    def _make_queue(self) -> None:
        queues = self.site.root.setdefault(KEY, Queues())
        queues[self.name] = Queue()
        queues[self.name].quotas.create("one", size=1)

    @property
    def queue(self) -> Any:
        return self.site.queues[self.name]

    # Processes

    def start(self, identity: uuid.UUID, *more: object) -> Worker:
        options = ["--db", self.ground.uri, "--uuid", identity, "--queue", self.name]
        options += ["--poll", POLL, "--ping", PING, "--death", DEATH, "--lines", self.lines]
        worker = self.ground.nursery.start(*options, *more)
        self.workers.append(worker)
        return worker

    def kill_order(self) -> list[str]:
        order = ["--kill", self.point.place]
        return [*order, "--after", self.point.after] if self.point.after else order

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()

    def logs(self) -> str:
        return "\n".join(worker.log()[-3000:] for worker in self.workers)

    # The steps

    def die(self) -> float:
        """Have the process die at the point; answers when it did."""
        if self.point.who is Who.CLIENT:
            victim = self.put_by_client(*self.kill_order())
        else:
            self.put_jobs()
            victim = self._start_victim()
        assert victim.dies(), f"never came to {self.point}: {victim.log()}"
        return time.monotonic()

    def _start_victim(self) -> Worker:
        if self.point.who is Who.SWEEPER:
            holder = self.start(uuid.uuid4(), "--kill", "run.begun")
            assert holder.dies(), holder.log()
        victim = self.start(self.uuid, "--grace", 0.1, *self.kill_order())
        if self.point.who is Who.STOPPED:
            until(lambda: read(self.lines), "the start of a job", SECONDS)
            victim.terminate()
        return victim

    def recover(self) -> None:
        """Start who is to go on, and wait until all jobs are completed."""
        if self.point.who is Who.CLIENT and self.recovery is not Recovery.SIBLING:
            assert self.put_by_client().dies()
        if self.recovery is not Recovery.SIBLING:
            self.start(self.uuid)
        if self.recovery is not Recovery.RESTART:
            self.start(uuid.uuid4())
        try:
            self.site.until(self._all_completed, f"the jobs of {self.name}", SECONDS)
        except AssertionError as error:
            states = [job.status for job in self.jobs]
            raise AssertionError(f"{error}: {states}\n{self.logs()}") from None

    def _all_completed(self) -> bool:
        if self.point.who is Who.CLIENT:
            found = self.site.root.get("client", {}).get(self.name)
            self.jobs = [] if found is None else [found]
            if len(self.jobs) < self.expected_of_client:  # its commit is not yet seen here
                return False
        return all(job.status == COMPLETED for job in self.jobs)

    @property
    def expected_of_client(self) -> int:
        """How many jobs come from the client that was killed, or from the one after it."""
        came_through = self.point.place == FINISHED
        return int(came_through or self.recovery is not Recovery.SIBLING)

    # Jobs

    def put_by_client(self, *more: object) -> Worker:
        call = "tests.kills.jobs_for_kills:enqueue"
        arguments = [self.name, self.name]
        options = ["--db", self.ground.uri, "--call", call, *more]
        worker = self.ground.nursery.start(*options, "--", *arguments)
        self.workers.append(worker)
        return worker

    def put_jobs(self) -> None:
        """One job of the kind that the point is about, and plain ones, in one transaction."""

        def put() -> None:
            kinds = [self.point.job, *["work"] * (JOBS - 1)]
            self.jobs = [
                jobs.put(self.queue, f"{self.name}/{n}", self._job(kind, f"{self.name}/{n}"))
                for n, kind in enumerate(kinds)
                if kind != "none"
            ]

        self.site.commit(put)

    def _job(self, kind: str, name: str) -> Job:
        flag = str(self.ground.directory / name.replace("/", "-"))
        if self.point.who is Who.STOPPED:
            return Job(jobs.linger_once, name, flag)
        if kind == "fail_once":
            job = Job(jobs.fail_once, name, flag)
            job.retry_policy_factory = jobs.Again
            return job
        if kind == "fail":
            job = Job(jobs.fail, name)
            job.retry_policy_factory = NeverRetry
            return job
        job = Job(jobs.work, name)
        if name.endswith("/1"):
            job.quota_names = ("one",)
        return job

    # What must be true at the end

    def check(self) -> None:
        self.site.manager.begin()
        self.check_client()
        for job in self.jobs:
            self.check_job(job)
        self.site.until(self._ended_once, "each job among the completed, once", SECONDS)
        quota = self.queue.quotas["one"]
        quota.clean()
        assert len(quota) == 0
        assert len(self.queue) == 0
        self.site.manager.abort()

    def check_client(self) -> None:
        if self.point.who is not Who.CLIENT:
            return
        assert len(self.jobs) == self.expected_of_client, "the job and its data, or neither"

    def check_job(self, job: Any) -> None:
        name = job.args[0]
        marks = self.site.root[jobs.MARKS]
        fails = job.callable is jobs.fail
        assert marks.get(name, 0) == (0 if fails else 1), "effects once"
        assert isinstance(job.result, Failure) if fails else job.result == name
        for callback in ("first", "second"):
            assert marks.get(f"{name}/{callback}", 0) == 1, "each callback once"

    def _ended_once(self) -> bool:
        ended = [
            job._p_oid
            for record in self.queue.dispatchers.values()
            for agent in record.values()
            for job in agent.completed
        ]
        return all(ended.count(job._p_oid) == 1 for job in self.jobs)
