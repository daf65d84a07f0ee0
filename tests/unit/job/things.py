# SPDX-License-Identifier: ZPL-2.1
"""What the tests of jobs put: persistent things, functions, and calls that a test scripts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from persistent import Persistent

from zasync.job import Job

script: dict[str, Callable[..., Any]] = {}
"""What `act` does, by name: a test puts closures here."""

acts: list[tuple[Any, ...]] = []
"""What `act` was called with."""


def act(name: str, *args: Any, **kwargs: Any) -> Any:
    acts.append((name, *args))
    return script[name](*args, **kwargs)


def reset() -> None:
    script.clear()
    acts.clear()


def multiply(a: Any, b: Any = 2) -> Any:
    return a * b


def same(value: Any) -> Any:
    return value


def boom(message: str = "boom") -> None:
    raise ValueError(message)


def keyed(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def badly_decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


def well_decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args) + 1

    return wrapper


@well_decorated
def decorated(value: int) -> int:
    return value * 10


undecorated = decorated.__wrapped__  # type: ignore[attr-defined]


@badly_decorated
def nameless() -> None:
    pass


def _forgotten() -> None:
    pass


forgotten = _forgotten
del _forgotten


class Base(Persistent):
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def __hidden(self) -> int:
        return self.value

    def hidden(self) -> Callable[[], int]:
        return self.__hidden


class Counter(Base):
    def add(self, amount: int = 1) -> int:
        self.value += amount
        return self.value

    def __call__(self) -> int:
        return self.value

    def __private(self) -> int:
        return self.value + 1

    def private(self) -> Callable[[], int]:
        return self.__private

    @badly_decorated
    def wrapped(self) -> int:
        return self.value + 2

    @classmethod
    def made(cls, value: int) -> int:
        return value + 3

    @staticmethod
    def static(value: int) -> int:
        return value + 4

    class Inner:
        @classmethod
        def made(cls) -> str:
            return "inner"

    async def later(self) -> None:
        pass


class Plain:
    """Can be pickled, is not persistent."""

    def __init__(self, value: int = 5) -> None:
        self.value = value

    def get(self) -> int:
        return self.value


class PlainDict(dict[Any, Any]):
    pass


class Failure(Plain):
    """Has nothing to do with Twisted's."""


class OwnJob(Job):
    """A job with a method of its own as its callable, and hooks that a test scripts."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(self.method, *args, **kwargs)

    def method(self, *args: Any) -> Any:
        return ("method", self.oid, *args)


class HookedJob(Job):
    def setUp(self) -> Any:
        return act("setUp")

    def tearDown(self, setup_info: Any) -> None:
        act("tearDown", setup_info)


async def coroutine(value: Any) -> Any:
    return value
