"""The load generator counts right answers, wrong scores and broken connections apart."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.load import Answer, BrokenServer, Round, drive, question, wrong_answers

QUESTIONS = [question([[float(index)]], [index / 10], token="secret") for index in range(5)]


class Scores(BaseHTTPRequestHandler):
    """Answers a tenth of the number in the request."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = json.dumps({"fraud_probability": [row[0] / 10 for row in asked["data"]]}).encode()
        self.send_response(200 if self.headers["Authorization"] == "Bearer secret" else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay quiet."""


class ClosesEachTime(Scores):
    def end_headers(self) -> None:
        self.send_header("Connection", "close")
        super().end_headers()


class HangsUp(Scores):
    def do_POST(self) -> None:
        self.close_connection = True


@pytest.fixture
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), request.param) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("port", [Scores, ClosesEachTime], indirect=True)
def test_every_question_is_asked_and_rightly_answered(port: int) -> None:
    seen = drive(port, QUESTIONS, connections=3, seconds=0.3)

    assert wrong_answers(QUESTIONS, seen.answers) == 0
    assert {answer.question for answer in seen.answers} == set(range(5))
    assert seen.requests_per_second > 0


@pytest.mark.parametrize("port", [Scores], indirect=True)
def test_an_error_and_a_wrong_score_are_counted(port: int) -> None:
    wrong_token = question([[1.0]], [0.1], token="guess")
    wrong_score = question([[1.0]], [0.2], token="secret")
    missing_score = question([[1.0]], [0.1, 0.1], token="secret")

    for asked in (wrong_token, wrong_score, missing_score):
        answers = drive(port, [asked], connections=1, seconds=0.05).answers
        assert wrong_answers([asked], answers) == len(answers) > 0


@pytest.mark.parametrize("port", [HangsUp], indirect=True)
def test_a_broken_connection_ends_the_round(port: int) -> None:
    with pytest.raises(BrokenServer, match="closed a connection"):
        drive(port, QUESTIONS, connections=1, seconds=0.05)


def test_percentiles_are_of_the_good_answers() -> None:
    good = [Answer(0, 200, b"", seconds=index / 1000) for index in range(1, 101)]
    refused = [Answer(0, 503, b"", seconds=9.0)]

    seen = Round(seconds=2.0, answers=good + refused)

    assert (seen.percentile_ms(50), seen.percentile_ms(99)) == (50, 99)
    assert seen.requests_per_second == 50
