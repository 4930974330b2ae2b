"""Calls a running API: one connection, retries, and idempotency keys that make repeating safe."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import requests
from requests.adapters import HTTPAdapter
from urllib3 import Retry

from fraud_detection.contract import MAX_ROWS
from fraud_detection.exit_codes import ExpectedError
from fraud_detection.features import Feature, FeatureList
from fraud_detection.model.manifest import AmountScaling
from fraud_detection.proxies import bypass_proxy_inside
from fraud_detection.settings import ClientSettings

_TIMEOUT_SECONDS = 10.0
# Below MAX_BODY_BYTES. Another number splits files elsewhere, so the API would answer 422 to a repeated run.
_BODY_BYTES = 900_000


class ApiRefused(ExpectedError):
    """The API rejected a request; message and code are its own."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class ApiAway(ExpectedError):
    """The API did not answer, even after retries; the message says where and why."""


@dataclass(frozen=True)
class Scored:
    """The answer to POST /predict, columns of equal length."""

    request_id: str
    fraud_probability: list[float]
    is_flagged: list[bool]
    threshold: float
    model_version: str


@dataclass(frozen=True)
class ModelDescription:
    """The part of the reply to GET /model that a client needs."""

    version: str
    digest: str
    threshold: float
    features: FeatureList
    """Names only: the API has the bounds and checks them."""
    amount_scaling: AmountScaling | None


class ApiClient:
    """A connection to the API. It makes at most `attempts` attempts per request, within about ten seconds.

    Every method raises ApiRefused or ApiAway.
    """

    def __init__(self, settings: ClientSettings, *, attempts: int = 9) -> None:
        self._url = settings.api_url
        self._address = settings.address
        bypass_proxy_inside(settings.api_url)
        self._session = requests.Session()
        self._session.auth = bearer(settings.api_token)
        # All our requests may be repeated: reading, labels, and scoring with an idempotency key.
        patience = Retry(
            total=attempts - 1,
            connect=2,
            backoff_factor=0.2,
            backoff_max=2,
            status_forcelist=(429, 502, 503, 504),
            allowed_methods=None,
            raise_on_status=False,
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=patience))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def served_model(self) -> ModelDescription:
        """Return the description of the current model."""
        answer = self._ask("GET", "/model")
        scaling = answer["amount_scaling"]
        return ModelDescription(
            version=answer["version"],
            digest=answer["digest"],
            threshold=answer["threshold"],
            features=FeatureList(tuple(Feature(name) for name in answer["features"])),
            amount_scaling=None if scaling is None else AmountScaling(**scaling),
        )

    def score(self, rows: list[list[float]], transaction_ids: Sequence[str | None], *, idempotency_key: str) -> Scored:
        """Score and store at most MAX_ROWS transactions; repeating it with the same key stores nothing twice."""
        answer = self._ask(
            "POST",
            "/predict",
            {"data": rows, "transaction_ids": list(transaction_ids)},
            {"Idempotency-Key": idempotency_key},
        )
        return Scored(**answer)

    def label(self, labels: Sequence[dict[str, object]]) -> int:
        """Send at most MAX_LABELS labels; return how many of them were new."""
        added: int = self._ask("POST", "/labels", {"labels": list(labels)})["labels_added"]
        return added

    def _ask(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        try:
            answer = self._session.request(
                method, self._url + path, json=body, headers=headers, timeout=_TIMEOUT_SECONDS, allow_redirects=False
            )
        except requests.exceptions.InvalidJSONError:
            raise  # our own body is wrong, and nothing was sent
        except requests.RequestException as error:
            raise ApiAway(
                f"{self._address}: the API does not answer ({type(error).__name__}); start it with `fraudctl serve`, "
                "or set API_URL to the address where it runs"
            ) from error
        try:
            document = answer.json()
        except ValueError:
            document = None
        if answer.status_code == 200 and isinstance(document, dict):
            return document
        refusal = (
            document["error"] if isinstance(document, dict) and "error" in document else {"message": answer.reason}
        )
        message = f"the API answered {answer.status_code}: {refusal['message']}"
        raise ApiRefused(answer.status_code, message, refusal.get("code"))


def bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Return what authorizes a request by a token; as a plain header, ~/.netrc would replace it."""

    def authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorize


def rows_per_request(features: FeatureList) -> int:
    """Return how many transactions always fit into one request, even with the longest numbers.

    >>> rows_per_request(FeatureList(tuple(Feature(f"f{number}") for number in range(500))))
    71
    """
    return max(1, min(MAX_ROWS, _BODY_BYTES // (25 * len(features) + 135)))
