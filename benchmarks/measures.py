# SPDX-License-Identifier: ZPL-2.1
"""How each case is measured: children are started, watched and ended; figures come out."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

from benchmarks import tally, work, worker
from benchmarks.cases import Case
from benchmarks.places import Place, Places
from benchmarks.subjects import SUBJECTS, Subject, zasync
from benchmarks.watching import (
    Usage,
    Worker,
    ask,
    await_count,
    environment,
    killed_at_the_end,
)

Figures = dict[str, float]

THREADS = 10  # of a zasync worker
BATCH = 100  # jobs in one commit, with group settle
WARM = 0.1  # the part of the jobs that is done before the clock starts
LATENCIES = {"short": 150, "long": 2}  # jobs of a latency measure for one second
TOO_SHORT = 0.4  # a drain that takes this part of what is meant is measured again, with more jobs
LONGEST = 10.0  # a latency measure takes at most about so many times the seconds that are meant
SLOWEST = 20.0  # a drain that gets on takes at most so many times the seconds that are meant
_GUESSES = {"zasync": 1000, "celery": 1200, "huey": 2500, "dramatiq": 3000, "rq": 80}


@dataclasses.dataclass(frozen=True)
class Bench:
    """What measures need: places, the seconds that one is meant to take, and earlier rates."""

    places: Places
    seconds: float = 1.0
    rates: dict[str, float] = dataclasses.field(default_factory=dict)


def measure(case: Case, bench: Bench) -> Figures:
    """Measure `case` once.  Raises Missing for what is not here, Broken if it failed."""
    return _MEASURES[case.measure](case, bench)


def drain(case: Case, bench: Bench) -> Figures:
    """Jobs per second, with all of them waiting when the workers start; `amount` are left."""
    count = _count(case, bench)
    figures = _drained(case, bench, waiting=count + int(case.amount), wanted=count)
    if figures["seconds"] < TOO_SHORT * bench.seconds:  # a bad guess: now we know better
        bench.rates[case.key] = figures["rate"]
        count = _count(case, bench)
        figures = _drained(case, bench, waiting=count + int(case.amount), wanted=count)
    return figures


def _drained(case: Case, bench: Bench, *, waiting: int, wanted: int) -> Figures:
    subject = SUBJECTS[case.subject]
    subject.version  # noqa: B018  raises Missing
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        shared = tally.Tally.create(scratch / "tally")
        env = environment(place, scratch / "tally") | _settings(case)
        here = wanted if case.others else waiting
        if case.others:
            others = ("fill", case.others, int(case.amount))
            ask("benchmarks.producer", case.subject, *others, env=env)
        filled = ask("benchmarks.producer", case.subject, "fill", case.work, here, env=env)
        workers: list[Worker] = []
        with killed_at_the_end(workers):
            workers += _started(subject, case, place, env, scratch)
            figures = _watched(shared, workers, place, wanted, bench.seconds)
            more = _ended(subject, workers)
        calls = shared.total()
        done = float(calls)
        if subject.name == "zasync":
            done = waiting - zasync.remaining(place.uri)
            figures["jobs"] = max(0.0, min(done, figures["counted_to"]) - figures["counted_from"])
            figures["reruns"] = max(0.0, calls - done) / max(1.0, done)
            figures["conflicts"] = more["conflicts"] / max(1, more["commits"] + more["conflicts"])
            figures["commits"] = more["commits"] / max(1.0, done)
        else:
            figures["jobs"] = figures["counted_to"] - figures["counted_from"]
    return _per_job(figures) | {"fill_rate": filled["rate"]}


def _settings(case: Case) -> dict[str, str]:
    batch = BATCH if case.mode == "batch" else 0
    settings = {worker.SIZE: str(THREADS), worker.BATCH: str(batch)}
    return settings | ({worker.FILTER: "1"} if case.others == "refused" else {})


def _started(
    subject: Subject, case: Case, place: Place, env: dict[str, str], scratch: Path
) -> list[Worker]:
    command = [word.format(uri=place.uri) for word in subject.worker]
    workers = [Worker(command, env, scratch / f"log{n}") for n in range(case.processes)]
    if subject.name == "zasync":
        try:
            for each in workers:
                each.await_readiness()
            for each in workers:
                each.begin()
        except BaseException:
            for each in workers:
                each.kill()
            raise
    return workers


def _watched(
    shared: tally.Tally, workers: list[Worker], place: Place, wanted: int, seconds: float
) -> Figures:
    """Wait for the calls; how long they took, and what was used meanwhile."""
    theirs, servers = Usage([each.pid for each in workers]), Usage(place.pids)
    warm = max(1, int(wanted * WARM))
    if not await_count(shared, warm, time.perf_counter() + 30 + SLOWEST * seconds, workers):
        raise TimeoutError(f"{shared.total()} of {warm} jobs were performed in time")
    first, begin = shared.total(), time.perf_counter()
    cpu, server_cpu = theirs.cpu(), servers.cpu()
    await_count(shared, wanted, begin + SLOWEST * seconds, workers)
    last, end = shared.total(), time.perf_counter()
    return {
        "seconds": end - begin,
        "counted_from": first,
        "counted_to": last,
        "cpu": theirs.cpu() - cpu,
        "server_cpu": servers.cpu() - server_cpu,
        **theirs.memory(),
    }


def _ended(subject: Subject, workers: list[Worker]) -> Figures:
    """End the workers; the sum of what those of zasync say."""
    if subject.name != "zasync":
        for each in workers:
            each.terminate()
        return {}
    said = [each.end() for each in workers]
    return {name: sum(each[name] for each in said) for name in ("commits", "conflicts")}


def _per_job(raw: Figures) -> Figures:
    jobs = max(1.0, raw.pop("jobs"))
    figures = {
        "rate": jobs / raw["seconds"],
        "cpu_ms": raw.pop("cpu") / jobs * 1000,
        "server_cpu_ms": raw.pop("server_cpu") / jobs * 1000,
    }
    del raw["counted_from"], raw["counted_to"]
    return figures | raw


def _count(case: Case, bench: Bench) -> int:
    """How many jobs take about the seconds that are meant, by the last round or by guess."""
    guess = _GUESSES.get(case.subject.partition("-")[0], 500)
    if case.subject == "zasync" and case.storage == "postgresql":
        guess //= 4
    if case.work == "io":
        guess = min(guess, int(THREADS / work.IO_SECONDS))
    batch = case.mode == "batch"
    rate = bench.rates.get(case.key, guess * 5 if batch else guess)
    count = max(20 * BATCH if batch else 50, int(rate * bench.seconds / (1 - WARM)))
    return -(-count // work.WIDTH) * work.WIDTH if case.work == "fan_out" else count


def put(case: Case, bench: Bench) -> Figures:
    """Jobs put per second, `amount` in one go, without a worker."""
    SUBJECTS[case.subject].version  # noqa: B018
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        tally.Tally.create(scratch / "tally")
        env = environment(place, scratch / "tally")
        words = ("put", int(case.amount), bench.seconds)
        answer: Figures = ask("benchmarks.producer", case.subject, *words, env=env)
        return answer


def latency(case: Case, bench: Bench) -> Figures:
    """From the return of a put to the start of its job; `amount` seconds between the puts."""
    subject = SUBJECTS[case.subject]
    subject.version  # noqa: B018
    long = case.amount >= 1
    jobs = max(2, int(LATENCIES["long" if long else "short"] * bench.seconds))
    words: list[object] = ["latency", case.amount, jobs, LONGEST * bench.seconds]
    here = case.storage == "filestorage"
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        tally.Tally.create(scratch / "tally")
        env = environment(place, scratch / "tally") | _settings(case)
        workers: list[Worker] = []
        with killed_at_the_end(workers):
            if here:
                words.append("here")
            else:
                ask("benchmarks.producer", case.subject, "fill", case.work, 0, env=env)
                workers += _started(subject, case, place, env, scratch)
            answer: Figures = ask("benchmarks.producer", case.subject, *words, env=env)
            _ended(subject, workers)
            return answer


def raw(case: Case, bench: Bench) -> Figures:
    """Commits of one small object per second, by one process or several: the yardstick."""
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        env = environment(place, scratch / "none")
        ask("benchmarks.raw", "make", case.processes, env=env)
        command = [sys.executable, "-m", "benchmarks.raw", "commit"]
        workers: list[Worker] = []
        with killed_at_the_end(workers):
            for number in range(case.processes):
                words = [*command, str(number), str(bench.seconds)]
                workers.append(Worker(words, env, scratch / f"log{number}"))
            for each in workers:
                each.await_readiness()
            for each in workers:
                each.begin()
            return {"rate": sum(each.end()["rate"] for each in workers)}


def floor(case: Case, bench: Bench) -> Figures:
    """Jobs per second, put and performed by the smallest queue that ZODB allows."""
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        tally.Tally.create(scratch / "tally")
        env = environment(place, scratch / "tally")
        answer: Figures = ask("benchmarks.floor", bench.seconds, env=env)
        return answer


def cost(case: Case, bench: Bench) -> Figures:
    """Commits, records and bytes of a plain job: counted, the same on every machine."""
    return _alone(bench, "benchmarks.counting", BATCH if case.mode == "batch" else 0)


def idle(case: Case, bench: Bench) -> Figures:
    """What a dispatcher without work costs."""
    seconds = max(5.0, 5 * bench.seconds)  # the clock of processes has ticks of 10 ms
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        tally.Tally.create(scratch / "tally")
        env = environment(place, scratch / "tally") | _settings(case)
        ask("benchmarks.producer", "zasync", "fill", "no_op", 0, env=env)
        workers: list[Worker] = []
        with killed_at_the_end(workers):
            workers += _started(SUBJECTS["zasync"], case, place, env, scratch)
            usage = Usage([workers[0].pid])
            time.sleep(1)  # it registers, and polls for the first time
            begin, cpu = time.perf_counter(), usage.cpu()
            time.sleep(seconds)
            part = (usage.cpu() - cpu) / (time.perf_counter() - begin)
            memory = usage.memory()
            workers[0].end()
    return {"cpu_percent": part * 100, **memory}


def importing(case: Case, bench: Bench) -> Figures:
    """Milliseconds that imports take in a new process."""
    return _alone(bench, "benchmarks.importing")


def coroutines(case: Case, bench: Bench) -> Figures:
    """`amount` coroutine jobs that each await a second, in one dispatcher of that size."""
    count = int(case.amount)
    with bench.places.place(case.storage) as place, bench.places.scratch() as scratch:
        shared = tally.Tally.create(scratch / "tally")
        env = environment(place, scratch / "tally") | {worker.SIZE: str(count)}
        ask("benchmarks.producer", "zasync", "fill", "wait", count, env=env)
        workers: list[Worker] = []
        with killed_at_the_end(workers):
            workers += _started(SUBJECTS["zasync"], case, place, env, scratch)
            begin = time.perf_counter()
            if not await_count(shared, count, begin + 120, workers):
                raise TimeoutError(f"{shared.total()} of {count} coroutines ended in time")
            seconds = time.perf_counter() - begin
            memory = Usage([workers[0].pid]).memory()
            said = workers[0].end()
    return {"seconds": seconds, "threads": said["threads"], **memory}


def _alone(bench: Bench, module: str, *words: object) -> Figures:
    with bench.places.scratch() as scratch:
        tally.Tally.create(scratch / "tally")
        answer: Figures = ask(module, *words, env=environment(Place(""), scratch / "tally"))
        return answer


_MEASURES = {
    "raw": raw,
    "floor": floor,
    "put": put,
    "drain": drain,
    "latency": latency,
    "backlog": drain,
    "cost": cost,
    "idle": idle,
    "import": importing,
    "async": coroutines,
}
