# SPDX-License-Identifier: ZPL-2.1
"""A real application through WebTest, whose jobs a real dispatcher performs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import transaction
from pyramid.config import Configurator
from pyramid.exceptions import ConfigurationError
from pyramid.interfaces import IRootFactory
from pyramid.threadlocal import get_current_request

from tests.integrations.pyramid import application as shop
from tests.integrations.pyramid.conftest import Web
from zasync.calls import Calls, CallState
from zasync.integrations.pyramid.surroundings import around_job
from zasync.interfaces import KEY
from zasync.job import Job

Opening = Callable[..., Web]


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """While there is no such file, reports are not ready."""
    path = tmp_path / "gate"
    monkeypatch.setenv("SHOP_GATE", str(path))
    return path


# Calls


def test_a_call_is_followed_from_202_to_its_result(web: Web, gate: Path) -> None:
    ada = web.user("ada")
    asked = ada.post("/report", {"year": "2025"}, status=202)
    where = asked.headers["Location"]
    assert where.startswith("http://localhost/zasync/calls/")
    assert asked.headers["Retry-After"] == "5"
    assert asked.headers["Cache-Control"] == "no-store"
    assert asked.json["state"] == "new"

    with web.working():
        web.site.until(lambda: len(web.site.queue) == 0, "the claim")
        web.site.until(
            lambda: ada.get(where, status=202).json["progress"]["text"] == "counting", "progress"
        )
        running = ada.get(where, status=202)
        assert running.json["state"] == "accepted"
        assert running.json["progress"] == {"text": "counting", "done": 1, "total": 2}
        gate.touch()
        web.site.until(lambda: ada.get(where).status_int == 200, "the result")

    done = ada.get(where, status=200)
    assert done.json["result"] == {
        "year": "2025",
        "orders": 7,
        "url": "http://localhost/report",
    }
    assert done.json["owner"] == "ada"
    assert "Location" not in done.headers
    assert web.shop["reports"] == 1


def test_somebody_elses_call_is_not_found_like_one_that_never_was(web: Web) -> None:
    where = web.user("ada").post("/report", {"year": "1"}, status=202).headers["Location"]
    answers = [
        web.user(name).get(url, status=404)
        for name, url in [("bob", where), (None, where), ("ada", where[:-1] + "g")]
    ]
    assert {answer.json["error"] for answer in answers} == {"there is no such call"}
    web.user("bob").delete(where, status=404)
    assert web.user("ada").get(where, status=202)


def test_one_who_has_not_logged_in_is_answered_about_what_has_no_owner_only(web: Web) -> None:
    where = web.user().post("/report", {"year": "1"}, status=202).headers["Location"]
    assert web.user().get(where).json["owner"] is None
    web.user("ada").get(where, status=404)


def test_an_owner_cancels_his_call(web: Web) -> None:
    ada = web.user("ada")
    where = ada.post("/report", {"year": "1"}, status=202).headers["Location"]
    told = ada.delete(where, status=200)
    assert told.json["outcome"] == "cancelled"
    assert told.json["failure"]["message"].endswith("was cancelled: by its owner")
    assert ada.delete(where, status=200).json["outcome"] == "cancelled"
    web.site.manager.begin()
    assert len(web.site.queue) == 0


def test_a_failure_is_told_without_its_traceback(web: Web) -> None:
    web.site.manager.begin()
    calls = web.site.root["zasync_calls"]
    call = calls.put(shop.wait_for_file, 7, owner="ada")
    web.site.manager.commit()
    with web.working():
        web.site.completed(call.job)
    told = web.user("ada").get(f"/zasync/calls/{call.id}", status=200)
    assert told.json["failure"]["type"] == "builtins.TypeError"
    assert "Traceback" not in told.text


# Transactions


def test_what_a_request_puts_goes_with_its_transaction(web: Web) -> None:
    web.user().get("/put_and_fail", status=400)
    web.site.manager.begin()
    assert len(web.site.queue) == 0
    assert "touched" not in web.site.root.get("shop", {})


@pytest.mark.parametrize("explicit", [False, True])
def test_it_is_put_in_the_transaction_manager_of_the_request(
    open_web: Opening, explicit: bool
) -> None:
    options = {"tm__manager_hook": "pyramid_tm.explicit_manager"} if explicit else {}
    web = open_web(**options)
    answer = web.user("ada").post("/report", {"year": "1"}, status=202)
    web.site.manager.begin()
    assert len(web.site.queue) == 1
    assert web.site.root["zasync_calls"].get(answer.json["id"]).state is CallState.NEW
    assert transaction.manager.manager._txn is None or not transaction.get()._resources


def test_a_conflict_is_retried_and_the_job_is_put_once(open_web: Opening) -> None:
    met: list[int] = []

    def meet() -> None:
        """Another user changes the same object at this moment, the first time."""
        if not met:
            met.append(1)
            web.site.commit(lambda: web.site.root["shop"].__setitem__("attempts", 10))

    web = open_web(shop__retry="yes", retry__attempts="3", meet=meet)
    web.site.commit(lambda: web.site.root.__setitem__("shop", shop.Shop()))
    assert web.user().get("/conflicting").json == {"attempts": 11}
    assert met == [1]
    with web.working():
        web.site.until(lambda: web.shop.get("conflicting"), "the job")
    assert web.shop["conflicting"] == 1


def test_many_requests_at_once_put_one_job_each(open_web: Opening) -> None:
    """Four threads ask as fast as they can; conflicts are retried by pyramid_retry."""
    web = open_web(shop__retry="yes", retry__attempts="10", tm__annotate_user="no")
    web.user().post("/report", {"year": "0"}, status=202)  # makes the shop, opens the hour
    each, failures = 25, []

    def ask(name: str) -> None:
        user = web.user(name)
        for _ in range(each):
            try:
                user.post("/report", {"year": "1"}, status=202)
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask, args=(f"user {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    web.site.manager.begin()
    assert len(web.site.queue) == len(web.site.root["zasync_calls"]) == 4 * each + 1


# Around jobs


def test_a_job_has_registry_request_and_root(open_web: Opening) -> None:
    web = open_web(zasync__application_url="https://shop.example/ada/")
    web.user().post("/report", {"year": "0"}, status=202)
    with web.working():
        job = web.site.put(Job(shop.look_around))
        web.site.completed(job)
    result = dict(job.result)
    del result["process"]
    assert result == {
        "registry": True,
        "settings": "Ada's",
        "root": "Shop",
        "context": True,
        "connection": True,
        "tm": True,
        "queue": True,
        "user": None,
        "url": "https://shop.example/ada/report",
    }


def test_each_attempt_has_a_request_of_its_own_that_is_finished(web: Web) -> None:
    with web.working():
        job = web.site.put(Job(shop.fail_first))
        web.site.completed(job)
        web.site.until(lambda: shop.requests.count("finished") == 2, "the second end")
    assert job.result == 1, "the first attempt has left nothing"
    assert shop.requests[1] == shop.requests[3] == "finished"
    assert get_current_request() is None


def test_without_the_application_around_it_a_job_has_no_request(web: Web) -> None:
    from tests.support.running import running

    with web.working():
        inside = web.site.put(Job(shop.has_request))
        web.site.completed(inside)
    with running(web.db, poll_interval=0.05):
        outside = web.site.put(Job(shop.has_request))
        web.site.completed(outside)
    assert (inside.result, outside.result) == (True, False)


def test_a_job_puts_others_through_its_request(web: Web) -> None:
    with web.working():
        job = web.site.put(Job(shop.put_another))
        web.site.completed(job)
        web.site.manager.begin()
        call = web.site.root["zasync_calls"].get(job.result, owner=None)
        web.site.completed(call.job)
    assert call.result == "a call"


def test_a_broken_root_factory_is_the_jobs_error(web: Web, monkeypatch: Any) -> None:
    def broken(request: Any) -> Any:
        raise RuntimeError("no root today")

    factory = web.registry.getUtility(IRootFactory)
    web.registry.registerUtility(broken, IRootFactory)
    with web.working():
        job = web.site.put(Job(shop.note, 1))
        web.site.completed(job)
    assert job.result.check(RuntimeError)
    web.registry.registerUtility(factory, IRootFactory)
    around, job = around_job(web.registry), web.site.put(Job(shop.note, 1))
    web.registry.registerUtility(broken, IRootFactory)
    with pytest.raises(RuntimeError), around_job(web.registry)(job):
        pass
    assert get_current_request() is None
    with around(job) as request:
        assert get_current_request() is request


# Databases and queues


@pytest.fixture
def two(open_web: Opening, tmp_path: Path) -> Web:
    return open_web(
        zodbconn__uri__jobs=f"file://{tmp_path}/Jobs.fs",
        zasync__database="jobs",
        zasync__queues="slow",
    )


def test_queues_and_calls_may_lie_in_a_second_database(two: Web) -> None:
    ada = two.user("ada")
    where = ada.post("/report", {"year": "2025"}, status=202).headers["Location"]
    assert ada.get("/put_slow").json == {"queue": "slow", "same": True}
    jobs = two.site.connection.get_connection("jobs")
    two.site.manager.begin()
    assert two.site.root[KEY]._p_jar is jobs
    assert isinstance(jobs.root()["zasync_calls"], Calls)
    assert "zasync_calls" not in two.site.root
    with two.working():
        two.site.until(lambda: ada.get(where).status_int == 200, "the result")
        two.site.until(lambda: not two.site.queues["slow"], "the other queue")
    assert ada.get(where).json["result"]["orders"] == 7
    assert two.shop["reports"] == 1, "what the job did in the first database is committed with it"


def test_settings_that_change_are_taken_over_by_the_register(
    open_web: Opening, tmp_path: Path
) -> None:
    first = open_web(zodbconn__uri=f"file://{tmp_path}/A.fs")
    first.site.manager.begin()
    assert first.site.root["zasync_calls"].retention == timedelta(days=1)
    before = first.site.root["zasync_calls"]._p_serial
    first.close()
    second = open_web(
        zodbconn__uri=f"file://{tmp_path}/A.fs",
        zasync__calls__retention="2d",
        zasync__calls__poll_interval="1",
        zasync__queue="main",
    )
    calls = second.site.root["zasync_calls"]
    assert (calls.retention, calls.queue) == (timedelta(days=2), "main")
    assert calls.poll_interval == timedelta(seconds=2)
    assert calls._p_serial != before
    serial = calls._p_serial
    second.close()
    third = open_web(
        zodbconn__uri=f"file://{tmp_path}/A.fs",
        zasync__calls__retention="2d",
        zasync__calls__poll_interval="1",
        zasync__calls__queue="main",
    )
    calls = third.site.root["zasync_calls"]
    calls._p_activate()
    assert calls._p_serial == serial, "nothing has changed, so nothing is written"


def test_the_route_can_be_another_or_none(open_web: Opening, tmp_path: Path) -> None:
    web = open_web(zasync__calls__path="/jobs/{call_id}")
    assert "/jobs/" in web.user().post("/report", {"year": "1"}).headers["Location"]
    web.close()
    none = open_web(zodbconn__uri=f"file://{tmp_path}/B.fs", zasync__calls__path="")
    with pytest.raises(KeyError, match="zasync_call"):
        none.user().post("/report", {"year": "1"})


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("pyramid_zodbconn", 'config.include("pyramid_zodbconn")'),
        ("pyramid_tm", 'config.include("pyramid_tm")'),
        ("zodbconn.uri", "needs the setting zodbconn.uri"),
        ("database", "names 'jobs', and there is no zodbconn.uri.jobs"),
    ],
)
def test_what_is_missing_is_told_when_the_application_is_made(missing: str, message: str) -> None:
    settings = {"zodbconn.uri": "memory://"}
    if missing == "zodbconn.uri":
        del settings["zodbconn.uri"]
    if missing == "database":
        settings["zasync.database"] = "jobs"
    config = Configurator(settings=settings)
    for name in ("zasync.integrations.pyramid", "pyramid_tm", "pyramid_zodbconn"):
        if name != missing:
            config.include(name)
    with pytest.raises(ConfigurationError) as caught:
        config.make_wsgi_app()
    assert message in str(caught.value)
