"""Says what a request to each endpoint must bring: a scope, any valid token, or no token."""

from collections.abc import Callable
from typing import Literal, TypeVar

import flask

from fraud_detection.token_file import Scope

Need = Scope | Literal["any token", "no token"]

_View = TypeVar("_View", bound=Callable[..., object])
_NEED = "fraud_need"  # as Flask does, it stands on the view itself


class UndeclaredNeed(Exception):
    """A route whose view does not say what it needs."""


def needs(need: Need) -> Callable[[_View], _View]:
    """Declare what a request to a view must bring; the API does not start if a view declares nothing."""

    def declare(view: _View) -> _View:
        setattr(view, _NEED, need)
        return view

    return declare


def needs_of(app: flask.Flask) -> dict[str, Need]:
    """Return what each route needs, by Flask's name of its view.

    Raises UndeclaredNeed.
    """
    found: dict[str, Need] = {}
    for route in app.url_map.iter_rules():
        try:
            found[route.endpoint] = getattr(app.view_functions[route.endpoint], _NEED)
        except AttributeError as error:
            raise UndeclaredNeed(f"{route.rule}: its view does not say what it needs; add @needs(…)") from error
    return found
