# SPDX-License-Identifier: ZPL-2.1
"""Which addresses a worker connects to for a job."""

from __future__ import annotations

import pytest

from zasync.plugins import addresses
from zasync.plugins.addresses import RefusedAddress, check_address

pytestmark = pytest.mark.usefixtures("no_networks")


@pytest.fixture
def no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(addresses.VARIABLE, raising=False)
    monkeypatch.setattr(addresses, "_allowed", [])


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_a_public_address_is_connected_to(address: str) -> None:
    check_address(address, "example.com")


@pytest.mark.parametrize(
    "address",
    """
    127.0.0.1 127.8.8.8 10.1.2.3 172.16.0.1 192.168.0.1 169.254.169.254 100.64.0.1 0.0.0.0
    224.0.0.1 255.255.255.255 240.0.0.1 192.0.2.1 198.18.0.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1
    ff02::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    2002:7f00:1:: 2002:a00:1:: 2001:0:7f00:1::1
    """.split(),  # noqa: SIM905
)
def test_a_private_address_and_one_that_wraps_it_are_refused(address: str) -> None:
    with pytest.raises(RefusedAddress, match=r"shop leads to .*ZASYNC_ALLOW_NETWORKS"):
        check_address(address, "shop")


def test_a_process_may_allow_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses.allow_networks("10.0.0.0/8", "fd00::/8")
    monkeypatch.setenv(addresses.VARIABLE, "127.0.0.1, 192.168.7.0/24")

    for address in ["10.9.9.9", "::ffff:10.9.9.9", "fd00::1", "127.0.0.1", "192.168.7.3"]:
        check_address(address, "shop")
    with pytest.raises(RefusedAddress):
        check_address("192.168.8.3", "shop")
    addresses.forbid_all()
    with pytest.raises(RefusedAddress):
        check_address("10.9.9.9", "shop")


@pytest.mark.parametrize("network", ["localhost", "10.0.0.1/8", "10.0.0.0/33", ""])
def test_a_network_must_be_one(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=f"{network!r} is no network such as"):
        addresses.allow_networks(network)
    if network:
        monkeypatch.setenv(addresses.VARIABLE, network)
        with pytest.raises(ValueError, match="is no network such as"):
            check_address("10.9.9.9", "shop")
