"""Remembers that the store vanished while the API served, so that no start hides it before you decide."""

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from fraud_detection.database import DatabaseRefused
from fraud_detection.database.sqlite import forget_file
from fraud_detection.model.files import read_regular, write_whole
from fraud_detection.settings import SharedSettings

_LIMIT_BYTES = 64 * 1024  # a sentence with a path
WAYS_OUT = "restore a backup (`fraudctl db restore`), or accept what is there now (`fraudctl bootstrap`)"


@dataclass(frozen=True)
class Mark:
    """A file that says what happened, beside the models or, if the API may not write there, beside the database."""

    database: Path
    models_dir: Path

    @classmethod
    def of(cls, settings: SharedSettings) -> Self | None:
        """Return the mark of an installation, None with PostgreSQL."""
        return None if settings.database_url else cls(settings.latest_db, settings.models_dir)

    def leave(self, what: str) -> None:
        """Write down what happened.

        Raises OSError if neither folder can be written.
        """
        content = f"{what} ({datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC)".encode()
        beside_models, beside_database = self._places
        try:
            write_whole(beside_models, content)
        except OSError:
            write_whole(beside_database, content)

    @property
    def found(self) -> str | None:
        """What happened, None if there is no mark."""
        for place in self._places:
            try:
                return read_regular(place, _LIMIT_BYTES).decode(errors="replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                return f"{place}: marks a database that vanished, and cannot be read ({error.strerror})"
        return None

    def refuse(self) -> None:
        """Raise DatabaseRefused if there is a mark."""
        what = self.found
        if what is not None:
            raise DatabaseRefused("lost", f"{what}; {WAYS_OUT}")

    def clear(self) -> None:
        """Remove the mark and accept what is there now: the file, or an empty store if there is none.

        Raises DatabaseRefused if the mark is a folder.
        """
        for place in self._places:
            if place.is_dir():
                raise DatabaseRefused("lost", f"{place}: expected a file, got a folder; remove it and run this again")
        if self.found is not None and not self.database.exists():
            with contextlib.suppress(NotADirectoryError):
                forget_file(self.database)
        for place in self._places:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                place.unlink()

    @property
    def _places(self) -> tuple[Path, Path]:
        name = f".{self.database.name}.vanished"
        return self.models_dir / name, self.database.with_name(name)
