"""Hands a mail to a relay: in plain SMTP or under TLS, with a user's password or without.  It blocks: for a thread."""

from __future__ import annotations

import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Final

SECONDS: Final = 10.0  # for each answer of the relay
AUTO, TLS, STARTTLS, OFF = "auto", "tls", "starttls", "off"  # what `--smtp-tls` takes
TLS_PORT: Final = 465  # where relays speak TLS from the first byte


@dataclass(frozen=True)
class Relay:
    """Where mails go, and how; `trust` None: certificates are judged by the system's CAs.

    `auto` is TLS from the first byte on port 465; elsewhere STARTTLS where the relay offers it, or has to because there
    is a user, whose password is never sent in the clear unless TLS is `off`.
    """

    host: str
    port: int
    sender: str = "raftcron@localhost"
    tls: str = AUTO
    user: str = ""
    password: str = field(default="", repr=False)
    trust: ssl.SSLContext | None = None

    def take(self, letter: EmailMessage) -> str | None:
        """Hand over one mail.  None, or why it was not taken, in words that hold no address and no password."""
        try:
            with self._open() as session:
                if self.user:
                    session.login(self.user, self.password)
                session.send_message(letter)
        except ssl.SSLCertVerificationError as error:
            return f"the relay's certificate is not trusted ({error.verify_message}): see --receiver-ca and --smtp-tls"
        except smtplib.SMTPAuthenticationError as error:
            return f"the relay refuses user and password ({error.smtp_code}): see --smtp-user"
        except smtplib.SMTPNotSupportedError as error:
            return f"the relay does not offer what is needed: {error}"
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return f"{type(error).__name__}: the relay has not taken it"
        return None

    def _open(self) -> smtplib.SMTP:
        if self.tls == TLS or (self.tls == AUTO and self.port == TLS_PORT):
            return smtplib.SMTP_SSL(self.host, self.port, timeout=SECONDS, context=self._context())
        session = smtplib.SMTP(self.host, self.port, timeout=SECONDS)
        try:
            session.ehlo_or_helo_if_needed()
            if self.tls == STARTTLS or (self.tls == AUTO and (self.user or session.has_extn("starttls"))):
                session.starttls(context=self._context())
        except BaseException:
            session.close()
            raise
        return session

    def _context(self) -> ssl.SSLContext:
        return self.trust or ssl.create_default_context()
