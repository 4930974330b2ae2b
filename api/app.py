"""Assembles the API: its parts, what each receives, and the order in which they end."""

import contextlib
import os
import socket
from collections.abc import Callable

import flask

from api import docs_page, health, labels, metrics, predict, served_model, transactions
from api.admission import Admission
from api.arrival import access_log, at_the_door
from api.auth import Tokens, require_token
from api.connections import Connections
from api.errors import answer_errors
from api.health import Health, ProbeServer
from api.metrics import Metrics
from api.served_model import ServedModel
from api.writer import Writer
from fraud_detection.clock import Clock
from fraud_detection.features import load_features
from fraud_detection.listening import local_url
from fraud_detection.lock import in_use
from fraud_detection.remembered import features_file
from fraud_detection.settings import ApiSettings
from fraud_detection.store import Store, decisions
from fraud_detection.vanished import Mark


class Api(flask.Flask):
    """The assembled API, a WSGI application; call `close` after the last request."""

    def __init__(self, health: Health, served: ServedModel, writer: Writer, metrics: Metrics) -> None:
        super().__init__("api", static_folder=None)
        self.url_map.merge_slashes = False  # a path with // inside is unknown: a redirect would be a page of HTML
        self.config["PROVIDE_AUTOMATIC_OPTIONS"] = False  # a method that docs/openapi.yaml does not name is 405
        self.health = health
        self.served = served
        self.writer = writer
        self.at_the_end = contextlib.ExitStack()
        self._metrics = metrics

    def watch_connections(self, connections: Connections) -> None:
        """Report the connections of the server among the metrics."""
        self._metrics.watch_connections(connections)

    def answer_probes(self, listener: socket.socket) -> None:
        """Answer /livez and /readyz on a listening socket until the end."""
        probes = ProbeServer(listener, self.health)
        probes.start()
        self.at_the_end.callback(probes.close)

    def drain(self) -> None:
        """Report not ready, so that no new requests arrive; requests in flight are still answered."""
        self.health.is_draining = True

    def close(self) -> None:
        """Store queued requests, end every thread, close the database."""
        self.at_the_end.close()


def create_app(settings: ApiSettings, *, give_up: Callable[[int], object] = os._exit) -> Api:
    """Open the store, load the model, start the writer; `give_up` ends a process that cannot use storage any more.

    Raises BadFeatureList, DatabaseRefused, ModelRefused, StoreVanished.
    """
    features = load_features(features_file(settings))
    figures = Metrics()
    location, anywhere = settings.store_location, settings.allow_network_filesystem
    threshold = settings.fraud_threshold
    mark = Mark.of(settings)
    if mark is not None:
        mark.refuse()
    with contextlib.ExitStack() as opened:  # closed in reverse order
        # blocks imports and restores, and waits for a running one
        opened.enter_context(in_use(location, settings.models_dir))
        store = Store.create_or_migrate(location, features, allow_network_filesystem=anywhere)
        opened.callback(store.close)
        writer = Writer(store, figures, retention_days=settings.retention_days, mark=mark, give_up=give_up)
        reader = Store.open(location, features, read_only=True, allow_network_filesystem=anywhere)
        opened.callback(reader.close)
        with reader.begin() as connection:
            served_before = decisions.newest_model_digest(reader, connection)
        served = ServedModel(settings.model_path, features, figures, served_before=served_before)
        opened.callback(served.close)
        admission = Admission(settings.max_in_flight, writer)
        app = Api(Health(served, writer), served, writer, figures)

        tokens = Tokens(settings, figures)
        app.register_blueprint(predict.blueprint())
        app.register_blueprint(labels.blueprint(store, writer, admission))
        app.register_blueprint(transactions.blueprint(reader, writer, admission))
        app.register_blueprint(served_model.blueprint(served, features, threshold))
        app.register_blueprint(metrics.blueprint(figures))
        app.register_blueprint(health.blueprint(app.health))
        app.register_blueprint(docs_page.blueprint(features, local_url(settings)))
        require_token(app, tokens)
        figures.name_handlers(route.rule for route in app.url_map.iter_rules())
        answer_errors(app, figures)
        scoring_first = predict.in_front_of(
            app.wsgi_app,
            features,
            threshold=threshold,
            served=served,
            writer=writer,
            admission=admission,
            tokens=tokens,
            metrics=figures,
        )
        app.wsgi_app = at_the_door(scoring_first, Clock(), figures, access_log(settings))  # type: ignore[assignment, method-assign]  # Flask's way

        writer.start()
        opened.callback(writer.close)
        app.at_the_end = opened.pop_all()
    return app
