# SPDX-License-Identifier: ZPL-2.1
"""`python -m torture`: warm up, do harm, heal, drain, check; and say what came of it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console

from torture import application, clients, nemesis, report
from torture.checker import check, recoveries
from torture.clients import Client
from torture.cluster import Cluster
from torture.collecting import collect, open_jobs
from torture.lines import Lines, read
from torture.nemesis import Nemesis
from torture.servers import STORAGES, Backend, Unavailable, backend
from zasync.storage import close_database, open_database

JOBS, SECONDS = 2000, 420.0  # of a run of about ten minutes
POLL, PING, DEATH = 0.2, 0.3, 1.5
# For the commits of handing back, deciding and claiming: nothing beside a death interval of a
# minute, and much beside one of a second.
COMMITS = 1.0
WARM_UP, HEALED = 3.0, 2.0  # seconds
AFTERMATH = 2.0  # seconds after a fault of the storage or network in which no promise holds
STOP_SECONDS = 20.0


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m torture", description=__doc__)
    parser.add_argument("--storage", choices=STORAGES, default="zeo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"at least so many ({JOBS})")
    parser.add_argument("--hours", type=float, help="as long as this, with as many jobs as fit")
    parser.add_argument("--seconds", type=float, help="of faults (by the number of jobs)")
    parser.add_argument("--nodes", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--size", type=int, default=4, help="jobs at once in each (4)")
    parser.add_argument("--batch", type=int, default=1, help="jobs that share a commit (1: none)")
    parser.add_argument("--clients", type=int, default=2, help="that put jobs (2)")
    parser.add_argument("--drain", type=float, default=180.0, help="seconds until stuck (180)")
    parser.add_argument("--json", type=Path, help="also write the result there")
    parser.add_argument("--keep", type=Path, help="keep all files of the run in this directory")
    return parser


class Run:
    """One run, from an empty directory to a result."""

    def __init__(self, told: argparse.Namespace, directory: Path, console: Console) -> None:
        self.told, self.directory, self.console = told, directory, console
        self.scale = told.hours * 6 if told.hours else told.jobs / JOBS
        self.jobs = round(JOBS * self.scale) if told.hours else told.jobs
        self.seconds = told.seconds or SECONDS * self.scale
        self.history = Lines(directory / "history.jsonl")
        self.log = Lines(directory / "nemesis.jsonl")
        self.attempts = Lines(directory / "attempts.jsonl")
        self.unasked = 0
        self._said = 0.0

    def carry_out(self) -> report.Result:
        begin = time.monotonic()
        with backend(self.told.storage, self.directory) as server:
            install(server)
            cluster = self._cluster(server)
            putting: list[Client] = []
            try:
                for node in cluster.nodes:
                    node.start()
                putting = self._clients(cluster)
                happened, required = self._harm(cluster, putting)
                self.say("healing")
                drained, bad_stops = self._end(cluster, putting)
            finally:
                for client in putting:
                    client.close()
                cluster.close()
            result = self._check(server, drained)
        result.seconds = time.monotonic() - begin
        result.happened, result.required = dict(happened), required
        result.bad_stops, result.ended_by_themselves = bad_stops, self.unasked
        return result

    def _cluster(self, server: Backend) -> Cluster:
        settings = ["--poll", POLL, "--ping", PING, "--death", DEATH, "--size", self.told.size]
        settings += ["--batch", self.told.batch]
        return Cluster(
            server,
            self.directory,
            nodes=self.told.nodes,
            options=[str(word) for word in settings],
            log=self.log,
            attempts=self.attempts,
        )

    def _clients(self, cluster: Cluster) -> list[Client]:
        orders = clients.orders(self.jobs, random.Random(self.told.seed))
        count = self.told.clients
        made = [
            Client(cluster.client_uri(), orders[n::count], self.seconds + WARM_UP, self.history)
            for n in range(count)
        ]
        for client in made:
            client.start()
        return made

    def _harm(self, cluster: Cluster, putting: list[Client]) -> tuple[Counter[str], dict[str, int]]:
        """Warm up, then carry out the schedule."""
        time.sleep(WARM_UP)
        planned, required = nemesis.counts(self.scale, nemesis.impossible(cluster.backend))
        faults = nemesis.schedule(planned, self.seconds, self.told.seed)
        harm = Nemesis(cluster, faults, DEATH)

        def tick() -> None:
            for node in cluster.ended_by_themselves():
                self.unasked += 1
                self.log.write(what="ended by itself", node=node.name, pid=node.pid)
                node.start()
            self.progress(putting, harm)

        harm.run(tick)
        return harm.happened, required

    def _end(self, cluster: Cluster, putting: list[Client]) -> tuple[bool, int]:
        """Heal everything, let all jobs end, and stop.  Whether they ended, and bad stops."""
        for proxy in cluster.client_proxies:
            proxy.heal()
        for node in cluster.nodes:
            if node.proxy is not None:
                node.proxy.heal()
            node.thaw()
            node.tell(offset=0, kill_at=None)
        time.sleep(HEALED)
        drained = self._drain(cluster.backend, putting)
        codes = [node.terminate(STOP_SECONDS) for node in cluster.nodes]
        self.say(f"drained: {drained}; the workers ended with {codes}")
        return drained, sum(code is None for code in codes)

    def _drain(self, server: Backend, putting: list[Client]) -> bool:
        deadline = time.monotonic() + self.told.drain
        for client in putting:
            if not client.join(max(0.0, deadline - time.monotonic())):
                return False
        db = open_database(server.uri)
        done: set[str] = set()
        try:
            while time.monotonic() < deadline:
                left = open_jobs(db, done)
                if not left:
                    return True
                self.say(f"{left} jobs have not ended", every=10)
                time.sleep(0.5)
            return False
        finally:
            close_database(db)

    def _check(self, server: Backend, drained: bool) -> report.Result:
        db = open_database(server.uri)
        try:
            world = collect(db)
        finally:
            close_database(db)
        (self.directory / "world.json").write_text(json.dumps(dataclasses.asdict(world)))
        history = read(self.history.path)
        lines = read(self.attempts.path)
        log = read(self.log.path)
        deaths = [line for line in log if line["what"] == "death"]
        findings = check(history, world, lines, deaths, places=application.PLACES)
        found = recoveries(lines, deaths, world.applied)
        windows = [
            (line["begin"], line["end"] + AFTERMATH)
            for line in log
            if line["what"] == "fault" and line["kind"] in nemesis.SPOILS_RECOVERY
        ]
        return report.Result(
            storage=self.told.storage,
            seed=self.told.seed,
            command=f"python -m torture {' '.join(sys.argv[1:])}".strip(),
            seconds=0.0,
            told=dict(Counter(line["outcome"] for line in history)),
            jobs=len(world.applied),
            attempts=sum(line["what"] == "enter" for line in lines),
            findings=findings,
            recoveries=[each for each in found if not each.is_disturbed(windows)],
            disturbed=[each for each in found if each.is_disturbed(windows)],
            promised=DEATH + PING + POLL + COMMITS,
            happened={},
            required={},
            drained=drained,
        )

    # Saying what goes on

    def progress(self, putting: list[Client], harm: Nemesis) -> None:
        done = sum(client.done for client in putting)
        todo = sum(len(client.todo) for client in putting)
        faults = ", ".join(f"{count} {kind}" for kind, count in harm.happened.items())
        self.say(f"{done} of {todo} orders put; {faults}", every=20)

    def say(self, what: str, every: float = 0.0) -> None:
        if time.monotonic() - self._said >= every:
            self._said = time.monotonic()
            self.console.print(what, highlight=False)


def install(server: Backend) -> None:
    """Make the application's objects in the new database."""
    db: Any = open_database(server.uri)
    try:
        with db.transaction() as connection:
            application.install(connection.root())
    finally:
        close_database(db)


def main() -> int:
    told = options().parse_args()
    console = Console(width=110)
    directory = told.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    directory.mkdir(parents=True, exist_ok=not told.keep)  # lines of another run would mislead
    logging.basicConfig(filename=directory / "torture.log", level=logging.INFO)
    try:
        result = Run(told, directory, console).carry_out()
    except Unavailable as reason:
        console.print(f"{told.storage} cannot be had here: {reason}")
        return 2
    finally:
        if not told.keep:
            shutil.rmtree(directory, ignore_errors=True)
    if told.json:
        told.json.write_text(json.dumps(result.as_json(), indent=1))
    report.show(result, console)
    return 0 if result.passed else 1


if __name__ == "__main__":
    sys.exit(main())
