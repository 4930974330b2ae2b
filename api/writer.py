"""The one thread that writes: it groups what waits into one transaction and wakes the callers after COMMIT."""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from gevent.hub import Hub, Waiter, get_hub

from api.metrics import Metrics
from fraud_detection.store import ScoredRequest, Store, StoredReply

Result = TypeVar("Result")
Trouble = Literal["storage_full", "storage_busy", "storage_failed", "overloaded", "stopping"]


class NotStored(Exception):
    """Nothing was acknowledged; `code` comes from a fixed set. The caller answers 503 and may be asked again.

    After `storage_busy` and `storage_failed` the rows may be stored all the same: only an idempotency key makes
    trying again safe.
    """

    def __init__(self, code: Trouble, message: str) -> None:
        super().__init__(message)
        self.code: Trouble = code


class Writer:
    """Stores scored requests and runs other writing work, one transaction after another, in a thread of its own.

    Callers wait in gevent's way, so that a server's other requests go on; without a server it works as well.
    """

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def append(self, request: ScoredRequest) -> StoredReply | None:
        """Store a request whole and return None after COMMIT; the reply stored before if its idempotency key is taken.

        The body of that reply may be another one: compare `body_sha256`.

        Raises NotStored.
        """
        raise NotImplementedError

    def run(self, work: Callable[[sa.Connection], Result]) -> Result:
        """Run `work` on the writing connection, in a transaction, and return what it returned after COMMIT.

        What it raises is raised here, and then nothing of it is stored.

        Raises NotStored.
        """
        raise NotImplementedError

    @property
    def oldest_wait_seconds(self) -> float:
        """How long the oldest request that is not yet stored has been waiting; 0 when none waits."""
        raise NotImplementedError
