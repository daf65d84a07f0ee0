# SPDX-License-Identifier: ZPL-2.1
"""Reading URIs: what is understood, what is refused, and what is kept out of messages."""

from pathlib import Path

import pytest

from zasync.storage import BadConfiguration, UnknownScheme, file_storage_path, is_file_storage
from zasync.storage.uri import (
    FileStorageURI,
    known_schemes,
    normalised,
    redacted,
    with_zeo_wait,
    zeo_address,
)


@pytest.mark.parametrize("path", ["Data.fs", "./x.fs", "/var/lib/app/Data.fs", "./a:b.fs"])
def test_a_path_without_a_scheme_becomes_a_file_uri(path: str):
    assert normalised(path) == f"file://{path}"


def test_a_drive_of_windows_is_no_scheme():
    assert normalised(r"C:\data\Data.fs") == r"file://C:\data\Data.fs"


def test_postgresql_is_another_way_to_write_postgres():
    assert normalised("postgresql://user@host/jobs") == "postgres://user@host/jobs"


def test_the_scheme_may_be_written_in_capitals():
    assert normalised("ZEO://host:8100") == "zeo://host:8100"


def test_an_unknown_scheme_is_refused_with_the_known_ones():
    with pytest.raises(UnknownScheme, match=r"redis://.*known are demo, file, memory") as caught:
        normalised("redis://localhost")
    assert "zeo" in str(caught.value)


def test_the_known_schemes_are_those_of_zodburi_and_of_relstorage():
    assert {"file", "memory", "zconfig", "zeo", "sqlite", "postgres"} <= set(known_schemes())


def test_no_uri_at_all_is_refused():
    with pytest.raises(BadConfiguration, match="no database is named"):
        normalised("")


@pytest.mark.parametrize("uri", ["file:Data.fs", "memory:", "zeo:localhost", "zconfig:a.conf"])
def test_a_scheme_without_slashes_is_refused_with_the_right_spelling(uri: str):
    scheme = uri.partition(":")[0]
    with pytest.raises(BadConfiguration, match=f"write {scheme}://"):
        normalised(uri)


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("zeo://", "names no server"),
        ("zeo:///", "names no server"),
        ("zeo://?wait_timeout=3", "names no server"),
        ("zeo://var/zeo.sock", "three slashes"),
        ("zeo://localhost:port", "no proper address"),
        ("zeo://localhost:0", "no proper address"),
        ("zeo://[::1", "no proper address"),
    ],
)
def test_an_address_that_zeo_would_misunderstand_is_refused(uri: str, advice: str):
    with pytest.raises(BadConfiguration, match=advice) as caught:
        normalised(uri)
    assert uri in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("zeo://localhost:8100?storage=main", "localhost:8100"),
        ("zeo://db.example", "db.example:9991"),
        ("zeo:///run/zeo.sock?wait_timeout=3", "/run/zeo.sock"),
    ],
)
def test_the_address_of_a_server_is_told_as_it_is_dialled(uri: str, address: str):
    assert zeo_address(uri) == address


def test_passwords_are_kept_out_of_messages():
    uri = "postgres://me:se@cr:et@host:5432/jobs?driver=auto&password=hidden&x=1"
    assert redacted(uri) == "postgres://me:***@host:5432/jobs?driver=auto&password=***&x=1"


def test_every_zeo_client_gets_a_limit_to_its_waiting():
    assert with_zeo_wait("zeo://a:1", 3) == "zeo://a:1?wait_timeout=3"
    assert with_zeo_wait("zeo://a:1?storage=x", 3) == "zeo://a:1?storage=x&wait_timeout=3"
    assert (
        with_zeo_wait("demo:(zeo://a:1)/(zeo://b:2?storage=x)#database_name=d", 3)
        == "demo:(zeo://a:1?wait_timeout=3)/(zeo://b:2?storage=x&wait_timeout=3)#database_name=d"
    )


def test_a_limit_to_waiting_that_the_uri_has_stands():
    assert with_zeo_wait("zeo://a:1?wait_timeout=60", 3) == "zeo://a:1?wait_timeout=60"


def test_a_file_uri_falls_into_the_file_and_the_options_of_storage_and_database():
    file = FileStorageURI.parse("file:///d/Data.fs?quota=1gb&database_name=main")

    assert file.path == Path("/d/Data.fs")
    assert file.options == {"quota": "1gb"}
    assert file.database_options == {"database_name": "main"}
    assert file.blob_dir is None
    assert str(file) == "file:///d/Data.fs?quota=1gb&database_name=main"


@pytest.mark.parametrize("option", ["blobstorage_dir", "blob_dir"])
def test_a_file_uri_may_name_the_directory_of_the_blobs(option: str):
    file = FileStorageURI.parse(f"Data.fs?{option}=/my%20blobs")

    assert file.blob_dir == Path("/my blobs")
    assert str(file) == "file://Data.fs?blobstorage_dir=%2Fmy+blobs"


def test_a_file_uri_without_a_file_is_refused():
    with pytest.raises(BadConfiguration, match="names no file"):
        FileStorageURI.parse("file://?quota=1gb")


def test_only_a_file_uri_has_a_file():
    with pytest.raises(BadConfiguration, match="zeo://localhost:8100 is no file"):
        file_storage_path("zeo://localhost:8100")


@pytest.mark.parametrize("uri", ["Data.fs", "file:///d/Data.fs", "file://Data.fs?quota=1gb"])
def test_a_file_can_be_served_to_others(uri: str):
    assert is_file_storage(uri)
    assert file_storage_path(uri).name == "Data.fs"


@pytest.mark.parametrize(
    "uri", ["", "memory://", "zeo://localhost:8100", "zconfig://a.conf", "Data.fs?demostorage=1"]
)
def test_nothing_else_can_be_served_to_others(uri: str):
    assert not is_file_storage(uri)
