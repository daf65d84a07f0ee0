# SPDX-License-Identifier: ZPL-2.1
"""Plugins from configuration: from a mapping, and from ZCML."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from zope.configuration import xmlconfig
from zope.configuration.exceptions import ConfigurationError

from tests.support import handlers
from zasync import plugins
from zasync.plugins import BadHandler, BadPlugin, Plugin
from zasync.plugins.config import span

DOUBLE = {"name": "double", "handler": "tests.support.handlers:double"}


def test_a_mapping_of_words_registers_a_plugin() -> None:
    made = plugins.register_from_config(
        {**DOUBLE, "description": "Twice", "timeout": "90s", "retry": "no", "zope-aware": "on"}
    )

    assert made == Plugin(
        "double", handlers.double, "Twice", timedelta(seconds=90), retry=False, zope_aware=True
    )
    assert plugins.get("double") is made


def test_a_mapping_may_also_have_values_that_are_read_already() -> None:
    made = plugins.register_from_config(
        {
            "name": "double",
            "handler": handlers.double,
            "timeout": 5,
            "retry": True,
            "zope_aware": False,
            "description": None,
        }
    )

    assert made == Plugin("double", handlers.double, timeout=timedelta(seconds=5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retries": "no"}, r"a plugin has no option 'retries'; did you mean 'retry'\?"),
        ({"x": "y"}, r"a plugin has no option 'x'; there are \['description'"),
        ({"name": ""}, "needs the option 'name'"),
        ({"handler": None}, "the plugin 'double' needs the option 'handler'"),
        ({"timeout": "soon"}, "a time is a number of seconds.*'soon'"),
        ({"timeout": "-5"}, "a time is"),
        ({"timeout": "0"}, "more than nothing"),
        ({"timeout": True}, "a time is"),
        ({"timeout": float("nan")}, "a time is"),
        ({"timeout": "9" * 30 + "d"}, "too long"),
        ({"retry": "perhaps"}, "the option 'retry' is yes or no, not 'perhaps'"),
        ({"zope-aware": "2"}, "the option 'zope-aware' is yes or no"),
        ({"handler": "os:system"}, "of a module that no plugin may be of"),
        ({"handler": "nowhere.at_all:f"}, "cannot import 'nowhere.at_all'"),
    ],
)
def test_what_is_wrong_in_a_mapping_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises((BadPlugin, BadHandler), match=message):
        plugins.register_from_config({**DOUBLE, **change})
    assert "double" not in plugins.names()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5", 1.5), ("90s", 90), ("5m", 300), ("4 h", 14400), ("1D", 86400)],
)
def test_a_time_may_have_a_unit(text: str, seconds: float) -> None:
    assert span(text) == timedelta(seconds=seconds)
    assert span(timedelta(seconds=seconds)) == timedelta(seconds=seconds)


def load(tmp_path: Path, *directives: str) -> None:
    file = tmp_path / "site.zcml"
    file.write_text(
        '<configure xmlns="http://namespaces.zope.org/zope"\n'
        '    xmlns:zasync="http://namespaces.zope.org/zasync">\n'
        '  <include package="zasync.plugins" file="meta.zcml" />\n'
        + "".join(f"  {each}\n" for each in directives)
        + "</configure>\n"
    )
    xmlconfig.file(str(file))


def test_a_directive_registers_a_plugin(tmp_path: Path) -> None:
    load(
        tmp_path,
        '<zasync:plugin name="double" handler="tests.support.handlers.double" timeout="4h"'
        ' retry="no" zope-aware="yes" description="Twice the number" />',
    )

    assert plugins.get("double") == Plugin(
        "double",
        handlers.double,
        "Twice the number",
        timedelta(hours=4),
        retry=False,
        zope_aware=True,
    )


def test_a_directive_needs_no_more_than_name_and_handler(tmp_path: Path) -> None:
    load(tmp_path, '<zasync:plugin name="double" handler="tests.support.handlers:double" />')

    assert plugins.get("double") == Plugin("double", handlers.double)


@pytest.mark.parametrize(
    ("directive", "message"),
    [
        ('<zasync:plugin name="double" />', "'handler'"),
        ('<zasync:plugin name="double" handler="nowhere:f" />', "cannot import 'nowhere'"),
        ('<zasync:plugin name="double" handler="os.system" />', "no plugin may be of"),
        (
            '<zasync:plugin name="double" handler="tests.support.handlers.doubel" />',
            "there is no 'doubel' in tests.support.handlers",
        ),
        (
            '<zasync:plugin name="a b" handler="tests.support.handlers.double" />',
            "no name of a plugin",
        ),
        (
            '<zasync:plugin name="double" handler="tests.support.handlers.double"'
            ' timeout="soon" />',
            "'soon'",
        ),
        (
            '<zasync:plugin name="double" handler="tests.support.handlers.double"'
            ' retry="perhaps" />',
            "retry",
        ),
        (
            '<zasync:plugin name="double" handler="tests.support.handlers.double" retries="no" />',
            "retries",
        ),
    ],
)
def test_a_bad_directive_is_named_with_file_and_line(
    tmp_path: Path, directive: str, message: str
) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(tmp_path, directive)

    text = str(raised.value)
    assert message in text
    assert f'File "{tmp_path}/site.zcml", line 4' in text
    assert "double" not in plugins.names()


def test_two_directives_of_one_name_are_a_conflict_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(
            tmp_path,
            '<zasync:plugin name="double" handler="tests.support.handlers.double" />',
            '<zasync:plugin name="double" handler="tests.support.handlers.fail" />',
        )

    assert f'File "{tmp_path}/site.zcml", line 4' in str(raised.value)
    assert f'File "{tmp_path}/site.zcml", line 5' in str(raised.value)
