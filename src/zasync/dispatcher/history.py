# SPDX-License-Identifier: ZPL-2.1
"""What a dispatcher remembers of its polls and jobs: in the process only, bounded, for people.

Written by the polling thread and the worker threads, read by whoever asks; each method holds the
lock for a moment only.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from zasync.foundation import clock

Key = tuple[int, str]
"""How a job is named: its object id as an integer, the name of its database."""

KEYS_KEPT = 100  # of the jobs of an agent, in what is remembered of a poll

Moment = datetime | timedelta | None


def moment(value: Moment) -> datetime | None:
    """An aware datetime; a timedelta means so long ago."""
    if value is None:
        return None
    if isinstance(value, timedelta):
        return clock.now() - value
    return clock.aware(value, "the time asked for")


class PollInfo(Mapping[str, dict[str, dict[str, Any]]]):
    """What one poll saw and did: name of queue -> name of agent -> a dict.

    The dict has 'size', 'len' (jobs held), 'active jobs' and 'new jobs' (lists of at most KEYS_KEPT
    keys) and 'error' (a Failure, or None).  A queue that is left to a twin has no agents.
    """

    def __init__(self, key: int) -> None:
        self.key = key
        self.utc_timestamp = clock.now()
        self._data: dict[str, dict[str, dict[str, Any]]] = {}

    def agent(self, queue: str, agent: str) -> dict[str, Any]:
        """The dict of one agent, made if need be."""
        fresh = {"size": 0, "len": 0, "active jobs": [], "new jobs": [], "error": None}
        return self._data.setdefault(queue, {}).setdefault(agent, fresh)

    def add_queue(self, queue: str) -> None:
        self._data.setdefault(queue, {})

    def shorten(self) -> None:
        """Let go of what would take too much memory, in as many polls as are remembered."""
        for agents in self._data.values():
            for seen in agents.values():
                del seen["active jobs"][KEYS_KEPT:], seen["new jobs"][KEYS_KEPT:]

    def __getitem__(self, queue: str) -> dict[str, dict[str, Any]]:
        return self._data[queue]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __repr__(self) -> str:
        return f"<poll {self.key} at {self.utc_timestamp.isoformat()}: {self._data}>"


class Polls:
    """The last polls, newest first."""

    def __init__(self, size: int) -> None:
        self._polls: deque[PollInfo] = deque(maxlen=size)
        self._lock = threading.Lock()
        self.total = 0  # how many there were, also of those forgotten

    def next_key(self) -> int:
        return self.total + 1

    def add(self, info: PollInfo) -> None:
        info.shorten()
        with self._lock:
            self._polls.appendleft(info)
            self.total += 1

    def clear(self) -> None:
        with self._lock:
            self._polls.clear()

    def __iter__(self) -> Iterator[PollInfo]:
        return self.iter()

    def iter(self, start: Moment = None, stop: Moment = None) -> Iterator[PollInfo]:
        """The polls at or before `start` and at or after `stop`, newest first."""
        newest, oldest = moment(start), moment(stop)
        with self._lock:
            polls = list(self._polls)
        for poll in polls:
            if newest is not None and poll.utc_timestamp > newest:
                continue
            if oldest is not None and poll.utc_timestamp < oldest:
                return
            yield poll

    def first(self, start: Moment = None) -> PollInfo:
        """The newest at or before `start`.  ValueError if there is none."""
        for poll in self.iter(start):
            return poll
        raise ValueError("no poll at or before that time", start)

    def __len__(self) -> int:
        return len(self._polls)


def _in_words(info: dict[str, Any]) -> dict[str, Any]:
    """The info with the texts that were put off until somebody asks."""
    return {name: value() if callable(value) else value for name, value in info.items()}


class JobInfos:
    """What is known of the jobs that run here, and of the last ones that did.

    A value may be a function that makes it, since nobody ever asks about most jobs.  Whoever runs
    a job has its dict, and writes what becomes of it there; the names in it stay the same.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._infos: OrderedDict[Key, dict[str, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def started(self, infos: dict[Key, dict[str, Any]]) -> None:
        with self._lock:
            for key, info in infos.items():
                self._infos.pop(key, None)
                self._infos[key] = info
            surplus = len(self._infos) - self._size
            if surplus > 0:
                ended = (key for key, info in self._infos.items() if info["completed"])
                for old in list(itertools.islice(ended, surplus)):
                    del self._infos[old]

    def clear(self) -> None:
        with self._lock:
            self._infos.clear()

    def copies(self) -> list[tuple[Key, dict[str, Any]]]:
        """Key and a copy of the info of each, in the order of their starts."""
        with self._lock:
            infos = [(key, dict(info)) for key, info in self._infos.items()]
        return [(key, _in_words(info)) for key, info in infos]

    def copy_of(self, key: Key) -> dict[str, Any]:
        """The info of one job; an empty one if it is not remembered."""
        with self._lock:
            info = dict(self._infos.get(key, ()))
        return _in_words(info)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        with self._lock:
            info = dict(self._infos[key])
        return _in_words(info)

    def __contains__(self, key: object) -> bool:
        return key in self._infos

    def __len__(self) -> int:
        return len(self._infos)

    def __iter__(self) -> Iterator[Key]:
        with self._lock:
            return iter(list(self._infos))


def statistics(
    infos: list[tuple[Key, dict[str, Any]]], start: datetime | None, end: datetime
) -> dict[str, Any]:
    """Count what began or ended after `start` and up to `end`, and find the extremes."""
    result: dict[str, Any] = {
        "started": 0,
        "successful": 0,
        "failed": 0,
        "unknown": 0,
        "statistics start": start,
        "statistics end": end,
    }
    spans: dict[str, list[tuple[timedelta, Key]]] = {"active": [], "successful": [], "failed": []}
    for key, info in infos:
        began, ended = info["started"], info["completed"]
        if began > end or (ended is not None and start is not None and ended < start):
            continue
        if start is None or began >= start:
            result["started"] += 1
        if ended is None or ended > end:
            spans["active"].append((end - began, key))
        elif info["failed"] is None:
            result["unknown"] += 1
        else:
            name = "failed" if info["failed"] else "successful"
            result[name] += 1
            spans[name].append((ended - began, key))
    for name, found in spans.items():
        result[f"longest {name}"] = max(found)[1] if found else None
        result[f"shortest {name}"] = min(found)[1] if found else None
    return result
