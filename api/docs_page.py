"""GET /, /docs and /openapi.json: the reference of the API, with its address and the features of this installation."""

import json
import re
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import flask
import jinja2
from markupsafe import Markup, escape

from api.scopes import needs
from fraud_detection.contract import PLAIN_AMOUNT, SCALED_AMOUNT
from fraud_detection.features import Feature, FeatureList

# The page loads nothing from other addresses, and this policy makes the browser enforce that.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


_ADDRESS = "http://address.invalid"
"""Stands in what is rendered once, where the address of the request belongs."""


def blueprint(features: FeatureList, url: str) -> flask.Blueprint:
    """Serve the reference, which is public because it reveals no more than the source code.

    Examples name the address that the request was sent to, and `url` if its Host names none.
    """
    routes = flask.Blueprint("docs", __name__)
    document = openapi_document(features)
    as_json = json.dumps({**document, "servers": [{"url": _ADDRESS}]}, indent=1)
    page = _render(document, features)

    def address() -> str:
        request = flask.request  # its host is empty if the header has characters that no host has
        return f"{request.scheme}://{request.host}{quote(request.script_root)}" if request.host else url

    @routes.get("/")
    @needs("no token")
    def show_start() -> flask.Response:
        if flask.request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":  # a browser
            return flask.Response(status=303, headers={"Location": flask.url_for("docs.show_page"), "Vary": "Accept"})
        about, here = document["info"], address()
        answer = flask.jsonify(
            title=about["title"],
            version=about["version"],
            docs=f"{here}/docs",
            openapi=f"{here}/openapi.json",
            health=f"{here}/health",
        )
        answer.headers["Vary"] = "Accept"
        return answer

    @routes.get("/openapi.json")
    @needs("no token")
    def show_document() -> flask.Response:
        return flask.Response(as_json.replace(_ADDRESS, address()), mimetype="application/json")

    @routes.get("/docs")
    @needs("no token")
    def show_page() -> flask.Response:
        here = page.replace(_ADDRESS, escape(address()))
        return flask.Response(here, mimetype="text/html", headers={"Content-Security-Policy": _POLICY})

    return routes


def openapi_document(features: FeatureList) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of docs/openapi.yaml for these features."""
    document: dict[str, Any] = json.loads(files("api").joinpath("openapi.json").read_text(encoding="utf-8"))
    numbers = [_number(feature) for feature in features.features]
    example = [_example(feature) for feature in features.features]
    named = dict(zip(features.names, example, strict=True))
    schemas = document["components"]["schemas"]
    schemas["Transaction"] = {
        "description": f"The features of one transaction, in order: {', '.join(features.names)}.",
        "type": "array",
        "prefixItems": numbers,
        "minItems": len(features),
        "maxItems": len(features),
        "example": example,
    }
    properties = dict(zip(features.names, numbers, strict=True))
    schemas["NamedTransaction"] = _by_name("The features of one transaction, by name.", properties, named)
    media = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]
    if features.scales_amounts:
        with_amount = {name: properties[name] for name in features.names if name != SCALED_AMOUNT}
        with_amount[PLAIN_AMOUNT] = {"title": PLAIN_AMOUNT, "description": "in units of the currency", "type": "number"}
        paid = {name: named.get(name, 149.62) for name in with_amount}
        description = schemas["TransactionWithAmount"]["description"]
        schemas["TransactionWithAmount"] = _by_name(description, with_amount, paid)
        media["examples"]["with_amount"]["value"] = {"data": [paid]}
    else:
        del schemas["TransactionWithAmount"], media["examples"]["with_amount"]
        schemas["PredictRequest"]["properties"]["data"]["items"]["anyOf"].pop()
    stored = {
        name: {key: value for key, value in number.items() if key not in {"minimum", "maximum"}}
        for name, number in properties.items()
    }
    schemas["StoredTransaction"] = _by_name(schemas["StoredTransaction"]["description"], stored, named)
    media["examples"]["one_row"]["value"] = {"data": [example]}
    media["examples"]["with_ids"]["value"] = {"data": [named], "transaction_ids": ["payment-4711"]}
    return document


def _number(feature: Feature) -> dict[str, Any]:
    return {
        "title": feature.name,
        "description": feature.description,
        "type": "number",
        "minimum": feature.minimum,
        "maximum": feature.maximum,
    }


def _by_name(description: str, properties: dict[str, Any], example: dict[str, float]) -> dict[str, Any]:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "example": example,
    }


def _example(feature: Feature) -> float:
    return min(max(0.0, feature.minimum), feature.maximum)


def _render(document: dict[str, Any], features: FeatureList) -> str:
    def resolve(part: dict[str, Any]) -> Any:
        if "$ref" not in part:
            return part
        found: Any = document
        for name in part["$ref"].split("/")[1:]:
            found = found[name]
        return found

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = _prose
    template = environment.from_string(files("api").joinpath("docs_page.html").read_text(encoding="utf-8"))
    return template.render(
        document=document, features=features.features, address=_ADDRESS, resolve=resolve, dumps=json.dumps
    )


def _prose(text: str) -> Markup:
    """Render the two bits of Markdown that the document uses: `code` and paragraphs."""
    code = re.sub("`(.+?)`", r"<code>\1</code>", str(escape(text.strip())))
    return Markup(code.replace("\n\n", "<br><br>"))  # noqa: S704  # escaped in the line above
