# SPDX-License-Identifier: ZPL-2.1
"""The bytes of a stream of events, however they are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zasync.plugins.session import Heard, events
from zasync.plugins.session.events import EventParser

STREAM = (
    "\ufeff: comment\r\ndata: one\r\n\r\nid: 7\rdata:two\rdata:  three\r\r"
    "event: news\ndata\nid\n\nretry: 5\nnonsense\nevent: lost\n\nid: a\0b\ndata: Ä\n\n"
).encode()
EVENTS = [
    Heard("one", "message", ""),
    Heard("two\n three", "message", "7"),
    Heard("", "news", ""),
    Heard("Ä", "message", ""),
]


def heard(*pieces: bytes) -> list[Heard]:
    parser = EventParser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_a_stream_is_read_as_the_standard_says() -> None:
    assert heard(STREAM) == EVENTS


@given(st.lists(st.integers(0, len(STREAM))))
def test_it_does_not_matter_where_it_is_cut(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]

    assert heard(*[STREAM[a:b] for a, b in itertools.pairwise(places)]) == EVENTS


def test_an_event_that_is_not_complete_is_none() -> None:
    assert heard(b"data: one\n") == []
    assert heard(b"data: one\n\r") == []


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert heard(b"data: \xff\n\n") == [Heard("\ufffd", "message", "")]


@pytest.mark.parametrize("piece", [b"x" * 1000, b"data: 12345678\n"])
def test_an_event_has_bounds(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(events, "LARGEST_EVENT", 5000)

    with pytest.raises(ConnectionError, match="more than 5000 bytes"):
        heard(*[piece] * 1000)
