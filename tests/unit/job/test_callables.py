# SPDX-License-Identifier: ZPL-2.1
"""Callables of every kind: held by name, found again by another connection, or refused."""

from __future__ import annotations

import functools
import importlib
import operator
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import pytest
from BTrees.Length import Length
from BTrees.OOBTree import OOBTree

from tests.support.bench import Bench
from zasync.interfaces import COMPLETED, NEW, NotStorableError, UnresolvableError
from zasync.job import Job
from zasync.job.callables import (
    check_nameable,
    check_resolvable,
    describe,
    find_global,
    resolve,
)

from . import things
from .things import Counter, OwnJob, Plain, multiply


@pytest.fixture
def counter(bench: Bench) -> Any:
    return bench.keep(Counter(7))


KINDS = {
    "global function": (lambda counter: multiply, (3,), 6),
    "decorated function": (lambda counter: things.decorated, (3,), 31),
    "builtin": (lambda counter: operator.mul, (3, 5), 15),
    "builtin function": (lambda counter: len, ([1],), 1),
    "class": (lambda counter: dict, ([(1, 2)],), {1: 2}),
    "classmethod": (lambda counter: Counter.made, (1,), 4),
    "classmethod of an instance": (lambda counter: counter.made, (1,), 4),
    "classmethod of a nested class": (lambda counter: Counter.Inner.made, (), "inner"),
    "builtin classmethod": (lambda counter: dict.fromkeys, ("a",), {"a": None}),
    "inherited builtin classmethod": (
        lambda counter: things.PlainDict.fromkeys,
        ("a",),
        {"a": None},
    ),
    "staticmethod": (lambda counter: counter.static, (1,), 5),
    "callable persistent object": (lambda counter: counter, (), 7),
    "method": (lambda counter: counter.add, (2,), 9),
    "private method": (lambda counter: counter.private(), (), 8),
    "private method of a base class": (lambda counter: counter.hidden(), (), 7),
    "method decorated without a name": (lambda counter: counter.wrapped, (), 9),
    "partial": (lambda counter: functools.partial(multiply, b=5), (3,), 15),
    "partial of a method": (lambda counter: functools.partial(counter.add, 3), (), 10),
    "method of a plain object": (lambda counter: Plain(4).get, (), 4),
    "method of a string": (lambda counter: "a-b".split, ("-",), ["a", "b"]),
    "operator object": (lambda counter: operator.itemgetter(1), ((5, 6),), 6),
    "unbound builtin method": (lambda counter: str.upper, ("a",), "A"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_callable_is_called_in_another_connection(bench: Bench, counter: Any, kind: str) -> None:
    make, args, expected = KINDS[kind]
    job = bench.queue.put(Job(make(counter), *args))
    bench.commit()
    bench.queue.pull()
    bench.commit()

    with bench.elsewhere() as there:
        seen = there(job)
        assert "things" in repr(seen) or "Job" in repr(seen)
        seen.check_resolvable()
        result = seen()

    assert result == expected


def test_a_builtin_method_of_a_persistent_object_is_held(bench: Bench) -> None:
    length, tree = bench.keep(Length()), bench.keep(OOBTree())
    bench.queue.put(Job(length.change, 3))
    bench.queue.put(Job(tree.__setitem__, "a", 1))
    bench.commit()

    bench.work()

    assert bench.seen(length, lambda length: length()) == 3
    assert bench.seen(tree, dict) == {"a": 1}


def test_a_method_of_the_job_itself_is_called(bench: Bench) -> None:
    job = bench.stored(5, kind=OwnJob)

    assert bench.seen(job, lambda job: job()) == ("method", job.oid, 5)
    assert "self.method" in repr(job)


def test_a_method_of_another_job_is_called(bench: Bench) -> None:
    other = bench.stored(multiply, 1)
    job = bench.stored(other.fail, KeyError("by another"))

    bench.begin()
    job()

    assert other.result.check(KeyError)


def test_a_method_of_a_persistent_class_that_its_object_made_is_resolvable() -> None:
    counter = Counter()
    counter.extra = Counter(3)
    names, target = ("method", Counter.__module__, "Counter", "extra"), counter

    check_resolvable(names, None, lambda: target)

    assert resolve(names, target)() == 3


LOCAL = {
    "lambda": lambda: lambda: None,
    "local function": lambda: _local(),
    "undecorated function": lambda: things.undecorated,
    "function without its name": lambda: things.nameless,
    "function that has lost its name": lambda: things.forgotten,
    "local class": lambda: type("Local", (), {}),
    "method of an object of a local class": lambda: type("Local", (), {"get": _get})().get,
    "classmethod of a local class": lambda: type("L", (), {"get": classmethod(_get)}).get,
    "function bound to an object": lambda: types.MethodType(multiply, Counter()),
    "method of what cannot be pickled": lambda: open(__file__).close,  # noqa: SIM115
    "partial of a lambda": lambda: functools.partial(lambda: None),
    "partial with a lambda": lambda: functools.partial(multiply, lambda: None),
}


def _get(self: Any) -> None:
    pass


def _local() -> Any:
    def local() -> None:
        pass

    return local


@pytest.mark.parametrize("kind", LOCAL)
def test_what_cannot_be_held_is_refused_when_it_is_put(bench: Bench, kind: str) -> None:
    job = Job(LOCAL[kind]())

    with pytest.raises(NotStorableError):
        bench.queue.put(job)

    assert job.status == NEW
    assert len(bench.queue) == 0


def test_a_refusal_names_the_function_and_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(NotStorableError, match=r"a lambda .*Define it at the top level"):
        bench.queue.put(lambda: None)
    with pytest.raises(NotStorableError, match=r"_local.<locals>.local.*a local function"):
        bench.queue.put(_local())


def test_what_cannot_be_called_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match=r"something that can be called, not 26"):
        Job(26)


def test_a_local_callback_is_refused(bench: Bench) -> None:
    with pytest.raises(NotStorableError):
        bench.stored(multiply, 1).addCallback(lambda result: None)


# Code that is gone


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that can be taken away again."""
    module = types.ModuleType("passing_module")
    exec(  # so that its things have its name
        "from persistent import Persistent\n"
        "def function(*args): return 'done'\n"
        "class Thing(Persistent):\n"
        "    def method(self): return 'done'\n"
        "    def __call__(self): return 'called'\n"
        "class Plain:\n"
        "    pass\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, "passing_module", module)
    return module


def gone_function(passing: Any, bench: Bench) -> Any:
    return Job(passing.function), lambda: passing.__dict__.pop("function")


def gone_module(passing: Any, bench: Bench) -> Any:
    return Job(passing.function), lambda: sys.modules.pop("passing_module")


def gone_method(passing: Any, bench: Bench) -> Any:
    thing = bench.keep(passing.Thing())
    return Job(thing.method), lambda: delattr(passing.Thing, "method")


def gone_class(passing: Any, bench: Bench) -> Any:
    thing = bench.keep(passing.Thing())
    return Job(thing.method), lambda: sys.modules.pop("passing_module")


def gone_callable_class(passing: Any, bench: Bench) -> Any:
    thing = bench.keep(passing.Thing())
    return Job(thing), lambda: sys.modules.pop("passing_module")


def gone_from_a_partial(passing: Any, bench: Bench) -> Any:
    partial = functools.partial(passing.function, 1)
    return Job(partial), lambda: sys.modules.pop("passing_module")


GONE = [gone_function, gone_module, gone_method, gone_class, gone_callable_class]


@pytest.mark.parametrize("make", [*GONE, gone_from_a_partial])
def test_a_job_without_its_code_stays_visible_and_can_be_written(
    bench: Bench, passing: Any, make: Any
) -> None:
    job, remove = make(passing, bench)
    bench.queue.put(job)
    bench.commit()
    remove()
    bench.db.cacheMinimize()

    with bench.elsewhere() as there:
        seen = there(job)
        assert "passing_module" in repr(seen)
        with pytest.raises(UnresolvableError, match="passing_module"):
            seen.callable  # noqa: B018
        with pytest.raises(UnresolvableError, match="passing_module"):
            seen.check_resolvable()
        seen.failure_log_level = 10
        seen.annotations["note"] = "written"

    bench.open()
    assert bench.work() == 0
    job = bench.connection.get(job._p_oid)
    assert job.failure_log_level == 10
    assert job.annotations["note"] == "written"
    bench.begin()
    job.fail(KeyError("given up"))
    assert job.status == COMPLETED


@pytest.mark.parametrize("make", [*GONE, gone_from_a_partial])
def test_a_job_without_its_code_is_not_begun_by_hand(bench: Bench, passing: Any, make: Any) -> None:
    job, remove = make(passing, bench)
    bench.keep(job)
    remove()
    bench.db.cacheMinimize()

    with bench.elsewhere() as there:
        seen = there(job)
        with pytest.raises(UnresolvableError):
            seen()
        assert seen.status == NEW
        assert seen.active_start is None


def test_a_record_with_arguments_of_a_class_that_is_gone_can_be_written(
    bench: Bench, passing: Any
) -> None:
    thing = bench.keep(passing.Thing())
    jobs = [Job(multiply, thing), Job(multiply, passing.Plain())]
    for job in jobs:
        bench.queue.put(job)
    bench.commit()
    del sys.modules["passing_module"]
    bench.db.cacheMinimize()

    for job in jobs:
        with bench.elsewhere() as there:
            there(job).failure_log_level = 5
        assert bench.seen(job, lambda job: job.failure_log_level) == 5
        assert "multiply(" in bench.seen(job, repr)


def test_a_module_that_ends_the_process_when_imported_is_just_not_there(
    bench: Bench, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "leaving_module.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UnresolvableError, match="SystemExit"):
        resolve(("global", "leaving_module", "function"), None)


def test_describing_and_resolving_are_inverse_for_what_is_not_named() -> None:
    plain = Plain()
    names, target = describe(plain.get)

    check_nameable(names, target)

    assert names == ("method", Plain.__module__, "Plain", "get")
    assert resolve(names, target)() == 5


def run_as_a_program(tmp_path: Path, name: str) -> str:
    """Put a job for the program's own function in a database of its own, or claim it there."""
    program = tmp_path / name
    program.write_text(
        "import sys, ZODB, transaction\n"
        "from ZODB.FileStorage import FileStorage\n"
        "from zasync.interfaces import KEY\n"
        "from zasync.queue import Queue, Queues\n"
        "def work():\n"
        "    return __file__\n"
        "db = ZODB.DB(FileStorage(sys.argv[1]))\n"
        "root = db.open().root()\n"
        "if KEY not in root:\n"
        "    root[KEY] = Queues()\n"
        "    root[KEY][''] = Queue()\n"
        "    root[KEY][''].put(work)\n"
        "    transaction.commit()\n"
        "job = root[KEY][''].claim()\n"
        "print(job and job.callable_name, len(root[KEY]['']))\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "Data.fs")],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_a_function_of_a_program_is_found_by_that_program_only(tmp_path: Path) -> None:
    assert run_as_a_program(tmp_path, "one.py") == "__main__.work 0"
    assert run_as_a_program(tmp_path, "other.py") == "None 1"


# Programs


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module __main__ of a program in a file."""
    module = types.ModuleType("__main__")
    module.__file__ = "/somewhere/program.py"
    exec("def function(): return 'of the program'", module.__dict__)
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_a_function_of_the_program_is_found_by_that_program(bench: Bench, main: Any) -> None:
    job = bench.stored(main.function)

    assert "``__main__.function()``" in repr(job)
    job.check_resolvable()
    assert job() == "of the program"


def test_another_program_does_not_take_its_own_function_for_it(bench: Bench, main: Any) -> None:
    job = bench.stored(main.function)

    for file in ["/somewhere/else.py", None]:
        main.__file__ = file
        with pytest.raises(UnresolvableError, match=r"of the program /somewhere/program.py"):
            job()
    assert job.status == NEW


def test_a_module_that_another_thread_is_importing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text(
        "from tests.unit.job import things\n"
        "things.script['begun']()\n"
        "things.script['go']()\n"
        "def work(): return 7\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    begun, go = threading.Event(), threading.Event()
    things.script.update(begun=begun.set, go=lambda: go.wait(10))
    importing = threading.Thread(target=importlib.import_module, args=["slow_to_import"])
    found: list[Any] = []
    looking = threading.Thread(target=lambda: found.append(find_global("slow_to_import", "work")()))
    importing.start()
    assert begun.wait(10)
    looking.start()
    looking.join(0.2)
    go.set()
    importing.join(10)
    looking.join(10)
    assert found == [7]
