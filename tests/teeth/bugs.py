# SPDX-License-Identifier: ZPL-2.1
"""Known bugs of job queues, written as small changes of our code, and the tests that catch them.

A bug is put into a copy of the sources, never into the sources.  An edit names text that is there
exactly once, so that a bug which no longer fits the code is noticed at once.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Edit:
    """In `file` of the package, `old` becomes `new`."""

    file: str
    old: str
    new: str


@dataclasses.dataclass(frozen=True)
class Bug:
    """One change for the worse; `tests` are files or directories, of which one test must fail."""

    name: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


_QUOTA_TREE = """\
    @property
    def _holders(self) -> Any:
        return tuple(self._tree.values(min=0))

    def _keep(self, holders: Any) -> None:
        wanted = {token: (job, token) for job, token in holders}
        for token in set(self._tree.keys(min=0)) - set(wanted):
            del self._tree[token]
        for token in set(wanted) - set(self._tree):
            self._tree[token] = wanted[token]

"""
_HOLDERS = "    _holders: tuple[tuple[Any, int], ...] = ()  # job, token of its hold\n"
_ONE_MORE = "(*self._holders, (job, job._quota_hold))"
_HOLD = f"        self._holders = {_ONE_MORE}\n"
_FORGET = "            self._holders = held\n"
_QUOTA_INIT = "    def __init__(self, size: int = 1) -> None:\n        self.size = size\n"
_TREE_INIT = """\
    def __init__(self, size: int = 1) -> None:
        from BTrees.LOBTree import LOBTree

        self._tree = LOBTree({-1: None})
        self.size = size
"""
_TREE_WITH_LENGTH_INIT = """\
    def __init__(self, size: int = 1) -> None:
        from BTrees.Length import Length
        from BTrees.LOBTree import LOBTree

        self._tree = LOBTree({-1: None})
        self._used = Length()
        self.size = size
"""

BUGS = (
    Bug(
        "claim without a guard on the dispatcher's own record",
        (
            Edit(
                "agent.py", "            record._p_jar.readCurrent(record)\n", "            pass\n"
            ),
            Edit("agent.py", "            record.last_ping.touch()\n", ""),
        ),
        ("tests/integration/queue/test_conflicts.py",),
    ),
    Bug(
        "quota kept in a tree that merges",
        (
            Edit("queue/quota.py", _HOLDERS, _QUOTA_TREE),
            Edit("queue/quota.py", _QUOTA_INIT, _TREE_INIT),
            Edit("queue/quota.py", _HOLD, f"        self._keep({_ONE_MORE})\n"),
            Edit("queue/quota.py", _FORGET, "            self._keep(held)\n"),
        ),
        ("tests/integration/queue/test_conflicts.py",),
    ),
    Bug(
        "quota counted in a Length that merges",
        (
            Edit("queue/quota.py", _HOLDERS, _QUOTA_TREE),
            Edit("queue/quota.py", _QUOTA_INIT, _TREE_WITH_LENGTH_INIT),
            Edit(
                "queue/quota.py",
                "        return len(self._holders) >= self._size\n",
                "        return self._used() >= self._size\n",
            ),
            Edit(
                "queue/quota.py",
                _HOLD,
                f"        self._used.change(1)\n        self._keep({_ONE_MORE})\n",
            ),
            Edit(
                "queue/quota.py",
                _FORGET,
                "            self._used.change(len(held) - len(self._holders))\n"
                "            self._keep(held)\n",
            ),
        ),
        ("tests/integration/queue/test_conflicts.py",),
    ),
    Bug(
        "blind retry after an error from a commit",
        (
            Edit(
                "foundation/attempts.py",
                "if committing and happened is not None and _asked(happened, transaction_manager):",
                "if False:",
            ),
            Edit("job/attempt.py", "if _look(run, settled or run.has_settled):", "if False:"),
        ),
        ("tests/unit/job/test_doubt.py",),
    ),
    Bug(
        "retry only of errors that call themselves transient",
        (
            Edit(
                "foundation/errors.py",
                "    Row(Kind.INFRASTRUCTURE, STORAGE_NAMES),\n"
                "    Row(Kind.INFRASTRUCTURE, DRIVER_NAMES, from_storage=True),\n",
                "    Row(Kind.INFRASTRUCTURE, STORAGE_NAMES,"
                ' also=_names("transaction.interfaces.TransientError")),\n',
            ),
        ),
        ("tests/unit/foundation/test_errors.py",),
    ),
    Bug(
        "place in a quota known by the job alone, without the token of its hold",
        (
            Edit(
                "queue/quota.py",
                "            if job._quota_hold == token and self.name in job.quota_names\n",
                "            if job._quota_hold is not None and self.name in job.quota_names\n",
            ),
            Edit(
                "queue/quota.py",
                "any(holder is job and token == job._quota_hold for holder, token in"
                " self._holders)",
                "any(holder is job for holder, token in self._holders)",
            ),
        ),
        ("tests/unit/queue/test_quota.py",),
    ),
    Bug(
        "run that does not look whether the job is still its own",
        (
            Edit(
                "job/run.py",
                "return bool(self.job.status == ACTIVE and self.job._token == self.token)",
                "return bool(self.job.status == ACTIVE)",
            ),
        ),
        (
            "tests/integration/dispatcher/test_membership.py::test_a_zombie_that_ends_while_its_job_runs_elsewhere_commits_nothing",
        ),
    ),
    Bug(
        "callbacks run before the result is committed",
        (
            Edit(
                "job/attempt.py",
                '        reach("run.committing")\n',
                '        reach("run.committing")\n'
                "        if outcome.ending is Ending.CALLBACKS:\n"
                "            for each in run.job.callbacks:\n"
                "                if hasattr(each, 'callable'):\n"
                "                    each.callable(*each.args, run.job.result)\n"
                "                    each._status = 'completed-status'\n",
            ),
        ),
        ("tests/unit/job/test_callbacks.py",),
    ),
    Bug(
        "completion in a transaction of its own, after the job's changes",
        (
            Edit(
                "job/attempt.py",
                "    value = unwrapped(value)\n",
                "    value = unwrapped(value)\n    run.manager.commit()\n    run.manager.begin()\n",
            ),
        ),
        ("tests/integration/job/test_death_at_any_commit.py",),
    ),
    Bug(
        "siblings judged by comparing wall clocks",
        (
            Edit(
                "dispatcher/liveness.py",
                "        key = (record.parent.name, record.UUID.int)\n        sign",
                "        return bool(record.dead)\n"
                "        key = (record.parent.name, record.UUID.int)\n        sign",
            ),
        ),
        ("tests/unit/dispatcher/test_liveness.py",),
    ),
    Bug(
        "no ping while the last one lies in the future",
        (
            Edit(
                "queue/registration.py",
                "not timedelta() <= now - last < record.ping_interval",
                "now - last >= record.ping_interval",
            ),
        ),
        (
            "tests/unit/queue/test_registration.py",
            "tests/integration/dispatcher/test_membership.py",
        ),
    ),
    Bug(
        "claims stop at the first job that is not due by the reader's clock",
        (
            Edit(
                "queue/queue.py",
                "    return entry.place.kind != LATER or entry.job._begin_after <= now\n",
                "    return entry.job._begin_after <= now\n",
            ),
            Edit(
                "queue/queue.py",
                "if not self._may_be_taken(entry, uuid, memory) or not _is_due(entry, now):\n"
                "                refusals.left(entry.place)\n"
                "                continue\n",
                "if not self._may_be_taken(entry, uuid, memory) or not _is_due(entry, now):\n"
                "                return\n",
            ),
        ),
        (
            "tests/integration/faults/test_matrix.py::test_a_job_of_a_client_whose_clock_is_ahead_holds_up_nobody",
        ),
    ),
    Bug(
        "deadline of a retry looked at the wrong way round",
        (
            Edit(
                "job/decisions.py",
                "due_moment(decision) > job._deadline",
                "due_moment(decision) < job._deadline",
            ),
        ),
        ("tests/unit/job/test_calling.py::test_no_attempt_begins_after_the_deadline",),
    ),
    Bug(
        "place leaked when a job raises SystemExit",
        (
            Edit(
                "dispatcher/worker.py",
                "            events.process_ending_error(run.job, error)\n"
                "            return self._fail(run, Failure())\n",
                "            raise\n",
            ),
            Edit(
                "dispatcher/worker.py",
                "            # Whatever this is, the job must not lie in its place for ever: it is"
                " handed back.\n"
                "            left = [each for each in members if each.running and"
                " each.outcome is None]\n"
                "            self.pool.settled(*((each, Outcome(Ending.STOPPED)) for each in"
                " left))\n",
                "",
            ),
        ),
        (
            "tests/integration/dispatcher/test_performing.py::test_system_exit_in_a_job_fails_it_and_costs_no_place",
        ),
    ),
    Bug(
        "site of a job left for the next one",
        (
            Edit(
                "dispatcher/pool.py",
                "            clean_thread()\n            connection.cacheGC()\n",
                "            connection.cacheGC()\n",
            ),
        ),
        (
            "tests/integration/dispatcher/test_performing.py::test_a_job_finds_its_thread_clean_whatever_the_one_before_left",
        ),
    ),
    Bug(
        "somebody's interaction left for the next job",
        (
            Edit(
                "dispatcher/pool.py",
                '    ("zope.security.management", "endInteraction"),\n',
                "",
            ),
        ),
        (
            "tests/integration/dispatcher/test_thread_state.py::test_a_job_does_not_act_for_the_one_who_acted_in_the_job_before",
        ),
    ),
    Bug(
        "a dispatcher that cannot ping begins jobs",
        (Edit("job/attempt.py", "if not run.host.may_begin():", "if False:"),),
        (
            "tests/integration/dispatcher/test_standing_still.py::test_a_dispatcher_that_cannot_ping_begins_no_job_until_it_can",
        ),
    ),
    Bug(
        "a dispatcher that cannot ping begins coroutines",
        (Edit("dispatcher/coroutines.py", "if not self._may_begin():", "if False:"),),
        (
            "tests/integration/dispatcher/test_standing_still.py::test_a_dispatcher_that_cannot_ping_begins_no_job_until_it_can",
        ),
    ),
    Bug(
        "a poll that breaks off is the last one",
        (
            Edit(
                "dispatcher/dispatcher.py",
                "            events.poll_broke(self.UUID, error, seconds)\n"
                "            return seconds\n",
                "            raise\n",
            ),
        ),
        (
            "tests/integration/dispatcher/test_standing_still.py::test_whatever_breaks_a_poll_off_the_next_goes_on_with_its_work",
        ),
    ),
    Bug(
        "status and values of users' classes in one record",
        (
            Edit(
                "job/values.py",
                "    return reference if isinstance(value, Persistent) else _TOO_MUCH\n",
                "    return 0\n",
            ),
        ),
        ("tests/unit/job/test_calling.py::test_arguments_that_cannot_be_loaded_fail_the_job",),
    ),
    Bug(
        "function stored by reference",
        (
            Edit(
                "job/callables.py",
                "        return (GLOBAL, module, qualname), None\n",
                "        return (OBJECT, module, qualname), callable\n",
            ),
        ),
        ("tests/unit/job/test_callables.py",),
    ),
    Bug(
        "failure that keeps local variables",
        (
            Edit(
                "failure.py",
                "        captureVars: bool = False,\n",
                "        captureVars: bool = True,\n",
            ),
        ),
        ("tests/unit/test_failure.py",),
    ),
    Bug(
        "text of jobs printed as it is",
        (
            Edit(
                "foundation/text.py",
                "    return pattern.sub(lambda found: ascii(found.group())[1:-1], text)\n",
                "    return text if pattern else text\n",
            ),
        ),
        ("tests/unit/foundation/test_text.py",),
    ),
    Bug(
        "UUID file written in place",
        (
            Edit(
                "instanceuuid.py",
                "    directory, base = os.path.split(os.path.abspath(name))\n",
                "    with open(name, 'xb') as file:\n"
                "        for byte in content:\n"
                "            file.write(bytes([byte]))\n"
                "            file.flush()\n"
                "    return\n"
                "    directory, base = os.path.split(os.path.abspath(name))\n",
            ),
        ),
        ("tests/unit/test_instanceuuid.py",),
    ),
    Bug(
        "those who collided wait equally long",
        (
            Edit(
                "job/attempt.py",
                "        attempts.pause(clock.current().random.uniform(0, longest))\n",
                "        attempts.pause(longest)\n",
            ),
        ),
        ("tests/unit/job/test_doubt.py",),
    ),
    Bug(
        "waits in a worker thread that a stop does not cut short",
        (
            Edit(
                "foundation/attempts.py",
                "    if clock.wait(stop_signal.get(), seconds):\n",
                "    if clock.wait(None, seconds):\n",
            ),
        ),
        ("tests/unit/foundation/test_attempts.py::test_a_pause_is_a_wait_that_a_stop_ends",),
    ),
    Bug(
        "dead dispatcher emptied in one transaction, however many jobs it held",
        (
            Edit(
                "dispatcher/polling.py",
                "            if record.hand_back(BATCH):\n",
                "            if record.hand_back(None):\n",
            ),
        ),
        ("tests/integration/dispatcher/test_recovery.py",),
    ),
    Bug(
        "records pruned while their agents hold jobs",
        (
            Edit(
                "queue/registration.py",
                "            and not any(len(agent) for agent in record.values())\n",
                "",
            ),
        ),
        ("tests/unit/queue/test_registration.py",),
    ),
    Bug(
        "commit inside of a job tolerated silently",
        (
            Edit(
                "job/run.py",
                "            events.job_committed_itself(self.run.job)\n",
                "            pass\n",
            ),
        ),
        ("tests/unit/job/test_calling.py::test_a_job_that_commits_is_warned_about",),
    ),
    Bug(
        "user who is gone replaced by nobody",
        (
            Edit(
                "integrations/zope/identity.py",
                "    user = find(identity.user_id, None)\n",
                "    user = find(identity.user_id, None) or SpecialUsers.nobody\n    return user\n",
            ),
        ),
        ("tests/integrations/zope/test_identity.py",),
    ),
    Bug(
        "object that is gone replaced by an acquired one of its name",
        (
            Edit(
                "integrations/zope/surroundings.py",
                "        if path_of(found) == path:\n",
                "        if path_of(found) != '':\n",
            ),
        ),
        ("tests/integrations/zope/test_identity.py",),
    ),
    Bug(
        "callback run as the user of the job",
        (
            Edit(
                "integrations/zope/job.py",
                "        identity = self.identity\n        if identity is None:\n",
                "        identity = getattr(self.parent, 'identity', None) or self.identity\n"
                "        if identity is None:\n",
            ),
        ),
        ("tests/integrations/zope/test_identity.py",),
    ),
    Bug(
        "objects of a job found without asking whether its user may have them",
        (
            Edit(
                "integrations/zope/surroundings.py",
                "app.restrictedTraverse if restricted else app.unrestrictedTraverse",
                "app.unrestrictedTraverse",
            ),
        ),
        ("tests/integrations/zope/test_identity.py",),
    ),
    Bug(
        "call shown to somebody else",
        (
            Edit(
                "integrations/zope/manager.py",
                "        return is_own or self.may_manage()\n",
                "        return True\n",
            ),
        ),
        ("tests/integrations/zope/test_call_manager.py",),
    ),
    Bug(
        "form without a token does what it says",
        (
            Edit(
                "integrations/zope/browsers.py",
                'not _equal(str(token), self._sign("token", key, user))',
                "False",
            ),
        ),
        ("tests/unit/integrations/zope/test_browsers.py",),
    ),
    Bug(
        "browser believed whatever its cookie says",
        (
            Edit(
                "integrations/zope/browsers.py",
                '        if key and _equal(signature, self._sign("browser", key)):\n',
                "        if key:\n",
            ),
        ),
        ("tests/unit/integrations/zope/test_browsers.py",),
    ),
    Bug(
        "any plugin can be asked for in the form",
        (
            Edit(
                "integrations/zope/offers.py",
                "    if name not in manager.offered:\n",
                "    if False:\n",
            ),
        ),
        ("tests/unit/integrations/zope/test_offers.py",),
    ),
    Bug(
        "result shown as markup",
        (
            Edit(
                "integrations/zope/pages/templates/status.pt",
                'tal:content="call/result"',
                'tal:content="structure call/result"',
            ),
        ),
        ("tests/acceptance/zope/test_hostile_strings.py::test_a_call_is_text_on_all_its_pages",),
    ),
    Bug(
        "cancel that leaves the run its token",
        (
            Edit(
                "job/cancelling.py",
                "    job._token = None  # or the run that was going on would take this for its own"
                " end\n",
                "",
            ),
        ),
        ("tests/unit/job/test_cancelling.py",),
    ),
    Bug(
        "cancel that nobody follows with the callbacks",
        (
            Edit(
                "job/cancelling.py",
                "        bookkeeping.put_resumption(queue, job.resumeCallbacks)\n",
                "        pass\n",
            ),
        ),
        ("tests/unit/job/test_cancelling.py",),
    ),
    Bug(
        "cancel that does not look what was committed elsewhere",
        (
            Edit(
                "job/cancelling.py",
                "    if two_databases.may_be_half_committed(job):\n        _interrupt",
                "    if False:\n        _interrupt",
            ),
        ),
        ("tests/unit/job/test_cancelling_two_databases.py",),
    ),
    Bug(
        "call that is dropped though its job has not ended",
        (
            Edit(
                "calls/call.py",
                "        return relations.has_result(job) and job._active_end <= cutoff\n",
                "        return self._put_at <= cutoff\n",
            ),
        ),
        ("tests/unit/calls/test_calls.py",),
    ),
)
