"""The reference of the API describes its real answers and the features of the installation."""

import html
import json
import re
from typing import Any

import flask
import pytest
import yaml
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate

from api.docs_page import blueprint, openapi_document
from api.errors import ANSWERS
from fraud_detection.features import Feature, FeatureList, default_features
from fraud_detection.schema import SOURCES
from jobs.synthetic.statistics import PUBLIC_SCALING
from tests.support.project import ROOT

SOURCE = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())
THREE = FeatureList(
    (Feature("amount", minimum=0, description="in <euro>"), Feature("age_days", 1, 36500), Feature("balance"))
)


def page(features: FeatureList) -> str:
    app = flask.Flask("docs")
    app.register_blueprint(blueprint(features, "http://127.0.0.1:5000"))
    return app.test_client().get("/docs").text


def against(document: dict[str, Any], schema: dict[str, Any]) -> OAS31Validator:
    """Return a validator of a schema in a document."""
    return OAS31Validator(
        {**schema, "components": document["components"]}, format_checker=OAS31Validator.FORMAT_CHECKER
    )


def test_the_source_is_openapi_3_1_and_the_package_carries_the_same() -> None:
    validate(SOURCE)

    assert json.loads((ROOT / "api" / "openapi.json").read_text()) == SOURCE, (
        "docs/openapi.yaml was changed: run `make generate`"
    )


@pytest.mark.parametrize("features", [default_features(), THREE], ids=["the default 29", "three others"])
def test_the_document_of_an_installation_is_about_its_features(features: FeatureList) -> None:
    document = openapi_document(features)

    validate(document)
    request = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    validator = against(document, request["schema"])
    for example in request["examples"].values():
        validator.validate(example["value"])
        features.check(features.to_numbers(example["value"]["data"], PUBLIC_SCALING))
    wrong: Any
    for wrong in (
        [features.minimums.tolist()[:-1]],
        [[*features.minimums.tolist(), 0.0]],
        [(features.maximums + 1).tolist()],
        [{}],
        [dict(zip(features.names, features.minimums.tolist(), strict=True)) | {"Amount": 1.0}],
        [features.minimums.tolist(), dict(zip(features.names, features.minimums.tolist(), strict=True))],
        [],
    ):
        assert not validator.is_valid({"data": wrong}), wrong


def test_the_document_lets_a_stored_transaction_be_outside_the_bounds_of_today() -> None:
    document = openapi_document(default_features())
    unscaled = dict.fromkeys(default_features().names, 5000.0)

    found = document["components"]["schemas"]["Decision"]["allOf"][1]["properties"]["features"]
    assert against(document, found).is_valid(unscaled)
    assert not against(document, {"$ref": "#/components/schemas/NamedTransaction"}).is_valid(unscaled)


@pytest.mark.parametrize(
    ("names", "is_valid"),
    [
        ({"transaction_id": "order-1"}, True),
        ({"request_id": "r", "row": 0}, True),
        ({}, False),
        ({"request_id": "r"}, False),
        ({"row": 0}, False),
        ({"transaction_id": "order-1", "request_id": "r"}, False),
        ({"transaction_id": "order-1", "row": 0}, False),
        ({"transaction_id": "order-1", "order": 1}, False),
    ],
)
def test_the_document_says_how_a_label_names_its_transaction(names: dict[str, Any], is_valid: bool) -> None:
    label = {"is_fraud": True, "source": "review", **names}

    assert against(SOURCE, SOURCE["components"]["schemas"]["NewLabel"]).is_valid(label) is is_valid


def test_every_example_fits_its_own_schema() -> None:
    checked = 0
    document = openapi_document(default_features())
    for media in find_media(document):
        for example in [media.get("example"), *(named["value"] for named in media.get("examples", {}).values())]:
            if example is not None:
                against(document, media["schema"]).validate(example)
                checked += 1
    assert checked > 10


def find_media(part: Any) -> list[dict[str, Any]]:
    """Yield every media type object of a document."""
    if isinstance(part, list):
        return [media for item in part for media in find_media(item)]
    if not isinstance(part, dict):
        return []
    here = list(part["content"].values()) if "content" in part else []
    return here + [media for item in part.values() for media in find_media(item)]


def test_document_and_code_agree_on_names(api: Any) -> None:
    schemas = SOURCE["components"]["schemas"]

    assert schemas["Label"]["properties"]["source"]["enum"] == list(SOURCES)
    routes = {
        re.sub("<.*>", "{id}", rule.rule): rule.methods - {"HEAD", "OPTIONS"} for rule in api.url_map.iter_rules()
    }
    assert routes == {path: {method.upper() for method in methods} for path, methods in SOURCE["paths"].items()}
    statuses = {
        int(status) for methods in SOURCE["paths"].values() for each in methods.values() for status in each["responses"]
    }
    assert {status for status, _ in ANSWERS.values()} <= statuses


@pytest.mark.parametrize("features", [default_features(), THREE], ids=["the default 29", "three others"])
def test_the_page_lists_every_endpoint_and_every_feature(features: FeatureList) -> None:
    text = page(features)

    for path, methods in SOURCE["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in text
    for feature in features.features:
        assert f"<code>{feature.name}</code>" in text


def test_the_page_shows_what_an_installation_wrote_as_text() -> None:
    assert "in &lt;euro&gt;" in page(THREE)
    assert "<euro>" not in page(THREE)


def test_the_page_loads_nothing_from_anywhere(lasting_client: FlaskClient) -> None:
    answer = lasting_client.get("/docs")

    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert not re.findall(r"""(?:src|href)=["'](?!#)|url\(|@import|<script|<link""", answer.text)


CONFIGURED = "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("fraud.example:8080", "http://fraud.example:8080"),
        ("localhost:5000", "http://localhost:5000"),
        ("[::1]:5000", "http://[::1]:5000"),
        ("", CONFIGURED),
        ("a'b", CONFIGURED),
        ("a$(reboot)", CONFIGURED),
        ("<script>", CONFIGURED),
        ("a b", CONFIGURED),
        ("user@elsewhere", CONFIGURED),
        ("elsewhere/path", CONFIGURED),
        ("elsewhere:99999", CONFIGURED),
    ],
)
def test_the_reference_names_the_address_that_it_was_read_from(
    lasting_client: FlaskClient, host: str, address: str
) -> None:
    headers = {"Host": host}

    text, document = (lasting_client.get(path, headers=headers) for path in ("/docs", "/openapi.json"))

    assert set(re.findall(r"'(http.*?)/(?:predict|metrics)'", text.text)) == {address}
    assert document.get_json()["servers"] == [{"url": address}]
    assert lasting_client.get("/", headers=headers).get_json()["docs"] == f"{address}/docs"


def test_behind_a_proxy_the_reference_names_the_address_of_the_proxy(lasting_client: FlaskClient) -> None:
    proxied = {"wsgi.url_scheme": "https", "SCRIPT_NAME": "/fraud's"}

    text = lasting_client.get("/docs", headers={"Host": "pay.example"}, environ_overrides=proxied).text
    start = lasting_client.get("/", headers={"Accept": "text/html"}, environ_overrides=proxied)

    assert "curl -X POST 'https://pay.example/fraud%27s/predict'" in text
    assert start.headers["Location"].startswith("/fraud")


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", 303),
        ("application/json", 200),
        ("*/*", 200),
        ("image/png", 200),
        (None, 200),
    ],
)
def test_the_start_leads_a_browser_to_the_page(lasting_client: FlaskClient, accept: str | None, status: int) -> None:
    answer = lasting_client.get("/", headers={} if accept is None else {"Accept": accept})

    assert (answer.status_code, answer.headers["Vary"]) == (status, "Accept")
    assert answer.headers.get("Location") == ("/docs" if status == 303 else None)


def test_the_examples_can_be_pasted_in_order(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    shown = re.findall(
        r"<p>([^\n]*)</p>\n<pre>curl -X POST 'http://localhost/(predict|labels)'.*?-d '(.*?)'</pre>",
        html.unescape(lasting_client.get("/docs").text),
        re.DOTALL,
    )
    *others, (said, _, by_request) = shown

    answers = [
        lasting_client.post(f"/{path}", data=body, headers=authorized, content_type="application/json")
        for _, path, body in others
    ]
    made_up = json.loads(by_request)
    made_up["labels"][0]["request_id"] = answers[-2].get_json()["request_id"]

    assert [path for _, path, _ in others] == ["predict", "predict", "predict", "labels"]
    assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
    assert "put in the request_id of a reply to POST /predict" in said
    assert lasting_client.post("/labels", json=made_up, headers=authorized).status_code == 200


def test_only_examples_of_what_needs_a_token_send_one(lasting_client: FlaskClient) -> None:
    examples = re.findall(r"<pre>curl (.*?)</pre>", lasting_client.get("/docs").text, re.DOTALL)

    without = {example.rpartition("localhost")[2] for example in examples if "$API_TOKEN" not in example}
    public = [path for path, methods in SOURCE["paths"].items() if methods.get("get", {}).get("security") == []]
    assert without == {f"{path}'" for path in public}


# -- real answers against the document -------------------------------------------------------------------------------

ROWS = [[0.5] * 29, [3.0] + [0.0] * 28]
KNOWN = {"transaction_id": "known", "is_fraud": True, "source": "review"}
EXCHANGES: list[tuple[str, str, int, dict[str, Any]]] = [
    ("post", "/predict", 200, {"json": {"data": ROWS, "transaction_ids": ["known", None]}}),
    ("post", "/predict", 200, {"json": {"data": ROWS}, "headers": {"Idempotency-Key": "documented"}}),
    ("post", "/predict", 200, {"json": {"data": ROWS}, "headers": {"Idempotency-Key": "documented"}}),
    ("post", "/predict", 422, {"json": {"data": ROWS[:1]}, "headers": {"Idempotency-Key": "documented"}}),
    ("post", "/predict", 400, {"data": b"{", "content_type": "application/json"}),
    ("post", "/predict", 401, {"headers": {"Authorization": ""}}),
    ("post", "/predict", 401, {"headers": {"Authorization": "Basic eDp5"}}),
    ("post", "/predict", 401, {"headers": {"Authorization": "Bearer another-one"}}),
    ("post", "/predict", 413, {"data": b" " * (1 << 20) + b" ", "content_type": "application/json"}),
    ("post", "/predict", 415, {"data": b"{}"}),
    ("post", "/predict", 422, {"json": {"data": []}}),
    ("post", "/labels", 200, {"json": {"labels": [KNOWN]}}),
    ("post", "/labels", 400, {"data": b"{", "content_type": "application/json"}),
    ("post", "/labels", 404, {"json": {"labels": [KNOWN, KNOWN | {"transaction_id": "unknown"}]}}),
    ("post", "/labels", 415, {"data": b"{}"}),
    ("post", "/labels", 422, {"json": {"labels": []}}),
    ("get", "/transactions/known", 200, {}),
    ("get", "/transactions/unknown", 404, {}),
    ("get", "/model", 200, {}),
    ("get", "/model", 401, {"headers": {"Authorization": ""}}),
    ("get", "/metrics", 200, {}),
    ("get", "/health", 200, {}),
    ("get", "/", 200, {}),
    ("get", "/openapi.json", 200, {}),
    ("get", "/docs", 200, {}),
]


def test_real_answers_are_what_the_document_says(lasting_client: FlaskClient, authorized: dict[str, str]) -> None:
    document = json.loads(lasting_client.get("/openapi.json").data)
    for method, path, status, request in EXCHANGES:
        headers = authorized | request.get("headers", {})

        answer = getattr(lasting_client, method)(path, **{**request, "headers": headers})

        what = f"{method} {path} {answer.status_code}: {answer.text[:300]}"
        template = "/transactions/{id}" if path.startswith("/transactions/") else path
        assert answer.status_code == status, what
        described = resolve(document, document["paths"][template][method]["responses"][str(status)])
        media = described["content"][answer.mimetype]
        body = answer.get_json() if answer.mimetype == "application/json" else answer.text
        against(document, media["schema"]).validate(body)
        for name, header in described["headers"].items():
            if name != "Idempotency-Replayed" or name in answer.headers:
                against(document, resolve(document, header)["schema"]).validate(answer.headers[name])


def resolve(document: dict[str, Any], part: dict[str, Any]) -> Any:
    found: Any = document
    for name in part.get("$ref", "").split("/")[1:]:
        found = found[name]
    return found if "$ref" in part else part
