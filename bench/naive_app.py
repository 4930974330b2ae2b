"""The naive application: Flask, scikit-learn's forest from its pickle, one INSERT with its own commit a request.

Written as such services usually are, except that it is spared what would only slow it down: one connection for
the life of the process, values bound in one `executemany`, no row of log a request.
"""

import hmac
import os
import sqlite3
from pathlib import Path

import flask
import joblib
import numpy as np

FEATURES = [f"V{number}" for number in range(1, 29)] + ["Amount_scaled"]
COLUMNS = [*FEATURES, "fraud_probability"]
INSERT = f"INSERT INTO requests ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608  constants above

app = flask.Flask(__name__)
token = os.environ["API_TOKEN"]
model = joblib.load(os.environ["MODEL_PATH"])
# The standard library's defaults, journal_mode=DELETE and synchronous=FULL: a commit is on the disk when it returns.
database = sqlite3.connect(Path(os.environ["LATEST_DB"]), timeout=30)
database.execute(
    "CREATE TABLE IF NOT EXISTS requests (id INTEGER PRIMARY KEY, ts TEXT DEFAULT CURRENT_TIMESTAMP, "
    + ", ".join(f"{column} REAL" for column in COLUMNS)
    + ")"
)


@app.post("/predict")
def predict() -> tuple[dict[str, object], int]:
    """Score the rows, store them, answer."""
    if not hmac.compare_digest(flask.request.headers.get("Authorization", ""), f"Bearer {token}"):
        return {"error": "unauthorized"}, 401
    rows = np.array(flask.request.get_json()["data"])
    scores = model.predict_proba(rows)[:, 1]
    with database:
        database.executemany(INSERT, np.column_stack([rows, scores]).tolist())
    return {"fraud_probability": scores.tolist()}, 200
