"""Text that grows by tokens."""

from lm.commands.trained import growing


def test_a_character_is_shown_when_it_is_whole():
    text = "aé→b"
    pieces = text.encode()

    def decode(ids: list[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")

    assert list(filter(None, growing(decode, pieces))) == ["a", "é", "→", "b"]
    assert "".join(growing(decode, [*pieces, 0xE2, None])) == text + "\ufffd"
    assert list(growing(decode, [])) == [""]
