"""Which IP addresses jobs may call, whatever name led to them.  Refused without being asked: link-local ones, where
clouds serve credentials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

_LINK_LOCAL: tuple[tuple[Network, str], ...] = (
    (ip_network("169.254.0.0/16"), "a link-local address, where clouds serve credentials"),
    (ip_network("fe80::/10"), "a link-local address"),
    (ip_network("fd00:ec2::254/128"), "a cloud's metadata address"),
)
_TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))  # NAT64: the last 32 bits are IPv4


@dataclass(frozen=True, slots=True)
class AddressRules:
    """What a node adds to the rule: networks that are refused too, and exceptions, which win."""

    refused: tuple[Network, ...] = ()
    allowed: tuple[Network, ...] = ()

    def refusal(self, text: str) -> str | None:
        """Why nothing may be sent to this address; None if it may, or if it is no address at all."""
        try:
            address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0].strip("[]"))
        except ValueError:
            return None
        meant = list(_meant(address))  # one is enough to refuse; an exception has to name what is refused
        for one in meant:
            if any(one in network for network in self.allowed):
                continue
            for network, reason in _LINK_LOCAL:
                if one in network:
                    return reason
            for network in self.refused:
                if one in network:
                    return f"in {network}, which this node refuses (--refuse-addresses)"
        return None


def _meant(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address | IPv6Address]:
    """The address, and the IPv4 address that stands inside it, if one does."""
    yield address
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and any(address in network for network in _TRANSLATED):
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            yield inner


BY_DEFAULT = AddressRules()


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address as people write it."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
