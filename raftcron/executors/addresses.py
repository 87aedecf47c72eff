"""Which IP addresses no job may call, whatever name led to them: link-local ones, where clouds serve credentials."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_REFUSED = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("169.254.0.0/16", "a link-local address, where clouds serve credentials"),
        ("fe80::/10", "a link-local address"),
        ("fd00:ec2::254/128", "a cloud's metadata address"),
    )
)
_TRANSLATED = ip_network("64:ff9b::/96")  # NAT64: the last 32 bits are an IPv4 address


def is_address(text: str) -> bool:
    """Whether it is an IPv4 or IPv6 address as people write it."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def refusal(text: str) -> str | None:
    """Why nothing may be sent to this address; None if it may, or if it is no address at all."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _TRANSLATED:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        address = inner or address
    for network, reason in _REFUSED:
        if address in network:
            return reason
    return None
