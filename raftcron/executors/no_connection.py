"""Why a connection did not come about, or broke, in words that are no library's and name nobody."""

from __future__ import annotations

import os
import socket
import ssl

import aiohttp


def in_words(error: BaseException) -> str:
    """Of what aiohttp, the system or TLS have raised."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLError):  # only those that OpenSSL has raised say more
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {getattr(cause, 'verify_message', None) or 'it does not verify'}"
        reason = getattr(cause, "reason", None) or "the handshake failed"
        return f"no TLS: {reason.replace('_', ' ').lower()}"
    if isinstance(cause, socket.gaierror):  # its numbers are not those of other errors
        return f"the name is not resolved: {(cause.strerror or 'no answer').lower()}"
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno).lower()
    if isinstance(cause, aiohttp.ClientPayloadError):
        return "closed within the answer"
    if isinstance(cause, aiohttp.ClientResponseError):
        return "what was answered is not HTTP"
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(cause, ConnectionError):
        return "none of its addresses can be reached"  # each for another reason
    return "closed by the other side"


def _cause(error: BaseException) -> BaseException:
    if not isinstance(error, aiohttp.ClientError | OSError):
        return error.__cause__ or error  # what somebody has made of one of these
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
