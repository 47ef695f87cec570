"""Streams that never pause while processes are killed: every stream must end
once and equal an undisturbed run of its request, bit for bit."""

import asyncio
import collections
import json
import random
import time

from load import stream_completion
from suite import MODEL
from trail import Trail

PROMPTS = (
    "Once upon a time",
    "Once upon a time there was a small caravan that crossed the desert",
    "The old mill by the river had not turned for many years, and the children",
    "In the morning the sun",
)
# Kills go mostly to workers and stages, the others hold no stream: so many of
# each kind in every round of ROUND kills, in an order that is drawn.
SHARES = {"worker": 11, "stage": 3, "router": 1, "tokenizer": 1}
ROUND = sum(SHARES.values())
HIT_SEQUENCES = 8
# Tokens that come so soon after a kill may be from before it, in seconds.
ON_THE_WAY = 0.2
# Longer than this beyond its time and a coroutine was held up, in seconds.
TICK = 0.005
# How long a victim may have less than HIT_SEQUENCES, in seconds.
BUSY_PATIENCE = 3


def make_requests(rng, count, max_tokens):
    """Requests of all kinds, cyclically, each with its own seed."""
    kinds = (
        {"temperature": 0},
        {"temperature": 0.9, "top_p": 0.95},
        {"temperature": 0.8, "repetition_penalty": 1.2,
         "presence_penalty": 0.4, "frequency_penalty": 0.3},
        {"temperature": 1.0, "stop": None},
        {"temperature": 0.9, "n": 2},
        {"temperature": 0.7, "logprobs": 3},
        {"temperature": 1.1, "top_k": 40, "min_p": 0.02, "min_tokens": 20,
         "ignore_eos": False, "logprobs": 1},
        {"temperature": 0.6, "n": 2, "stop": None, "logprobs": 2,
         "frequency_penalty": 0.5},
    )
    return [{"model": MODEL, "prompt": rng.choice(PROMPTS),
             "max_tokens": rng.randint(max_tokens // 2, max_tokens),
             "seed": rng.getrandbits(62), "ignore_eos": True,
             "return_token_ids": True, **kinds[i % len(kinds)]}
            for i in range(count)]


async def run_all(address, requests, width):
    """The outcomes of all requests, `width` at a time."""
    gate = asyncio.Semaphore(width)

    async def run(body):
        async with gate:
            return await stream_completion(address, body)

    return await asyncio.gather(*map(run, requests))


async def choose_stop_texts(address, requests, width):
    """Requests that want a stop text get one that their answer has."""
    wanting = [r for r in requests if "stop" in r]
    free = [{k: v for k, v in r.items() if k != "stop"} for r in wanting]
    for body, outcome in zip(wanting, await run_all(address, free, width)):
        text = outcome.choices[0].text
        begin = len(text) * 3 // 5
        body["stop"] = [text[begin:begin + 5]]


class Report:
    """What a run of chaos counted."""

    def __init__(self):
        self.kills = collections.Counter()  # by kind of process
        self.hits = 0      # kills of workers and stages that ran 8 or more
        self.streams = 0   # that ended
        self.tokens = 0
        self.interrupted = 0
        self.resumes = 0
        self.longest_pause = 0.0
        self.trails = []   # facts of each fleet's
        self.problems = []

    def add(self, other):
        self.kills.update(other.kills)
        for name in ("hits", "streams", "tokens", "interrupted", "resumes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.longest_pause = max(self.longest_pause, other.longest_pause)
        self.trails += other.trails
        self.problems += other.problems

    def __str__(self):
        facts = {name: value for name, value in vars(self).items()
                 if name != "problems"}
        facts["kills"] = dict(self.kills)
        facts["longest_pause"] = round(self.longest_pause, 3)
        return json.dumps(facts)


class Chaos:
    """Keeps `width` streams running until so many kills were made, `interval`
    seconds or more apart."""

    def __init__(self, fleet, seed, width, kills, interval, requests):
        self.fleet = fleet
        self.rng = random.Random(seed)
        self.width = width
        self.kills = kills
        self.interval = interval
        self.requests = requests
        self.report = Report()
        self.expected = []
        self.over = asyncio.Event()
        self.next = 0
        self.kinds = []  # of the kills to come in this round
        self.last_kill = 0.0  # of a worker
        self.running = {}  # time of the last token by number of the stream
        self.arrivals = {}  # times of tokens by request id and choice
        self.stalls = []  # (begin, end) of when this process stood still

    async def run(self):
        await choose_stop_texts(self.fleet.http, self.requests, self.width)
        outcomes = await run_all(self.fleet.http, self.requests, self.width)
        for body, outcome in zip(self.requests, outcomes):
            self.check_ending(body, outcome)
        self.expected = [outcome.facts() for outcome in outcomes]
        before = resumes_of(self.fleet)
        log_begin = len(self.fleet.gateway.log())
        await asyncio.gather(self.kill_all_the_time(), self.watch_the_clock(),
                             *[self.keep_streaming()
                               for _ in range(self.width)])
        self.report.resumes = resumes_of(self.fleet) - before
        self.report.interrupted = len(
            resumed_requests(self.fleet.gateway.log()[log_begin:]))
        self.read_trail()
        return self.report

    def read_trail(self):
        trail = Trail(self.fleet, self.stalls)
        for request_id, arrivals in self.arrivals.items():
            trail.add_arrivals(request_id, arrivals)
        self.report.trails.append(trail.facts())
        self.report.problems += trail.problems

    async def keep_streaming(self):
        while not self.over.is_set():
            number = self.next
            self.next += 1
            index = number % len(self.requests)
            body = self.requests[index]
            self.note_token(number)  # a new one owes nothing to earlier kills
            outcome = await stream_completion(
                self.fleet.http, body,
                on_tokens=lambda _: self.note_token(number))
            self.running.pop(number, None)
            self.report.streams += 1
            self.report.tokens += len(outcome.token_ids)
            self.report.longest_pause = max(self.report.longest_pause,
                                            outcome.longest_pause)
            self.arrivals[outcome.request_id] = {
                index: choice.times
                for index, choice in outcome.choices.items()}
            self.check_ending(body, outcome)
            if outcome.facts() != self.expected[index]:
                self.problem("not equal", body, outcome)

    def check_ending(self, body, outcome):
        choices = body.get("n", 1)
        once = (outcome.ends() == 1 and not outcome.errors and
                outcome.status == 200 and len(outcome.choices) == choices and
                all(len(c.finishes) == 1 for c in outcome.choices.values()))
        if not once:
            self.problem("not one good end", body, outcome)

    def problem(self, what, body, outcome):
        self.report.problems.append(
            f"{what}: {body} status={outcome.status} ends={outcome.ends()} "
            f"errors={outcome.errors} tokens={len(outcome.token_ids)} "
            f"finishes={outcome.finishes}")

    async def kill_all_the_time(self):
        loop = asyncio.get_running_loop()
        restarts = []
        while sum(self.report.kills.values()) < self.kills:
            await asyncio.sleep(self.interval)
            restarts = [r for r in restarts if not r.done()]
            member = self.choose()
            if member is None:
                continue
            if computes(member):
                await self.all_go_on()
                await self.until_busy(member)
            await loop.run_in_executor(None, self.kill, member)
            if computes(member):
                self.last_kill = time.monotonic()
            restarts.append(loop.run_in_executor(None, member.start))
        await asyncio.gather(*restarts)
        self.over.set()

    async def watch_the_clock(self):
        """Many clients share one thread, and a machine with the fleet."""
        while not self.over.is_set():
            due = time.time() + TICK
            await asyncio.sleep(TICK)
            if (now := time.time()) > due + TICK:
                self.stalls.append((due, now))

    async def all_go_on(self):
        """Until every stream that lived through the last kill of a worker has
        had a token since: two deaths without one make a request suspect."""
        while any(last_token < self.last_kill + ON_THE_WAY
                  for last_token in self.running.values()):
            await asyncio.sleep(0.02)

    async def until_busy(self, member):
        """Until there is something to interrupt, for a while."""
        loop = asyncio.get_running_loop()
        end = loop.time() + BUSY_PATIENCE
        while loop.time() < end and await loop.run_in_executor(
                None, sequences_of, member) < HIT_SEQUENCES:
            await asyncio.sleep(0.02)

    def note_token(self, number):
        self.running[number] = time.monotonic()

    def choose(self):
        """One that is up, of the next kind in this round that has one."""
        if not self.kinds:
            self.kinds = [kind for kind, share in SHARES.items()
                          for _ in range(share)]
            self.rng.shuffle(self.kinds)
        for kind in self.kinds:
            up = [m for m in self.fleet.group(kind) if m.up]
            if up:
                self.kinds.remove(kind)
                return self.rng.choice(up)
        return None

    def kill(self, member):
        kind = kind_of(member)
        if computes(member):
            self.report.hits += sequences_of(member) >= HIT_SEQUENCES
        member.kill()
        self.report.kills[kind] += 1


def kind_of(member):
    return member.name.rsplit("-", 1)[0]


def computes(member):
    return kind_of(member) in ("worker", "stage")


def sequences_of(member):
    """That run on the member's replica."""
    if not member.replica.up:
        return 0
    return member.replica.metrics().sum("caravan_worker_sequences",
                                        state="running")


def resumes_of(fleet):
    return int(fleet.gateway.metrics().sum("caravan_gateway_resumes_total"))


def resumed_requests(log):
    """Ids of the requests that the gateway says it resumed."""
    return {word.split("=", 1)[1]
            for line in log.splitlines() if "event=stream_resumes" in line
            for word in line.split() if word.startswith("request_id=")}
