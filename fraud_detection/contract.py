"""Names and limits on which the API, the jobs and their clients must agree."""

import re

MAX_BODY_BYTES = 1024 * 1024
"""Maximum bytes of a request body."""
MAX_ROWS = 1000
"""Maximum transactions per request."""
MAX_LABELS = 1000
"""Maximum labels per request."""

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

SCALED_AMOUNT = "Amount_scaled"
"""The feature that a plain Amount becomes."""
AMOUNT_SCALING = "amount_scaling"
"""The key in schema_meta of the scaling of amounts, which the first import of a plain Amount fixes."""
