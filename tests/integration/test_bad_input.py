"""Hostile and wrong requests over HTTP: each is refused by name, and the
gateway serves on."""

import json
import socket
import time

import httpx
import pytest

from suite import MODEL, wait_for


@pytest.fixture(scope="module")
def http(suite):
    with httpx.Client(base_url=suite.url, timeout=60) as client:
        yield client


@pytest.fixture(autouse=True)
def still_serves(http):
    yield
    assert http.get("/healthz").status_code == 200


def connect(suite):
    host, port = suite.http.rsplit(":", 1)
    connection = socket.create_connection((host, int(port)), timeout=60)
    return connection


def read_status(connection):
    """Status and body of one reply; (None, b"") when the peer just closed."""
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
            if b"\r\n\r\n" in data:
                head, body = data.split(b"\r\n\r\n", 1)
                for line in head.split(b"\r\n"):
                    name, _, value = line.partition(b":")
                    if (name.lower() == b"content-length" and
                            len(body) >= int(value)):
                        return int(head.split()[1]), body
    except ConnectionError:
        pass
    return (int(data.split()[1]), b"") if data else (None, b"")


def error_of(reply):
    body = reply.json()
    assert set(body) == {"error"}, body
    error = body["error"]
    assert error["message"] and error["type"] and error["code"]
    return error


BASE = {"model": MODEL, "prompt": "Once", "max_tokens": 4}

BAD_FIELDS = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.5}, "temperature"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"min_p": -1}, "min_p"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"n": 1.5}, "n"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_tokens": "4"}, "max_tokens"),
    ({"seed": "x"}, "seed"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": [""]}, "stop"),
    ({"stop": 7}, "stop"),
    ({"logprobs": -1}, "logprobs"),
    ({"logprobs": 1000}, "logprobs"),
    ({"logit_bias": {"1": 101}}, "logit_bias"),
    ({"logit_bias": {"99999": 1}}, "logit_bias"),
    ({"logit_bias": {"x": 1}}, "logit_bias"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, -1]}, "prompt"),
    ({"prompt": [1, 4096]}, "prompt"),
    ({"prompt": {"a": 1}}, "prompt"),
    ({"stream": "yes"}, "stream"),
    ({"suffix": "end"}, "suffix"),
    ({"best_of": 3}, "best_of"),
    ({"no_such_field": 1}, "no_such_field"),
    ({"model": 5}, "model"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"stop_token_ids": [-5]}, "stop_token_ids"),
]


@pytest.mark.parametrize("change, named", BAD_FIELDS,
                         ids=[json.dumps(c)[:40] for c, _ in BAD_FIELDS])
def test_a_bad_field_is_a_400_that_names_it(http, change, named):
    reply = http.post("/v1/completions", json={**BASE, **change})
    assert reply.status_code == 400, reply.text
    error = error_of(reply)
    assert named in error["message"]
    assert error["param"] is None or error["param"].startswith(named)


BAD_CHATS = [
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": [{"content": "x"}]}, "role"),
    ({"messages": [{"role": "user", "content": 7}]}, "content"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url",
       "image_url": {"url": "data:,"}}]}]}, "content"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}],
      "tool_choice": "required"}, "tool_choice"),
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"top_logprobs": 3}, "logprobs"),
]


@pytest.mark.parametrize("change, named", BAD_CHATS,
                         ids=[json.dumps(c)[:40] for c, _ in BAD_CHATS])
def test_a_bad_chat_field_is_a_400_that_names_it(http, change, named):
    body = {"model": MODEL, "max_tokens": 4,
            "messages": [{"role": "user", "content": "Hi"}], **change}
    reply = http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 400, reply.text
    assert named in error_of(reply)["message"]


@pytest.mark.parametrize("text", [
    '{"model": "demo-model", "prompt": "x", "temperature": NaN}',
    '{"model": "demo-model", "prompt": "x", "temperature": Infinity}',
    '{"model": "demo-model", "prompt": "x", "temperature": 1e999}',
    '{"model": "demo-model", "prompt": "x"', "", "[]", "null", '"x"', "{",
    '{"a":' * 20000, "[" * 100000,
    '{"model": "demo-model", "model": "demo-model", "prompt": ',
])
def test_what_is_not_a_json_object_is_a_400(http, text):
    reply = http.post("/v1/completions", content=text,
                      headers={"content-type": "application/json"})
    assert reply.status_code == 400
    error_of(reply)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80",
                                 b"caf\xe9"])
def test_invalid_utf8_is_a_400(http, raw):
    body = b'{"model": "demo-model", "prompt": "' + raw + b'"}'
    reply = http.post("/v1/completions", content=body)
    assert reply.status_code == 400
    error_of(reply)


def test_an_unknown_model_is_a_404(http):
    reply = http.post("/v1/completions", json={**BASE, "model": "nobody"})
    assert reply.status_code == 404
    assert "nobody" in error_of(reply)["message"]


def test_unknown_paths_and_methods_are_refused(http):
    assert http.get("/v1/nothing").status_code == 404
    assert http.get("/v1/completions").status_code in (404, 405)
    assert http.delete("/v1/models").status_code in (404, 405)


def test_a_prompt_over_the_context_names_the_numbers(http):
    reply = http.post("/v1/completions",
                      json={**BASE, "prompt": [5] * 1100})
    assert reply.status_code == 400
    message = error_of(reply)["message"]
    assert "1024" in message and "1100" in message


def test_prompt_and_output_over_the_context_are_refused(http):
    reply = http.post("/v1/completions", json={
        **BASE, "prompt": [5] * 1000, "max_tokens": 100})
    assert reply.status_code == 400
    assert "1024" in error_of(reply)["message"]


def test_a_body_over_the_limit_is_refused_at_its_header(suite):
    with connect(suite) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                           b"Content-Length: 104857601\r\n\r\n")
        status, body = read_status(connection)
    assert status == 413
    assert json.loads(body)["error"]["code"] == "BODY_TOO_LARGE"


def test_a_body_of_100_megabytes_does_not_take_the_gateway_down(suite, http):
    body = b'{"model": "demo-model", "prompt": "' + b"a" * (100 << 20) + b'"}'
    try:
        reply = http.post("/v1/completions", content=body)
        assert reply.status_code in (400, 413)
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        pass  # refused while it was still being sent


def test_a_chunked_body_over_the_limit_is_refused(suite):
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    with connect(suite) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")
        try:
            for _ in range(110):
                connection.sendall(chunk)
        except ConnectionError:
            pass
        status, _ = read_status(connection)
    assert status in (413, None)


def test_headers_of_64_kilobytes_are_a_431(suite):
    with connect(suite) as connection:
        try:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " +
                               b"a" * (70 << 10) + b"\r\n\r\n")
        except ConnectionError:
            pass
        status, _ = read_status(connection)
    assert status in (431, None)


@pytest.mark.parametrize("start", [
    b"\x00\x01\x02\x03\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: x\r\n\r\n",
])
def test_what_is_not_http_is_refused_or_closed(suite, start):
    with connect(suite) as connection:
        connection.sendall(start)
        status, _ = read_status(connection)
    assert status is None or 400 <= status < 600


def test_a_slow_body_is_ended_by_the_server(suite):
    """A body that trickles must not hold a connection for ever."""
    started = time.monotonic()
    with connect(suite) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                           b"Content-Length: 1000\r\n\r\n")
        connection.settimeout(1)

        def ended():
            try:
                connection.sendall(b" ")
                return connection.recv(4096) is not None
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_for(ended, 120, "the end of the slow connection")
    assert time.monotonic() - started < 120


def test_a_client_that_leaves_in_the_headers_or_the_body_leaks_nothing(suite):
    gateway = suite.services["gateway"]
    before = gateway.fd_count()
    for start in (b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\n"
                  b"Host: x\r\nContent-Length: 1000\r\n\r\n{"):
        for _ in range(20):
            with connect(suite) as connection:
                connection.sendall(start)
    wait_for(lambda: gateway.fd_count() <= before + 2, 30,
             "closed descriptors")
