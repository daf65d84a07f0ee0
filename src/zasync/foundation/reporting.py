# SPDX-License-Identifier: ZPL-2.1
"""All the wording of the logs.  Code says what happened; this module says it to people.

`zasync.events` is for what a person should see (starts, stops, failures), `zasync.trace` for
polls and jobs.  ERROR and above: somebody must act, and the line says what.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import Any

from zasync.foundation.text import printable, safe_repr, safe_str


class CarefulLog(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger whose handlers may raise (a full disk, a lost server) and disturb no work."""

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:
            if logging.raiseExceptions and sys.stderr is not None:  # as `logging` does itself
                with contextlib.suppress(Exception):
                    traceback.print_exc(file=sys.stderr)


event_log = CarefulLog(logging.getLogger("zasync.events"), {})
trace_log = CarefulLog(logging.getLogger("zasync.trace"), {})


LONGEST_TEXT = 1000  # characters of what an error says of itself


def _text(error: BaseException) -> str:
    return printable(safe_str(error, LONGEST_TEXT), one_line=True)


def _shown(error: Any) -> str:
    return safe_repr(error, LONGEST_TEXT)


class Events:
    """What can happen, one method each; arguments are objects, wording is here."""

    # storage

    def storage_trouble(self, what: str, error: BaseException, pause: float) -> None:
        event_log.warning(
            "the storage did not let us %s (%s: %s); trying again in %.1f s",
            what,
            type(error).__name__,
            _text(error),
            pause,
        )

    def notices_unavailable(self, database: str) -> None:
        event_log.info(
            "database %r lies in PostgreSQL, but psycopg2 is not installed: what other processes"
            " put is found by the polls only",
            database,
        )

    def notices_lost(self, database: str, error: BaseException, pause: float) -> None:
        event_log.warning(
            "the connection for notices of database %r is lost (%s); polls find the work, and it"
            " is tried again in %.1f s",
            database,
            _shown(error),
            pause,
        )

    def notices_back(self, database: str) -> None:
        event_log.info("the connection for notices of database %r is back", database)

    def storage_forgets(self, database: str, setting: str) -> None:
        event_log.warning(
            "%s has the setting '%s': a loss of power can undo commits, so jobs can be lost or"
            " run twice; set synchronous to full",
            database,
            setting,
        )

    # jobs

    def large_argument(self, what: str, size: int) -> None:
        event_log.warning(
            "%s takes %d bytes, which are written again with each change of the arguments; keep"
            " large things in persistent objects or blobs and pass those",
            what,
            size,
        )

    def job_started(self, job: Any) -> None:
        if trace_log.isEnabledFor(logging.DEBUG):
            trace_log.debug("started %r", job)

    def job_succeeded(self, job: Any) -> None:
        if trace_log.isEnabledFor(logging.INFO):
            trace_log.info("%r succeeded", job)

    def job_failed(self, job: Any, failure: Any, level: int) -> None:
        trace_log.info("%r failed: %r", job, failure)
        event_log.log(level, "%r failed:\n%s", job, printable(failure.getTraceback()))

    def job_retried(self, job: Any, why: Any) -> None:
        trace_log.info("%r will be run again: %r", job, why)

    def job_rescheduled(self, job: Any, when: Any) -> None:
        trace_log.info("%r goes back to its queue, to be run at %s", job, when)

    def job_cancelled(self, job: Any, failure: Any) -> None:
        trace_log.info("%r was cancelled", job)
        words = printable(failure.getErrorMessage(), one_line=True)
        event_log.info("%r: %s", job, words)

    def job_lost(self, job: str, error: BaseException | None = None) -> None:
        if getattr(error, "cancelled", False):
            event_log.info("%s was cancelled; what this run of it did is discarded", job)
            return
        event_log.error(
            "%s was taken away from this run, since its dispatcher was believed dead"
            " (ReassignedError); what the run did is discarded.  If this dispatcher was not"
            " frozen or cut off, raise ping_death_interval.",
            job,
        )

    def job_in_doubt(self, job: str, error: BaseException) -> None:
        event_log.warning(
            "the commit of %s ended in %s: %s; asking the database what became of it",
            job,
            type(error).__name__,
            _text(error),
        )

    def job_committed_itself(self, job: Any) -> None:
        event_log.warning(
            "%r committed a transaction itself; that part is not one with the job's completion"
            " and will be repeated if the job is run again",
            job,
        )

    def job_unresolvable(self, job: Any, error: BaseException) -> None:
        event_log.warning("%r waits for a worker that has its code: %s", job, _text(error))

    def job_unreadable(self, where: str, error: BaseException) -> None:
        event_log.error(
            "a job in %s cannot be read and is left where it is: %s%s",
            where,
            _shown(error),
            "" if error.__cause__ is None else f", due to {_shown(error.__cause__)}",
        )

    def process_ending_error(self, job: Any, error: BaseException) -> None:
        event_log.error(
            "%r raised %s; the job has failed, its thread works on", job, type(error).__name__
        )

    def tear_down_failed(self, job: str) -> None:
        event_log.critical("tearDown of %s failed; work goes on", job, exc_info=True)

    def policy_failed(self, job: Any, error: BaseException) -> None:
        event_log.critical(
            "the retry policy of %r could not decide (%s); the job is not run again",
            job,
            _shown(error),
        )

    def repair_failed(self, job: str, failure: Any) -> None:
        event_log.critical(
            "%s failed, which is to see to a job that was interrupted; it is tried again in a"
            " minute, and again:\n%s",
            job,
            printable(failure.getTraceback()),
        )

    def commit_retried_often(self, job: str, count: int, error: Any) -> None:
        event_log.critical(
            "the commit of %s has failed %d times, last with %s; trying on",
            job,
            count,
            _shown(error),
        )

    def interrupted(self, job: Any, decision: Any) -> None:
        event_log.warning("%r was interrupted; its policy says: %s", job, decision)

    def taken_over(self, job: Any, databases: Any) -> None:
        event_log.warning(
            "%r had committed its changes in %s when it was interrupted; its end is written now",
            job,
            ", ".join(databases),
        )

    def partly_committed(self, job: Any, failure: Any) -> None:
        event_log.critical(
            "%r has taken effect in part only; repair the data by hand: %s", job, _shown(failure)
        )

    def oid_taken(self, thing: Any, oid: int) -> None:
        event_log.critical(
            "%r had to get another oid than %d: references to it in the data of the job that"
            " made it are wrong; put them right by hand",
            thing,
            oid,
        )

    def database_missing(self, error: BaseException) -> None:
        event_log.error("%s", _text(error))

    # what stands still

    def polls_are_stuck(self, uuid: Any, seconds: float, stack: str) -> None:
        event_log.error(
            "dispatcher %s has not completed a poll for %.0f s: it begins no new jobs, and others"
            " may take it for dead.  The storage does not answer, or the reactor's thread is"
            " blocked; if neither ends, restart the process.  The thread that polled last is at:"
            "\n%s",
            uuid,
            seconds,
            stack,
        )

    def polls_again(self, uuid: Any) -> None:
        event_log.warning("dispatcher %s polls again", uuid)

    def poll_broke(self, uuid: Any, error: BaseException, pause: float) -> None:
        event_log.error(
            "a poll of dispatcher %s broke off: %s; the next is in %.1f s",
            uuid,
            _shown(error),
            pause,
            exc_info=error,
        )

    def pulse_lost(self, uuid: Any, seconds: float | None) -> None:
        event_log.error(
            "dispatcher %s has not committed a ping for %.0f s, so that others may soon take it"
            " for dead; until it can, it begins no job.  Is the storage away, or not committing?",
            uuid,
            seconds or 0.0,
        )

    def pulse_found(self, uuid: Any) -> None:
        event_log.warning("dispatcher %s has committed a ping again and begins jobs again", uuid)

    def expiry_failed(self, oid: int, error: BaseException) -> None:
        event_log.error(
            "job %d has taken longer than its timeout, and could not be ended (%s): it goes on."
            "  If it hangs, restart the process",
            oid,
            _text(error),
        )

    def job_is_overdue(self, job: str, oid: int, seconds: float, limit: float, stack: str) -> None:
        event_log.error(
            "job %d has run for %.0f s, which is more than its limit of %.0f s, and keeps its"
            " place; a thread cannot be ended, so if it hangs, restart the process.  %s is at:"
            "\n%s",
            oid,
            seconds,
            limit,
            job,
            stack,
        )

    def watch_failed(self, uuid: Any, error: BaseException) -> None:
        event_log.error(
            "the watch of dispatcher %s met %s; it goes on", uuid, _shown(error), exc_info=error
        )

    def job_parked(self, evidence: str) -> None:
        event_log.critical(
            "%s\nFind out why, then put it back or discard it (zasync parked).",
            printable(evidence),
        )

    # dispatchers

    def dispatcher_activated(self, uuid: Any, reactor: Any) -> None:
        event_log.info("dispatcher %s is activated", uuid)

    def dispatcher_deactivated(self, uuid: Any) -> None:
        event_log.info("dispatcher %s is deactivated", uuid)

    def dispatcher_registered(self, uuid: Any, queue: str) -> None:
        event_log.info("dispatcher %s is registered in queue %r", uuid, queue)

    def dispatcher_joined(self, uuid: Any, queue: str) -> None:
        event_log.info("dispatcher %s works queue %r", uuid, queue)

    def twin_is_alive(self, uuid: Any, queue: str) -> None:
        event_log.error(
            "another dispatcher works queue %r under our UUID %s; leaving it alone.  Two processes"
            " must not share a uuid file: give this one its own (ZASYNC_UUID).",
            queue,
            uuid,
        )

    def former_self_recovered(self, uuid: Any, queue: str) -> None:
        event_log.warning(
            "dispatcher %s did not end cleanly last time; recovering its jobs in queue %r",
            uuid,
            queue,
        )

    # worker processes, in the process that supervises them

    def worker_process_ended(self, number: int, pid: int, how: str, pause: float) -> None:
        event_log.warning(
            "worker process %d (pid %d) has ended with %s, though nobody told it to; another is"
            " started in %.1f s",
            number,
            pid,
            how,
            pause,
        )

    def worker_process_not_started(self, number: int, error: BaseException, pause: float) -> None:
        event_log.error(
            "worker process %d could not be started (%s); trying again in %.1f s",
            number,
            _shown(error),
            pause,
        )

    def worker_process_started(self, number: int, pid: int) -> None:
        event_log.info("worker process %d is started (pid %d)", number, pid)

    def worker_process_frozen(self, number: int, pid: int, seconds: float) -> None:
        event_log.error(
            "worker process %d (pid %d) has shown no sign of life for %.0f s; it is killed and"
            " replaced.  If a job of yours holds Python's lock for that long, raise"
            " --frozen-after.",
            number,
            pid,
            seconds,
        )

    def worker_process_left(self, number: int, pid: int, how: str) -> None:
        event_log.warning(
            "worker process %d (pid %d) has not stopped cleanly (%s); what it left is recovered"
            " by the next worker",
            number,
            pid,
            how,
        )

    def server_died(self) -> None:
        event_log.error("the ZEO server of the worker processes has died; starting it again")

    def server_is_back(self) -> None:
        event_log.info("the ZEO server of the worker processes is back at its address")

    def server_not_started(self, error: BaseException, pause: float) -> None:
        event_log.error(
            "the ZEO server of the worker processes could not be started (%s); trying again in"
            " %.1f s",
            _text(error),
            pause,
        )

    # dispatchers, of each other

    def sibling_is_dead(self, uuid: Any, queue: str) -> None:
        event_log.error("dispatcher %s of queue %r is dead; handing back its jobs", uuid, queue)

    def was_deactivated(self, uuid: Any, queue: str) -> None:
        event_log.critical(
            "dispatcher %s had been deactivated in queue %r though it lives; reactivating it."
            "  It was frozen or cut off, or its clock jumped.",
            uuid,
            queue,
        )

    def poll_failed(self, error: BaseException) -> None:
        event_log.error("a poll failed: %s; polling goes on", _shown(error), exc_info=error)

    def poll_repeated(self, error: BaseException, pause: float) -> None:
        trace_log.info("a poll did not commit (%s); the next is in %.2f s", _shown(error), pause)

    def agent_failed(self, queue: str, agent: str, error: BaseException) -> None:
        event_log.error(
            "agent %r of queue %r could not choose a job: %s; it is skipped in this poll",
            agent,
            queue,
            _shown(error),
            exc_info=error,
        )

    def polled(self, info: Any) -> None:
        if trace_log.isEnabledFor(logging.DEBUG):
            trace_log.debug("poll %s", info)

    def queue_installed(self, name: str) -> None:
        event_log.info("queue %r is installed", name)

    def agent_installed(self, queue: str, agent: str) -> None:
        event_log.info("agent %r is installed in queue %r", agent, queue)

    def pool_resized(self, queue: str, agent: str, size: int) -> None:
        trace_log.info("agent %r of queue %r has %d threads", agent, queue, size)

    def worker_failed(self, queue: str, agent: str, error: BaseException) -> None:
        event_log.error(
            "a worker thread of agent %r of queue %r met %s; it works on",
            agent,
            queue,
            _shown(error),
            exc_info=error,
        )

    def run_failed(self, job: str, error: BaseException) -> None:
        event_log.error("running %s met an error of zasync's own; it fails", job, exc_info=error)

    def group_broken_up(self, members: int, error: BaseException) -> None:
        trace_log.info(
            "a group of %d jobs is broken up, and each of them run alone: %s",
            members,
            _shown(error),
        )

    def leftover_kept(self, clean_up: str, error: BaseException) -> None:
        event_log.error(
            "what a job left in its thread could not be cleared away (%s): %s",
            clean_up,
            _shown(error),
        )

    def deactivation_failed(self, uuid: Any, error: BaseException) -> None:
        event_log.error(
            "dispatcher %s could not say that it stops (%s); it, or a sibling, will recover its"
            " jobs later",
            uuid,
            _shown(error),
        )

    def left_for_recovery(self, uuid: Any) -> None:
        event_log.error(
            "dispatcher %s could not hand back its jobs in time, since the storage does not"
            " answer; it, when it is started again, or a sibling recovers them",
            uuid,
        )

    def still_running(self, job: str, seconds: float) -> None:
        event_log.warning(
            "%s has not ended within the grace time of %.0f s; it is handed back as interrupted",
            job,
            seconds,
        )


events = Events()
