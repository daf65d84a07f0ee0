# SPDX-License-Identifier: ZPL-2.1
"""The worker processes of a run, each behind a network of its own, and what can be done to them."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

from tests.support.proxy import Proxy
from torture import worker
from torture.lines import Lines
from torture.servers import Backend


class Node:
    """A place for a worker process, with a network, a clock and a name.

    Whoever does something to it that it must recover from holds it meanwhile (`busy`).
    """

    def __init__(self, number: int, cluster: Cluster) -> None:
        self.number, self._cluster = number, cluster
        self.proxy = cluster.backend.proxy(f"p{number}")
        self.uuid = uuid.uuid4()
        self.busy = False
        self.process: subprocess.Popen[bytes] | None = None
        self._told: dict[str, Any] = {}
        self._control = cluster.directory / f"control-{number}.json"

    @property
    def name(self) -> str:
        return f"node {self.number}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start a process, under the name that the node has now."""
        cluster = self._cluster
        self.tell(kill_at=None)
        command = [sys.executable, "-m", "torture.worker"]
        command += ["--db", cluster.backend.uri_through(self.proxy), "--uuid", str(self.uuid)]
        command += ["--control", str(self._control), "--lines", str(cluster.attempts.path)]
        command += cluster.options
        with (cluster.directory / f"worker-{self.number}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=cluster.environment
            )
        cluster.log.write(what="start", node=self.name, pid=self.pid, uuid=str(self.uuid))

    def rename(self) -> None:
        """Who starts here from now on is another: the former one never returns."""
        self.uuid = uuid.uuid4()

    def tell(self, **told: Any) -> None:
        """Set the offset of its clock, or the place to die at."""
        self._told |= told
        worker.tell(self._control, **self._told)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        self.note_death(10)

    def note_death(self, seconds: float) -> bool:
        """Whether it is dead, or dies within so many seconds; then that is written down."""
        process = self.process
        assert process is not None
        if process.returncode is None:
            descriptor = os.pidfd_open(process.pid)
            try:
                if not select.select([descriptor], [], [], seconds)[0]:
                    return False
            finally:
                os.close(descriptor)
        self._cluster.log.write(what="death", node=self.name, pid=process.pid)
        process.wait()
        return True

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def terminate(self, seconds: float) -> int | None:
        """Ask it to stop; answers its exit code, None if it had to be killed."""
        if self.process is None:
            return None
        self._signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGUSR1)  # the stacks of its threads go to its log
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            self.process.kill()
            self.process.wait()
            return None

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.proxy is not None:
            self.proxy.close()

    def _signal(self, number: int) -> None:
        if self.is_alive():
            self.process.send_signal(number)  # type: ignore[union-attr]


class Cluster:
    """All nodes, and the networks of the clients."""

    def __init__(
        self,
        backend: Backend,
        directory: Path,
        *,
        nodes: int,
        options: list[str],
        log: Lines,
        attempts: Lines,
    ) -> None:
        self.backend, self.directory, self.options = backend, directory, options
        self.log, self.attempts = log, attempts
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])}
        self.lock = threading.Lock()
        self.storage_lock = threading.Lock()  # held by who makes the storage fail
        self.client_proxies: list[Proxy] = []
        self.nodes = [Node(number, self) for number in range(nodes)]

    def client_uri(self) -> str:
        """A URI for one more client, through a network of its own."""
        proxy = self.backend.proxy(f"c{len(self.client_proxies)}")
        if proxy is not None:
            self.client_proxies.append(proxy)
        return self.backend.uri_through(proxy)

    def take(self, chance: Any, leave: int = 1) -> Node | None:
        """A node that nobody holds, held for the caller, if so many others are left in peace."""
        with self.lock:
            free = [node for node in self.nodes if not node.busy and node.is_alive()]
            if len(free) <= leave:
                return None
            node: Node = chance.choice(free)
            node.busy = True
            return node

    def give_back(self, node: Node) -> None:
        with self.lock:
            node.busy = False

    def ended_by_themselves(self) -> list[Node]:
        """The nodes whose process has died though nobody does anything to them."""
        with self.lock:
            return [node for node in self.nodes if not node.busy and not node.is_alive()]

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        for proxy in self.client_proxies:
            proxy.close()
