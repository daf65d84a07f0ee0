# SPDX-License-Identifier: ZPL-2.1
"""What a job leaves behind, in its thread or as a forked process, and what it cannot break."""

from __future__ import annotations

import logging
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.dispatcher import jobs_for_tests as jobs
from tests.support.running import Site, running
from tests.support.single import single
from zasync.job import Job


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
def test_whatever_a_job_raises_its_place_is_free_again(
    site: Site, error: type[BaseException]
) -> None:
    with running(site.db, size=2) as runner:
        raising = [site.put(Job(jobs.raise_it, error)) for _ in range(3)]
        after = [site.put(Job(jobs.note, number)) for number in range(3)]
        site.completed(*raising, *after)
        agent = site.queue.dispatchers[runner.uuid]["main"]
        site.until(lambda: len(agent) == 0, "the tidying")
    assert all(job.result.check(error) for job in raising)
    assert [job.result for job in after] == [0, 1, 2]


def test_what_cannot_be_aborted_does_not_reach_the_next_job(site: Site) -> None:
    with running(site.db, size=1):
        dirty = site.put(jobs.leave_what_cannot_be_aborted)
        probe = [site.put(jobs.count_up) for _ in range(3)]
        site.completed(dirty, *probe)
    assert dirty.result.check(ValueError)
    assert [job.result for job in probe] == [1, 2, 3]


@pytest.fixture
def interactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps Zope's interactions, as far as it matters here."""
    kept = threading.local()
    module = types.ModuleType("zope.security.management")
    module.newInteraction = lambda: setattr(kept, "interaction", "somebody")
    module.queryInteraction = lambda: getattr(kept, "interaction", None)
    module.endInteraction = lambda: setattr(kept, "interaction", None)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.usefixtures("interactions")
def test_a_job_does_not_act_for_the_one_who_acted_in_the_job_before(site: Site) -> None:
    with running(site.db, size=1):
        dirty = site.put(jobs.begin_interaction)
        probe = site.put(jobs.has_interaction)
        site.completed(dirty, probe)
    assert probe.result is None


# Processes that a job forks


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize(("callable", "code"), [(jobs.fork_and_return, 0), (jobs.fork_and_exit, 7)])
def test_a_forked_child_ends_where_it_leaves_the_jobs_code(
    site: Site, capfd: pytest.CaptureFixture[str], callable: Any, code: int
) -> None:
    with running(site.db, size=1):
        job = site.put(callable)
        after = site.put(jobs.count_up)
        site.completed(job, after)
    assert job.result == code
    assert after.result == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_cannot_commit_for_its_parent(
    site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one thread, since the child would wait for ever for a lock that another one held."""
    with single(site, monkeypatch, size=1) as one:
        job = site.put(jobs.fork_and_commit)
        one.poll()
        assert one.work() == 1
    assert site.sees(lambda: job.result) == 1
    assert "a forked child cannot commit for its parent" in capfd.readouterr().err
    assert site.sees(lambda: site.root["count"]) == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_job_may_use_a_pool_of_forked_processes(site: Site) -> None:
    with running(site.db, size=1) as runner:
        job = site.put(Job(jobs.double_in_child, 21))
        site.completed(job)
        assert site.sees(lambda: site.queue.dispatchers[runner.uuid].activated)
    assert job.result == 42


# Logs


class Broken(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("no space left on device")


@pytest.fixture
def broken_logs() -> Iterator[None]:
    handler = Broken()
    logger = logging.getLogger("zasync")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.usefixtures("broken_logs")
def test_work_goes_on_though_nothing_can_be_logged(
    site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    with running(site.db, poll_interval=0.05):
        failing = site.put(Job(jobs.raise_it, ValueError))
        good = site.put(jobs.count_up)
        site.completed(failing, good)
    assert failing.result.check(ValueError)
    assert good.result == 1
    assert "no space left on device" in capfd.readouterr().err
