"""Names and limits on which the API, the jobs and their clients must agree."""

import re

MAX_BODY_BYTES = 1024 * 1024
"""Maximum bytes of a request body."""
MAX_ROWS = 1000
"""Maximum transactions per request."""
MAX_LABELS = 1000
"""Maximum labels per request."""
MAX_ROWS_PER_LABEL = 1000
"""Maximum stored rows that one label may name by their transaction_id."""
MAX_LABEL_ROWS = 10_000
"""Maximum stored rows that the labels of a request may name together; a row counts once for each label."""
MAX_FOUND = 100
"""Maximum decisions that a look-up returns, and labels of each: the newest."""
MAX_COUNTED = 100_000
"""Where a look-up stops counting: this number means at least so many."""
TOO_MANY_ROWS = "too_many_rows"
"""The error code of labels beyond these limits, which `import-labels` answers with smaller requests."""

LABEL_SOURCES = ("analyst", "chargeback", "customer", "review")
"""Who can be the source of a label that a client sends, strongest first."""

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
"""The form of a client's name for a request."""
TRANSACTION_ID = re.compile(r"(?!/)[\x21-\x7e]{1,128}")
"""The form of the id that a client gives a transaction: no leading /, because a URL path would lose it."""
TRANSACTION_ID_FORM = "1 to 128 visible ASCII characters, no leading /"
"""The description of TRANSACTION_ID in messages."""
STORED_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""The form of an id that a label may name. Earlier versions also stored transaction ids with a leading /."""

PLAIN_AMOUNT = "Amount"
"""The field or column of an amount in units of the currency."""
SCALED_AMOUNT = "Amount_scaled"
"""The feature that a plain Amount becomes."""
AMOUNT_SCALING = "amount_scaling"
"""The key in schema_meta of the scaling of amounts, which the first import of a plain Amount fixes."""

FOR_BROWSERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "frame-ancestors 'none'"),
)
"""Headers of every reply: a browser neither guesses its type nor shows it inside the page of another."""
