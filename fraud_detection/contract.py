"""Names and limits on which the API, the jobs and their clients must agree."""

import re

MAX_BODY_BYTES = 1024 * 1024
"""Bytes of a request body, at most."""
MAX_ROWS = 1000
"""Transactions in one request, at most."""
MAX_LABELS = 1000
"""Labels in one request, at most."""

LABEL_SOURCES = ("analyst", "chargeback", "customer", "review")
"""Who can be the source of a label that a client sends, strongest first."""

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
"""The form of a client's name for a request."""
TRANSACTION_ID = re.compile(r"(?!/)[\x21-\x7e]{1,128}")
"""The form of the id that a client gives a transaction. A path would lose a leading /."""
TRANSACTION_ID_FORM = "1 to 128 visible ASCII characters, no leading /"
"""What a message says of TRANSACTION_ID."""
STORED_ID = re.compile(r"[\x21-\x7e]{1,128}")
"""The form of an id that a label may name. Earlier versions stored transaction ids with a leading / as well."""

AMOUNT_SCALING = "amount_scaling"
"""The key in schema_meta of how amounts are scaled, which the first import of a plain Amount fixes."""
