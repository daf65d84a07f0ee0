# SPDX-License-Identifier: ZPL-2.1
"""What zope.conf says about zasync, and what is wrong with it: with the key and the line."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from zasync.integrations.zope.faults import SettingsError
from zasync.integrations.zope.hosting import ZopeHost, read
from zasync.integrations.zope.settings import Settings, find_settings

HEAD = """\
instancehome {home}
<zodb_db main>
  <mappingstorage>
  </mappingstorage>
  mount-point /
</zodb_db>
"""
IMPORT = "%import zasync.integrations.zope\n"
ALL = """
<zasync zasync>
  database async
  queues mail reports
  dispatcher on
  size 5
  poll-interval 0.5s
  grace 1m
  retention 7d
  web-threads 8
  <zasync-plugin thumbnails>
    handler site.images:thumbnails
    timeout 4h
    retry off
    zope-aware on
    description Makes them
  </zasync-plugin>
</zasync>
"""


@pytest.fixture
def conf(tmp_path: Path) -> Any:
    (tmp_path / "var").mkdir()

    def write(text: str) -> Path:
        path = tmp_path / "zope.conf"
        path.write_text(HEAD.format(home=tmp_path) + text)
        return path

    return write


def settings(path: Path) -> Settings:
    return find_settings(read(path)[0])


def test_without_a_section_there_is_one_queue_and_no_dispatcher(conf: Any) -> None:
    assert settings(conf("")) == Settings()
    assert not Settings().dispatcher
    assert Settings().queues == ("",)


def test_an_empty_section_says_the_same(conf: Any) -> None:
    assert settings(conf(f"{IMPORT}<zasync zasync>\n</zasync>")) == Settings()


def test_everything_can_be_said(conf: Any) -> None:
    found = settings(conf(IMPORT + ALL))

    assert found == Settings(
        section_name="zasync",
        database="async",
        queues=("", "mail", "reports"),
        dispatcher=True,
        size=5,
        poll_interval=0.5,
        grace=60.0,
        retention=timedelta(days=7),
        web_threads=8,
        plugins=found.plugins,
    )
    [plugin] = found.plugins
    assert plugin == {
        "name": "thumbnails",
        "handler": "site.images:thumbnails",
        "timeout": timedelta(hours=4),
        "retry": False,
        "zope_aware": True,
        "description": "Makes them",
    }


def test_a_product_config_says_the_same_without_types(conf: Any) -> None:
    lines = [line for line in ALL.splitlines() if line.startswith("  ") and "plugin" not in line]
    simple = "\n".join(line for line in lines if not line.startswith("    "))
    found = settings(conf(f"<product-config zasync>\n{simple}\n</product-config>"))

    assert found.size == 5
    assert found.queues == ("", "mail", "reports")
    assert found.retention == timedelta(days=7)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("siz 3", "'siz' is not a known key name"),
        ("size three", "size is a whole number from 1 on, not 'three'"),
        ("size 0", "size is a whole number from 1 on"),
        ("web-threads -1", "web-threads is a whole number"),
        ("poll-interval 5 minutes", "poll-interval is a time such as"),
        ("poll-interval 0", "poll-interval must be more than nothing"),
        ("retention 0d", "retention must be more than nothing"),
        ("grace soon", "grace is a time such as"),
        ("dispatcher maybe", "dispatcher is on or off, not 'maybe'"),
        ("queues a b a", "queues names 'a' twice"),
        ("database one two", "database is the name of one <zodb_db>"),
    ],
)
def test_a_mistake_is_told_with_key_and_line(conf: Any, line: str, expected: str) -> None:
    path = conf(f"{IMPORT}<zasync zasync>\n  {line}\n</zasync>")

    with pytest.raises(SettingsError) as caught:
        settings(path)

    assert expected in str(caught.value)
    assert f"{path}, line 9: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<zasyn x>\n</zasyn>", "line 8: unknown type name: 'zasyn'"),
        (
            "<zasync z>\n<zasync-plugin p>\n  timeout 3\n</zasync-plugin>\n</zasync>",
            "handler",
        ),
        (
            "<zasync z>\n<zasync-plugin p>\nhandler a:b\ntimeout x\n</zasync-plugin>\n</zasync>",
            "timeout is a time",
        ),
        ("<zasync a>\n</zasync>\n<zasync b>\n</zasync>", "2 sections for zasync ('a', 'b')"),
        (
            "<zasync a>\n</zasync>\n<product-config zasync>\n</product-config>",
            "2 sections for zasync",
        ),
    ],
)
def test_what_is_wrong_with_sections_is_told(conf: Any, text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(conf(IMPORT + text))

    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("siz 3", "has no key 'siz'; did you mean 'size'?"),
        ("nonsense 3", "has no key 'nonsense'; it knows database, queues"),
        ("size three", "size is a whole number from 1 on, not 'three'"),
    ],
)
def test_a_mistake_in_a_product_config_names_the_key(conf: Any, line: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(conf(f"<product-config zasync>\n  {line}\n</product-config>"))

    assert expected in str(caught.value)
    assert "<product-config zasync>" in str(caught.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing.conf cannot be read: No such file"):
        read(tmp_path / "missing.conf")
    (tmp_path / "binary.conf").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        read(tmp_path / "binary.conf")


def test_a_file_storage_is_not_for_several_workers(conf: Any, tmp_path: Path) -> None:
    path = conf("")
    ZopeHost(str(path)).check_shareable()

    storage = f"<filestorage>\n    path {tmp_path}/Data.fs\n  </filestorage>"
    text = path.read_text().replace("<mappingstorage>\n  </mappingstorage>", storage)
    path.write_text(text)

    with pytest.raises(SettingsError, match=r"<zodb_db main>.*is a file.*zeoclient"):
        ZopeHost(str(path)).check_shareable()
