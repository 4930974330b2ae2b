"""Reads the stores of an installation as one history for training."""

import json

import numpy as np

from fraud_detection.contract import AMOUNT_SCALING
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.store import history
from fraud_detection.store.history import History
from jobs.installation import Installation
from jobs.progress import step


def read_history(here: Installation, *, with_features: bool = True) -> tuple[History, AmountScaling | None]:
    """Return the union of all stores, each read from a snapshot, and the first Amount scaling among them.

    A transaction that is stored twice counts once: as in the store that has its label, else as in the first.
    An SQLite file that does not exist yet holds nothing. Without features it takes less memory.

    Raises DatabaseRefused, also when none of the stores exists.
    """
    parts, scalings = [], []
    with here.stores() as stores, step("reading transactions"):
        for store in stores:
            with history.snapshot(store) as connection:
                parts.append(history.read(store, connection, with_features=with_features))
                scalings.append(store.get_meta(connection, AMOUNT_SCALING))
    scaling = next((AmountScaling(**json.loads(fixed)) for fixed in scalings if fixed is not None), None)
    return _union(parts), scaling


def _union(parts: list[History]) -> History:
    """Join histories in order of time, without repetitions."""
    if len(parts) == 1:
        return parts[0]
    joined = History(**{name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])})
    labelled_first = np.argsort(joined.is_fraud < 0, kind="stable")
    keys = np.rec.fromarrays([joined.request_id[labelled_first], joined.row_index[labelled_first]])
    _, first = np.unique(keys, return_index=True)
    kept = labelled_first[first]
    return joined.take(kept[np.lexsort((joined.row_index[kept], joined.request_id[kept], joined.ts[kept]))])
