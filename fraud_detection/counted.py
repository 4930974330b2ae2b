"""Writes a number with its noun in the singular or the plural, for messages."""


def counted(number: int, noun: str) -> str:
    """Return the number and the noun, which gets an s unless the number is 1.

    >>> counted(1, "row"), counted(0, "fraud"), counted(1000, "idempotency key")
    ('1 row', '0 frauds', '1,000 idempotency keys')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
