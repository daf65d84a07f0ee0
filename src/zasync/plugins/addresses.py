# SPDX-License-Identifier: ZPL-2.1
"""Which network addresses a worker connects to for a job.

A URL may come from outside, and a worker often stands where outsiders cannot reach.  So private
addresses are refused unless this process allows them: by `allow_networks`, or by the environment
variable ZASYNC_ALLOW_NETWORKS.  A job cannot allow itself anything.  What is looked at is the
address that is connected to, so a name that leads elsewhere a moment later helps nobody.
"""

from __future__ import annotations

import ipaddress
import os
from typing import Any

from zasync.interfaces import ZasyncError

VARIABLE = "ZASYNC_ALLOW_NETWORKS"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_allowed: list[Network] = []


class RefusedAddress(ZasyncError, PermissionError):
    """A job wants to connect to a private address, which its worker does not allow."""


def allow_networks(*networks: str) -> None:
    """Let jobs of this process connect to `networks`, such as '10.0.0.0/8' or '127.0.0.1'."""
    _allowed.extend(map(_network, networks))


def forbid_all() -> None:
    """Take back what `allow_networks` has allowed."""
    _allowed.clear()


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ValueError(f"{text!r} is no network such as '10.0.0.0/8': {error}") from None


def allowed() -> list[Network]:
    """The private networks that may be connected to."""
    words = os.environ.get(VARIABLE, "").replace(",", " ").split()
    return [*_allowed, *map(_network, words)]


def check_address(address: str, host: str) -> None:
    """RefusedAddress if the IP `address`, to which the name `host` leads, is not to be reached."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if all(map(_is_public, _meant(ip))):
        return
    if any(ip in network for network in allowed()):
        return
    leads = "" if host == address else f"{host} leads to {address}; "
    raise RefusedAddress(
        f"{leads}{address} is not a public address, and this worker connects to such only where it"
        f" is allowed: see zasync.plugins.addresses, or set {VARIABLE}"
    )


def _meant(ip: Address) -> list[Address]:
    """The address, and those that are wrapped in it and may be what it leads to."""
    found: list[Any] = [ip]
    if isinstance(ip, ipaddress.IPv6Address):
        found += [ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if not int(ip) >> 32:  # the form ::1.2.3.4
            found.append(ipaddress.IPv4Address(int(ip)))
    return [each for each in found if each is not None]


def _is_public(ip: Address) -> bool:
    return ip.is_global and not ip.is_multicast
