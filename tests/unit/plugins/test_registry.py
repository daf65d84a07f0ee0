# SPDX-License-Identifier: ZPL-2.1
"""Plugins by name: what is registered is found, and everything else is refused at the call."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Any

import pytest

from tests.support import handlers
from zasync import plugins
from zasync.interfaces import ZasyncError
from zasync.job import Job, NeverRetry, RetryCommonFourTimes
from zasync.plugins import BadHandler, BadPlugin, Plugin, UnknownPlugin


def test_a_registered_callable_is_found_under_its_name() -> None:
    made = plugins.register(Plugin("double", handlers.double))

    assert plugins.get("double") is made
    assert "double" in plugins.names()


def test_the_decorator_registers_a_function_and_leaves_it_as_it_is() -> None:
    same = plugins.plugin(timeout=timedelta(seconds=5), retry=False)(handlers.double)

    assert same is handlers.double
    assert plugins.get("double") == Plugin(
        "double", handlers.double, "Twice the number.", timedelta(seconds=5), retry=False
    )


def test_the_shipped_plugins_are_there_without_being_registered() -> None:
    assert plugins.names() == ["aggregate", "http_fetch", "ldap_search", "schedule"]
    for name in plugins.names():
        assert plugins.get(name).name == name
        assert plugins.get(name).description


def test_an_unknown_name_is_refused_with_names_that_are_near() -> None:
    plugins.register(Plugin("double", handlers.double))

    with pytest.raises(UnknownPlugin, match=r"no plugin 'dubble' .* did you mean 'double'\?"):
        plugins.job_for("dubble", 3)
    with pytest.raises(UnknownPlugin, match=r"there are 'aggregate', 'double'"):
        plugins.get("xyz")
    assert issubclass(UnknownPlugin, ZasyncError)
    assert issubclass(UnknownPlugin, LookupError)


@pytest.mark.parametrize("name", [None, 7, b"double", ["double"]])
def test_what_is_no_name_at_all_is_unknown_too(name: Any) -> None:
    with pytest.raises((UnknownPlugin, TypeError)):
        plugins.get(name)


def test_two_plugins_cannot_have_one_name() -> None:
    plugins.register(Plugin("double", handlers.double))
    plugins.register(Plugin("double", handlers.double))

    with pytest.raises(BadPlugin, match=r"another plugin 'double' already, .*handlers\.double"):
        plugins.register(Plugin("double", handlers.fail))


def test_what_is_unregistered_is_unknown_again() -> None:
    plugins.register(Plugin("double", handlers.double))
    plugins.unregister("double")

    with pytest.raises(UnknownPlugin):
        plugins.get("double")
    with pytest.raises(UnknownPlugin):
        plugins.unregister("double")


def test_a_shipped_plugin_can_be_given_other_options_and_keeps_its_check() -> None:
    shipped = plugins.get("http_fetch")
    plugins.register(Plugin("http_fetch", shipped.callable, timeout=timedelta(hours=4)))

    assert plugins.get("http_fetch").check is shipped.check
    assert plugins.get("http_fetch").timeout == timedelta(hours=4)
    plugins.unregister("http_fetch")
    assert plugins.get("http_fetch") is shipped


def test_a_job_calls_the_plugin_with_what_it_was_given() -> None:
    plugins.register(Plugin("double", handlers.double))

    job = plugins.job_for("double", number=4)

    assert job.callable is handlers.double
    assert job.kwargs == {"number": 4}
    assert job.timeout is None
    assert isinstance(job.getRetryPolicy(), RetryCommonFourTimes)


def test_a_job_has_the_options_of_its_plugin() -> None:
    plugins.register(Plugin("double", handlers.double, "", timedelta(minutes=1), retry=False))

    for item in ("double", handlers.double, plugins.get("double")):
        job = plugins.job_for(item, 4)
        assert job.timeout == job.run_limit == timedelta(minutes=1)
        assert isinstance(job.getRetryPolicy(), NeverRetry)


def test_a_callable_that_is_not_registered_makes_a_plain_job() -> None:
    job = plugins.job_for(handlers.double, 4)

    assert job.callable is handlers.double
    assert job.timeout is None


def test_what_is_neither_a_name_nor_a_callable_is_refused() -> None:
    with pytest.raises(TypeError, match="a plugin's name or a callable, not 7"):
        plugins.job_for(7)


def test_arguments_that_the_callable_does_not_take_are_refused_at_the_call() -> None:
    plugins.register(Plugin("double", handlers.double))

    with pytest.raises(TypeError, match=r"plugin 'double': .*'number'"):
        plugins.job_for("double")
    with pytest.raises(TypeError, match="plugin 'double'"):
        plugins.job_for("double", 1, allow_importable=True)


def test_a_builtin_that_does_not_tell_what_it_takes_is_not_asked() -> None:
    plugins.register(Plugin("printing", print, check=None))
    plugins.register(Plugin("most", max))

    assert plugins.job_for("most", 1, 2).callable is max


def test_the_check_of_a_plugin_sees_the_arguments_at_the_call() -> None:
    def check(number: int) -> None:
        if number > 9:
            raise ValueError("too large")

    plugins.register(Plugin("double", handlers.double, check=check))

    assert plugins.job_for("double", 9).args == [9]
    with pytest.raises(ValueError, match="too large"):
        plugins.job_for("double", 10)


@pytest.mark.parametrize("name", ["", "9lives", "two words", "a/b", "é", "x" * 101, None, 7])
def test_a_name_must_be_one(name: Any) -> None:
    with pytest.raises(BadPlugin, match="is no name of a plugin"):
        Plugin(name, handlers.double)


def test_what_no_worker_could_find_cannot_be_a_plugin() -> None:
    with pytest.raises(BadPlugin, match="a lambda or a local function"):
        Plugin("late", lambda: 1)
    with pytest.raises(BadPlugin, match="needs a callable, not 7"):
        Plugin("seven", 7)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [5, timedelta(), timedelta(-1), "5s"])
def test_a_timeout_is_a_timedelta_of_more_than_nothing(timeout: Any) -> None:
    with pytest.raises(BadPlugin, match="the timeout of plugin 'double'"):
        Plugin("double", handlers.double, timeout=timeout)


def test_a_zope_aware_plugin_needs_a_process_that_is_set_up_for_zope() -> None:
    plugins.register(Plugin("double", handlers.double, zope_aware=True))

    with pytest.raises(BadPlugin, match=r"include zasync\.integrations\.zope"):
        plugins.job_for("double", 4)


def test_zope_makes_the_jobs_of_zope_aware_plugins() -> None:
    class ZopeJob(Job):
        pass

    plugins.register(
        Plugin("double", handlers.double, timeout=timedelta(seconds=9), zope_aware=True)
    )
    plugins.provide_zope_jobs(ZopeJob)

    job = plugins.job_for("double", 4)

    assert type(job) is ZopeJob
    assert job.timeout == timedelta(seconds=9)


def test_trusted_code_may_name_what_is_not_registered() -> None:
    job = plugins.job_for(plugins.importable("tests.support.handlers:double"), 4)

    assert job.callable is handlers.double
    assert plugins.importable("tests.support.handlers:Doubler.double")(4) == 8


@pytest.mark.parametrize(
    "name",
    [
        "tests.support.handlers:double",
        "tests.support.handlers.double",
        "os:system",
        "builtins.eval",
        "../../etc/passwd",
        "double; import os",
    ],
)
def test_a_name_that_is_asked_for_is_never_imported(name: str) -> None:
    with pytest.raises(UnknownPlugin):
        plugins.job_for(name, 1)


HOSTILE = """
os:system os.system posix:system subprocess:run subprocess.Popen builtins:eval builtins.exec
builtins:__import__ importlib:import_module importlib.import_module sys:exit pickle:loads
pickle.loads shutil:rmtree runpy:run_path code:interact pty:spawn ctypes:CDLL socket:socket
asyncio.subprocess:create_subprocess_shell asyncio:create_subprocess_shell marshal:loads
multiprocessing:Process threading:Thread signal:raise_signal types:FunctionType
tests.support.handlers:os.system tests.support.handlers:system tests.support.handlers.system
tests.support.handlers:double.__globals__ tests.support.handlers:Doubler.__init__
tests.support.handlers:_private tests.support.handlers:an_instance
tests.support.handlers:an_instance.method tests.support.handlers:__name__
tests.support.handlers:ended tests.support.handlers:nothing tests.support.nothing:double
tests.support.handlers: :double . double tests..handlers:double tests.support.handlers:a:b
tests.support.handlers:double() ../handlers:double
""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", [*HOSTILE, "", " ", "os :system", None, 7])
def test_a_handler_cannot_be_named(name: Any) -> None:
    before = set(sys.modules)

    with pytest.raises(BadHandler):
        plugins.importable(name)
    assert not {"pty", "runpy", "code"} & (set(sys.modules) - before)
