"""The handshake and the seals, without sockets: nothing can be changed, repeated or sent back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from raftcron.raft.handshake import Handshake, HandshakeError, Seal, Session, Unproven, derive_key, dial, listen

Spoil = Callable[[int, bytes], bytes]


class Side:
    """One side of a handshake: takes what comes in any pieces."""

    def __init__(self, handshake: Handshake) -> None:
        self.session: Session | None = None
        self.said = b""
        self._handshake = handshake
        self._heard = b""
        self._step(lambda: next(handshake))

    def _step(self, step: Callable[[], object]) -> None:
        try:
            told = step()
            while True:
                self.said += told.send  # type: ignore[attr-defined]
                self._wait_for = told.wait_for  # type: ignore[attr-defined]
                if self._wait_for:
                    return
                told = next(self._handshake)
        except StopIteration as end:
            self.session = end.value

    def hear(self, data: bytes) -> bytes:
        """What it answers.  Raises HandshakeError."""
        self._heard += data
        while self.session is None and len(self._heard) >= self._wait_for:
            part, self._heard = self._heard[: self._wait_for], self._heard[self._wait_for :]
            self._step(lambda part=part: self._handshake.send(part))  # type: ignore[misc]
        return self.answer()

    def answer(self) -> bytes:
        said, self.said = self.said, b""
        return said


def run(dialler: Side, listener: Side, spoil: Spoil = lambda _, data: data) -> tuple[Session, Session]:
    """Both sides, with each of the four messages on its way through `spoil`."""
    challenge = listener.hear(spoil(0, dialler.answer()))
    proof = dialler.hear(spoil(1, challenge))
    verdict = listener.hear(spoil(2, proof))
    dialler.hear(spoil(3, verdict))
    assert dialler.session is not None
    assert listener.session is not None
    return dialler.session, listener.session


def sides(dialler_key: bytes = b"k", listener_key: bytes = b"k") -> tuple[Side, Side]:
    return (
        Side(dial(derive_key(dialler_key), "n1", "n2", b"d" * 32)),
        Side(listen(derive_key(listener_key), "n2", b"l" * 32)),
    )


def test_both_agree() -> None:
    """Both sides end with the same keys, one for each direction, and know each other's name."""
    dialler, listener = run(*sides())
    assert (dialler.peer, listener.peer) == ("n2", "n1")
    assert dialler.send_key == listener.receive_key != dialler.receive_key == listener.send_key


@pytest.mark.parametrize("message", [0, 1, 2, 3])
def test_changed_on_the_way(message: int) -> None:
    """No byte of any message can be changed without one side noticing."""
    sizes: dict[int, int] = {}

    def measure(number: int, data: bytes) -> bytes:
        sizes[number] = len(data)
        return data

    run(*sides(), measure)
    for at in range(sizes[message]):

        def spoil(number: int, data: bytes, at: int = at) -> bytes:
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if number == message else data

        with pytest.raises(HandshakeError):
            run(*sides(), spoil)


def test_another_secret() -> None:
    """A dialler with another secret gets no proof from the listener, only a no."""
    dialler, listener = sides(dialler_key=b"other")
    proof = dialler.hear(listener.hear(dialler.answer()))
    with pytest.raises(Unproven) as caught:
        listener.hear(proof)
    assert caught.value.parting[1:] == bytes(32)
    with pytest.raises(Unproven, match="does not take our proof"):
        dialler.hear(caught.value.parting)


def test_proofs_cannot_be_sent_back() -> None:
    """A listener that does not know the secret cannot answer with the dialler's own proof."""
    dialler, _ = sides()
    proof = dialler.hear(b"\0" + b"x" * 32)
    assert len(dialler.answer() or proof) > 32  # the opening went before it
    with pytest.raises(Unproven, match="does not prove"):
        dialler.hear(b"\0" + proof[-32:])


def test_another_protocol_is_seen_in_its_first_bytes() -> None:
    """What is no opening is refused after eight bytes, not once it is as long as one; TLS is named."""
    with pytest.raises(HandshakeError, match="does not speak this protocol"):
        sides()[1].hear(b"GET / HT")
    with pytest.raises(HandshakeError, match=r"it speaks TLS, .* --peer-cert"):
        sides()[1].hear(b"\x16\x03\x01\x02\x00\x01\x00\x01")
    with pytest.raises(HandshakeError, match=r"nothing but TLS: .* --peer-cert"):
        sides()[0].hear(b"\x15")


@pytest.mark.parametrize("name", [b"n\n1", b"\x1b[2J", b"", b"n\xff", "n\u202e1".encode()])
def test_names_that_would_spoil_a_log(name: bytes) -> None:
    """A name that cannot be shown as it is, is none."""
    opening = b"RAFTCRN1" + bytes([len(name)]) + name.ljust(64, b"\0") + b"\x02" + b"n2".ljust(64, b"\0") + bytes(32)
    with pytest.raises(HandshakeError, match="no node name"):
        sides()[1].hear(opening)


def test_seals_count() -> None:
    """Equal frames have different seals, in step on both sides."""
    sender, receiver = Seal(b"k" * 32), Seal(b"k" * 32)
    first, second = sender.tag(b"x"), sender.tag(b"x")
    assert first != second
    assert [receiver.tag(b"x"), receiver.tag(b"x")] == [first, second]
