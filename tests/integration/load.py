"""Many streams at once, with asyncio and plain HTTP/1.1."""

import asyncio
import json
import time


class ChoiceOutcome:
    """What one client saw of one choice."""

    def __init__(self):
        self.token_ids = []
        self.times = []     # of arrival, of each token
        self.logprobs = []  # as (logprob, ((token, logprob), ...))
        self.text = ""
        self.finishes = []

    def facts(self):
        """What must be equal whatever happened on the way."""
        return (self.token_ids, self.logprobs, self.text, self.finishes)


class StreamOutcome:
    """What one client saw."""

    def __init__(self):
        self.status = None
        self.request_id = None
        self.token_ids = []
        self.choices = {}      # index -> ChoiceOutcome
        self.finishes = []     # finish reasons, in order
        self.errors = []       # error objects
        self.done_count = 0    # [DONE] events
        self.left = False      # the client went away on purpose
        self.longest_pause = 0.0  # seconds between two events with tokens
        self.last_token_at = None
        self.receipt = None
        self.inexact_resumes = []

    def facts(self):
        return {index: choice.facts()
                for index, choice in sorted(self.choices.items())}

    def ends(self):
        """How often the stream ended: exactly once is right."""
        return self.done_count + len(self.errors)


async def stream_completion(address, body, leave_after=None, on_tokens=None):
    """POSTs a streaming completion; leaves after so many events if given."""
    host, port = address.rsplit(":", 1)
    outcome = StreamOutcome()
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        data = json.dumps({**body, "stream": True}).encode()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                     b"Content-Type: application/json\r\n"
                     b"Connection: close\r\nContent-Length: " +
                     str(len(data)).encode() + b"\r\n\r\n" + data)
        await writer.drain()
        outcome.status = int((await reader.readline()).split()[1])
        events = 0
        while line := await reader.readline():
            if line.startswith(b"{"):
                add_event(outcome, line.strip(), on_tokens)
            if not line.startswith(b"data: "):
                continue
            add_event(outcome, line[6:].strip(), on_tokens)
            events += 1
            if leave_after is not None and events >= leave_after:
                outcome.left = True
                break
    finally:
        writer.close()
    return outcome


def stream_all(fleet, bodies, on_tokens=None):
    """The outcomes of all bodies, streamed at once."""
    async def run():
        return await asyncio.gather(*[
            stream_completion(fleet.http, body, on_tokens=on_tokens)
            for body in bodies])
    return asyncio.run(run())


def assert_all_equal(outcomes, expected):
    """And each ended once, without an error."""
    for outcome, want in zip(outcomes, expected):
        assert outcome.errors == [] and outcome.ends() == 1
        assert outcome.facts() == want.facts()


def add_event(outcome, text, on_tokens):
    if text == b"[DONE]":
        outcome.done_count += 1
        return
    event = json.loads(text)
    if "error" in event:
        outcome.errors.append(event["error"])
    if "id" in event:
        outcome.request_id = event["id"].split("-", 1)[1]
    outcome.receipt = event.get("receipt", outcome.receipt)
    outcome.inexact_resumes += event.get("inexact_resumes") or []
    for choice in event.get("choices", ()):
        add_choice(outcome, choice)
    if on_tokens:
        on_tokens(outcome)


def add_choice(outcome, choice):
    ids = choice.get("token_ids") or []
    seen = outcome.choices.setdefault(choice.get("index", 0), ChoiceOutcome())
    seen.token_ids += ids
    seen.times += [time.time()] * len(ids)
    seen.text += choice.get("text") or ""
    logprobs = choice.get("logprobs") or {}
    for i, logprob in enumerate(logprobs.get("token_logprobs") or ()):
        top = (logprobs.get("top_logprobs") or {i: None})[i] or {}
        seen.logprobs.append((logprob, tuple(top.items())))
    outcome.token_ids += ids
    if choice.get("finish_reason"):
        outcome.finishes.append(choice["finish_reason"])
        seen.finishes.append(choice["finish_reason"])
    if ids:
        now = time.monotonic()
        if outcome.last_token_at is not None:
            outcome.longest_pause = max(outcome.longest_pause,
                                        now - outcome.last_token_at)
        outcome.last_token_at = now
