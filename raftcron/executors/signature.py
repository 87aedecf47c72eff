"""Signs a request as Standard Webhooks says (https://www.standardwebhooks.com); where secrets are kept is not here."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

PREFIX = "whsec_"
KEY_BYTES = (16, 128)  # below, a key can be guessed; above, it is something else


def key_of(secret: str) -> bytes:
    """The key that a secret stands for: base64, `whsec_` in front or not.  ValueError says what is wrong with it."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64 behind whsec_: make one with `echo whsec_$(openssl rand -base64 32)`") from None
    if not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise ValueError(f"holds {len(key)} bytes; a key has {KEY_BYTES[0]} to {KEY_BYTES[1]}")
    return key


def signed(secret: str, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers.  `message_id` is the same each time the message is sent, `timestamp` is in Unix seconds."""
    content = f"{message_id}.{timestamp}.".encode() + body
    digest = hmac.new(key_of(secret), content, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }
