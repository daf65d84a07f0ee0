# SPDX-License-Identifier: ZPL-2.1
"""The register of calls: put, find, count, cancel, ask again, let go; and what is refused."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from persistent import Persistent
from ZODB.POSException import ConflictError, POSKeyError

from tests.support.bench import Bench
from tests.support.clocks import StandingClock
from tests.unit.job import things
from zasync import local
from zasync.calls import (
    ANYBODY,
    Call,
    CallNotFound,
    CallOutcome,
    Calls,
    CallState,
    Counts,
    Progress,
)
from zasync.calls.answer import answer
from zasync.calls.description import describe
from zasync.failure import Failure
from zasync.interfaces import ACTIVE, BadStatusError, CancelledError, NotStorableError, PoisonError
from zasync.job import Job

URL = "https://shop.example/calls/7"


@pytest.fixture
def bench(standing_clock: StandingClock) -> Iterator[Bench]:
    things.reset()
    bench = Bench()
    bench.root["calls"] = Calls()
    bench.commit()
    yield bench
    bench.close()
    things.reset()


@pytest.fixture
def calls(bench: Bench) -> Calls:
    return bench.root["calls"]  # type: ignore[no-any-return]


def put(bench: Bench, function: Any, **options: Any) -> Call:
    """Put and commit a call that does `function`."""
    things.script["it"] = function
    call: Call = bench.root["calls"].put(things.act, "it", **options)
    bench.commit()
    return call


def done(bench: Bench, value: Any = None, **options: Any) -> Call:
    call = put(bench, lambda: value, **options)
    bench.work()
    return call


# Asking


def test_a_call_is_new_then_accepted_then_resolved(bench: Bench, calls: Calls) -> None:
    seen = []

    def look() -> Any:
        local.set_progress("half", done=1, total=2)
        seen.append(bench.seen(call, lambda call: (call.state, call.outcome, call.progress)))
        return {"orders": 7}

    call = put(bench, look, owner="ada", label="import")
    assert (call.state, call.outcome, call.result, call.failure) == (CallState.NEW, *[None] * 3)
    assert call.progress == Progress()
    bench.work()

    assert seen == [(CallState.ACCEPTED, None, Progress("half", 1, 2))]
    assert (call.state, call.outcome) == ("resolved", "succeeded")
    assert (call.result, call.failure) == ({"orders": 7}, None)
    assert (call.owner, call.label, call.register) == ("ada", "import", calls)
    assert call.put_at == call.job.begin_after
    assert call.id in repr(call)
    assert "import" in repr(call)


def test_a_call_that_fails_has_its_failure(bench: Bench) -> None:
    call = put(bench, things.boom)
    bench.work()
    assert (call.state, call.outcome, call.result) == ("resolved", "failed", None)
    assert call.failure is not None
    assert call.failure.check(ValueError)


def test_a_job_with_all_its_options_can_be_put(bench: Bench, calls: Calls) -> None:
    job = Job(things.keyed, owner="not ours")
    call = calls.put(job, owner="ada")
    bench.commit()
    bench.work()
    assert call.job is job
    assert call.result == ((), {"owner": "not ours"})
    assert call.label == f"{things.__name__}.keyed"
    with pytest.raises(TypeError, match="given to the job, not to put"):
        calls.put(Job(things.multiply), 7)


def test_an_aborted_put_leaves_nothing(bench: Bench, calls: Calls) -> None:
    call = calls.put(things.multiply, 2)
    bench.manager.abort()
    with pytest.raises(CallNotFound):
        calls.get(call.id)
    assert (len(calls), len(bench.queue)) == (0, 0)


def test_what_a_queue_refuses_is_refused_at_the_call(calls: Calls) -> None:
    with pytest.raises(NotStorableError, match="lambda"):
        calls.put(lambda: 1)
    with pytest.raises(NotStorableError, match="argument 0"):
        calls.put(things.multiply, threading.Lock())
    assert len(calls) == 0


@pytest.mark.parametrize(
    ("owner", "error"),
    [("", ValueError), ("a\0b", ValueError), ("x" * 501, ValueError), (7, TypeError)],
)
def test_owners_must_be_texts_that_can_be_told_apart(
    bench: Bench, calls: Calls, owner: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="an owner is a text"):
        calls.put(things.multiply, 1, owner=owner)
    assert len(bench.queue) == 0


def test_a_queue_or_a_database_that_is_missing_is_named(bench: Bench, calls: Calls) -> None:
    calls.queue = "slow"
    with pytest.raises(LookupError, match="no queue 'slow' in the database; make it"):
        calls.put(things.multiply, 1)
    with pytest.raises(ValueError, match="the register of calls is not stored yet"):
        Calls().put(things.multiply, 1)
    del bench.root["zasync"]
    with pytest.raises(LookupError, match="no queue"):
        calls.put(things.multiply, 1)


def test_intervals_have_a_floor_and_a_type(calls: Calls) -> None:
    assert Calls(poll_interval=timedelta(seconds=1)).poll_interval == timedelta(seconds=2)
    assert (calls.poll_interval, calls.retention) == (timedelta(seconds=5), timedelta(days=1))
    assert calls
    assert (calls.queue, Calls(queue="slow").queue) == ("", "slow")
    with pytest.raises(TypeError, match="retention must be a timedelta, not 5"):
        calls.retention = 5  # type: ignore[assignment]
    with pytest.raises(ValueError, match="poll_interval must be more than nothing"):
        Calls(poll_interval=timedelta())
    with pytest.raises(TypeError, match="given by its name, not 7"):
        Calls(queue=7)  # type: ignore[arg-type]


# Finding


def test_ids_are_found_by_their_owner_and_by_managers(bench: Bench, calls: Calls) -> None:
    hers = put(bench, lambda: 1, owner="ada")
    nobodys = put(bench, lambda: 2)
    assert calls.get(hers.id) is calls.get(hers.id, owner="ada") is hers
    assert calls.get(nobodys.id, owner=None) is calls.get(nobodys.id, owner=ANYBODY) is nobodys
    for call, owner in [(hers, "bob"), (hers, None), (nobodys, "ada")]:
        with pytest.raises(CallNotFound, match="or it is over or somebody else's"):
            calls.get(call.id, owner=owner)


@pytest.mark.parametrize("unknown", ["", "7", "z" * 46, "0" * 46, "0" * 45 + "é", 7, None])
def test_unknown_ids_are_not_found_whatever_they_are(
    bench: Bench, calls: Calls, unknown: Any
) -> None:
    put(bench, lambda: 1)
    with pytest.raises(CallNotFound):
        calls.get(unknown)


def test_the_newest_come_first_and_no_others_are_loaded(
    bench: Bench, calls: Calls, standing_clock: StandingClock
) -> None:
    made = []
    for number in range(50):
        standing_clock.move(minutes=7)
        made.append(calls.put(things.multiply, number, owner="ada" if number % 2 else "bob"))
    standing_clock.move(seconds=1)
    calls.put(things.multiply, 1)
    bench.commit()
    standing_clock.move(seconds=1)
    last = put(bench, lambda: 1, owner="b")

    assert [call.owner for call in calls].count(None) == 1
    assert [call.job.args for call in list(calls)[2:]] == [[number] for number in range(49, -1, -1)]
    assert list(calls.owned_by("ada")) == made[::-1][::2]
    assert list(calls.owned_by("b")) == [last]
    assert list(calls.owned_by("nobody")) == []
    assert len(calls) == 52
    with pytest.raises(TypeError, match="whose calls"):
        next(calls.owned_by(None))  # type: ignore[arg-type]

    with bench.elsewhere() as there:
        seen = there(calls)
        assert next(iter(seen)).owner == "b"
        assert [next(seen.owned_by("ada")).id] == [made[-1].id]
        loaded = [call.id for call in made if there(call)._p_changed is not None]
    assert loaded == [made[-1].id]


def test_counts_tell_the_states(bench: Bench, calls: Calls) -> None:
    done(bench)
    put(bench, things.boom)
    bench.work()
    put(bench, lambda: 1).cancel()
    started = calls.put(things.multiply, 1)
    bench.record.ping()
    bench.agent.claimJob().start(5)
    put(bench, lambda: 2)
    bench.commit()
    assert started.job.status == ACTIVE
    assert calls.counts() == Counts(new=1, accepted=1, resolved=3, failed=2)


# Cancelling, and asking again


def test_a_cancelled_call_can_be_asked_for_again_under_its_id(bench: Bench, calls: Calls) -> None:
    call = put(bench, lambda: "done", owner="ada")
    first = call.job
    assert call.cancel("no") is True
    bench.commit()
    assert (call.state, call.outcome) == ("resolved", "cancelled")
    assert call.failure is not None
    assert call.failure.check(CancelledError)
    assert call.cancel() is False

    second = call.retry()
    bench.commit()
    assert second is call.job is not first
    assert (call.state, call.outcome, call.retried) == ("new", None, 1)
    bench.work()
    assert calls.get(call.id, owner="ada").result == "done"


def test_only_what_has_failed_is_asked_for_again(bench: Bench) -> None:
    waiting, well = put(bench, lambda: 1), done(bench)
    for call, state in [(waiting, "succeeded"), (well, "succeeded")]:
        with pytest.raises(BadStatusError, match=f"it is {state}, and must have failed"):
            call.retry()
    with pytest.raises(BadStatusError, match="it is new, and must"):
        put(bench, lambda: 1).retry()


def test_a_parked_job_is_put_back(bench: Bench, calls: Calls) -> None:
    call = put(bench, lambda: "done")
    bench.queue.remove(call.job)
    call.job.fail(PoisonError("died"))
    bench.queue.parked.add(call.job)
    bench.commit()
    call.retry()
    bench.commit()
    assert len(bench.queue.parked) == 0
    bench.work()
    assert call.result == "done"


# Letting go


def rotate(bench: Bench, clock: StandingClock, **span: float) -> None:
    """Let the time pass, put one call, and have workers do what is to be done."""
    clock.move(**span)
    done(bench)


def test_a_resolved_call_can_be_discarded(bench: Bench, calls: Calls) -> None:
    call, nobodys, other = (done(bench, owner=owner) for owner in ("ada", None, "ada"))
    calls.discard(call)
    calls.discard(nobodys)
    bench.commit()

    assert [each.id for each in calls] == [other.id]
    assert [each.id for each in calls.owned_by("ada")] == [other.id]
    for again in (lambda: calls.get(call.id), lambda: calls.discard(call)):
        with pytest.raises(CallNotFound):
            again()


def test_a_call_that_is_not_resolved_is_not_discarded(bench: Bench, calls: Calls) -> None:
    call = put(bench, lambda: None)

    with pytest.raises(BadStatusError, match="cannot be discarded: it is new; cancel it first"):
        calls.discard(call)
    assert calls.get(call.id) is call


def test_resolved_calls_go_after_the_retention_by_whole_buckets(
    bench: Bench, calls: Calls, standing_clock: StandingClock
) -> None:
    old = [done(bench, number) for number in range(5)]
    rotate(bench, standing_clock, hours=24)
    assert calls.get(old[0].id) is old[0], "its hour is not over for so long"
    rotate(bench, standing_clock, hours=1, minutes=1)
    for call in old:
        with pytest.raises(CallNotFound):
            calls.get(call.id)
    assert len(calls) == 2
    assert len(bench.queue) == 0


def test_only_the_first_put_of_an_hour_has_old_ones_dropped(
    bench: Bench, calls: Calls, standing_clock: StandingClock
) -> None:
    done(bench)
    standing_clock.move(days=2)
    for _ in range(3):
        calls.put(things.multiply, 1)
    names = [job.callable_name for job in bench.queue]
    assert names.count("zasync.calls.Calls.rotate") == 1
    assert len(names) == 4


def test_what_has_not_ended_never_goes_and_what_ended_late_stays_a_while(
    bench: Bench, calls: Calls, standing_clock: StandingClock
) -> None:
    done(bench, "gone")
    waiting = calls.put(Job(things.multiply, 4), owner="ada")
    bench.queue.remove(waiting.job)  # nobody claims it
    standing_clock.move(seconds=1)
    late = calls.put(Job(things.multiply, 5), owner="ada")
    bench.queue.remove(late.job)
    bench.commit()
    standing_clock.move(hours=30)
    late.job()
    bench.commit()
    rotate(bench, standing_clock, minutes=1)

    assert [call.id for call in calls.owned_by("ada")] == [late.id, waiting.id]
    assert calls.get(waiting.id) is waiting
    assert late.result == 10
    assert len(calls) == 3
    rotate(bench, standing_clock, hours=26)
    assert list(calls.owned_by("ada")) == [waiting]
    assert calls.rotate() == 0
    waiting.cancel()
    bench.commit()
    rotate(bench, standing_clock, hours=26)
    assert list(calls.owned_by("ada")) == []


def test_of_a_retry_and_a_rotation_at_one_moment_one_conflicts(
    bench: Bench, calls: Calls, standing_clock: StandingClock
) -> None:
    call = put(bench, things.boom)
    bench.work()
    standing_clock.move(days=2)
    another = bench.open_another()
    another.connection.get(call._p_oid).retry()
    assert calls.rotate() == 1
    another.commit()
    with pytest.raises(ConflictError):
        bench.commit()
    bench.manager.abort()
    assert calls.rotate() == 0
    another.close()


def test_a_call_that_is_gone_cannot_be_asked_for_again(
    bench: Bench, calls: Calls, standing_clock: StandingClock
) -> None:
    call, other = put(bench, things.boom), None
    bench.work()
    standing_clock.move(days=2)
    calls.rotate()
    with pytest.raises(CallNotFound):
        call.retry()
    other = put(bench, lambda: 1)
    other._id = call.id[:14] + "0" * 32  # as if its bucket were there
    other.cancel()
    with pytest.raises(CallNotFound):
        other.retry()


def test_a_call_whose_job_is_lost_goes_but_not_one_of_another_process(
    bench: Bench, calls: Calls, standing_clock: StandingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, foreign = done(bench), done(bench)
    standing_clock.move(days=2)
    errors = {lost.job._p_oid: POSKeyError(lost.job._p_oid), foreign.job._p_oid: LookupError("x")}
    monkeypatch.setattr("zasync.calls.register.why_unreadable", lambda job: errors.get(job._p_oid))
    assert calls.rotate() == 1
    assert list(calls) == [foreign]


# Telling


class Thing(Persistent):
    pass


class Grumpy:
    def __repr__(self) -> str:
        raise ValueError("grumpy")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"a": [1, 2.5, None, "x", True]}, None),
        ((1, 2), [1, 2]),
        ({7: 1}, {"7": 1}),
        ("é\ud800", None),
    ],
)
def test_results_that_json_can_show_are_shown(bench: Bench, value: Any, told: Any) -> None:
    told = value if told is None else told
    shown = describe(done(bench, value))
    assert (shown["result"], shown["result_is_json"]) == (told, True)


@pytest.mark.parametrize("value", [{1, 2}, b"x", math.nan, Thing(), Grumpy(), [{"a": Thing}]])
def test_other_results_are_told_by_type_and_text(bench: Bench, value: Any) -> None:
    shown = describe(done(bench, value))
    assert shown["result_is_json"] is False
    assert set(shown["result"]) == {"type", "repr"}
    assert shown["result"]["type"].rsplit(".", 1)[-1] == type(value).__name__
    json.dumps(shown, allow_nan=False)


def test_a_result_of_any_size_is_told_in_bounded_text(bench: Bench) -> None:
    shown = describe(done(bench, set(range(100_000))))
    assert len(json.dumps(shown)) < 5000


def test_a_result_that_cannot_be_read_is_told_as_such(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = done(bench, 1)

    def gone(job: Job) -> Any:
        raise ImportError("no such module")

    monkeypatch.setattr(Job, "result", property(gone))
    shown = describe(call)
    assert shown["result"] == {"type": None, "repr": "cannot be read (ImportError)"}
    assert shown["result_is_json"] is False


def test_a_failure_is_told_with_its_traceback_to_managers_only(bench: Bench) -> None:
    call = put(bench, lambda: things.boom("x" * 9000), label="a\nb")
    bench.work()
    shown = describe(call, url=URL)
    assert shown["failure"]["type"] == "builtins.ValueError"
    assert 1000 < len(shown["failure"]["message"]) < 2100
    assert set(shown["failure"]) == {"type", "message"}
    assert "result" not in shown
    assert (shown["url"], shown["label"]) == (URL, r"a\nb")
    more = describe(call, with_traceback=True)
    assert "Traceback (most recent call last)" in more["failure"]["traceback"]
    assert "url" not in more
    json.dumps(more)


def test_all_that_is_told_of_a_call(bench: Bench) -> None:
    shown = describe(done(bench, 7, owner="ada", label="seven"))
    assert shown == {
        "id": shown["id"],
        "label": "seven",
        "owner": "ada",
        "state": "resolved",
        "outcome": "succeeded",
        "put_at": "2026-03-01T12:00:00+00:00",
        "started_at": "2026-03-01T12:00:00+00:00",
        "ended_at": "2026-03-01T12:00:00+00:00",
        "progress": {"text": None, "done": None, "total": None},
        "retried": 0,
        "result": 7,
        "result_is_json": True,
    }


# Answering over HTTP


def test_while_it_runs_the_answer_says_where_and_when_to_ask_again(
    bench: Bench, calls: Calls
) -> None:
    calls.poll_interval = timedelta(seconds=7.2)
    told = answer(put(bench, lambda: 1), url=URL)
    assert told.status == 202
    assert told.headers == {"Cache-Control": "no-store", "Location": URL, "Retry-After": "8"}
    assert told.body["state"] == "new"


@pytest.mark.parametrize("ending", ["succeeded", "failed", "cancelled"])
def test_when_it_is_resolved_the_answer_has_the_end(bench: Bench, ending: str) -> None:
    call = put(bench, things.boom if ending == "failed" else lambda: 7)
    if ending == "cancelled":
        call.cancel()
    bench.commit()
    bench.work()
    told = answer(call, url=URL)
    assert (told.status, told.headers) == (200, {"Cache-Control": "no-store"})
    assert told.body["outcome"] == ending
    assert ("result" in told.body) is (ending == "succeeded")
    assert "Traceback" not in json.dumps(told.body)


def test_a_failure_that_was_returned_is_a_failed_call(bench: Bench) -> None:
    call = put(bench, lambda: Failure(ValueError("returned")))
    bench.work()
    assert call.outcome is CallOutcome.FAILED
