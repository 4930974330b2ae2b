"""What the exit code of every program means; an expected error carries its own."""

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of API, jobs and fraudctl, with what each means."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> "ExitCode":
        """Make a member of its number and what that means."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    DONE = 0, "Done, or no action was needed."
    FAILED = 1, "The program failed, and the message says why. If something did not respond, run it again."
    BAD_CONFIGURATION = 2, "A variable, an option or an argument is wrong: correct what the message names."
    UNUSABLE = (
        3,
        "Database, data or model cannot be used: the message says why. "
        "A retraining exits with 1 if the database did not respond.",
    )
    RESTORED = 4, "A new model did not serve, so the previous version was restored: find the cause first."
    STORAGE_FAILED = 70, "Only the API: the disk failed twice in a row, or the database vanished while it was open."


class ExpectedError(Exception):
    """An error whose message says what is wrong: a program prints that line and exits with the error's code."""

    exit_code: ExitCode = ExitCode.FAILED
