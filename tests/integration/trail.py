"""What workers logged (at level debug) of each request: proves that nothing
was generated twice but what no gateway had when a worker was killed.

A *life* is what one worker did after one submit of a request. The workers'
clocks and the tests' are one machine's."""

import collections
import datetime

# What a client should have had when a worker dies, unless it is younger.
ON_THE_WAY_MS = 50


class Life:
    """A submit of one prompt, and what its worker emitted of it."""

    def __init__(self, worker, killed_at, submitted_at, fields):
        self.worker = worker
        self.killed_at = killed_at  # None: the process was not killed
        self.submitted_at = submitted_at
        self.request_id = fields["request_id"]
        self.begins = counts_of(fields["outputs"])  # by choice
        self.emitted = collections.defaultdict(list)  # (position, time)
        self.works = {}  # choice -> SequenceWork of a sequence that ended

    def end(self, choice):
        """The position behind the last one."""
        return self.emitted[choice][-1][0] + 1


def counts_of(items):
    """Of choice:count,choice:count."""
    return {int(choice): int(count) for choice, count in
            (item.split(":") for item in items.split(","))}


def seconds_of(word):
    """Of a line's first word: UTC."""
    return datetime.datetime.fromisoformat(
        word.replace("Z", "+00:00")).timestamp()


def fields_of(line):
    return dict(word.split("=", 1) for word in line.split() if "=" in word)


def lives_of_process(worker, text, killed_at):
    """In order; a line that a kill has cut short is none."""
    lives = []
    by_group = {}  # groups count from 1 again when a chain is formed anew
    lines = text.splitlines()
    if text and not text.endswith("\n"):
        lines.pop()
    for line in lines:
        if " debug " not in line:
            continue
        fields = fields_of(line)
        event = fields["event"]
        if event == "submit":
            lives.append(Life(worker, killed_at,
                              seconds_of(line.split(" ", 1)[0]), fields))
            by_group[fields["group"]] = lives[-1]
        elif event == "tokens":
            add_tokens(by_group, seconds_of(line.split(" ", 1)[0]),
                       fields["list"])
        elif event == "sequence_ended":
            work = {name: int(value) for name, value in fields.items()
                    if value.isdigit()}
            by_group[fields["group"]].works[work["choice"]] = work
    return lives


def add_tokens(by_group, now, items):
    for item in items.split(","):
        group, rest = item.split("/")
        choice, position = rest.split(":")
        by_group[group].emitted[int(choice)].append((int(position), now))


def lives_of_fleet(fleet):
    """Lists of lives in the order of their submits, by request id."""
    requests = collections.defaultdict(list)
    for worker in fleet.workers():
        for text, killed_at in worker.process_logs():
            for life in lives_of_process(worker.name, text, killed_at):
                requests[life.request_id].append(life)
    for lives in requests.values():
        lives.sort(key=lambda life: life.submitted_at)
    return requests


def resumes_of_log(text):
    """Outputs that the gateway had whenever it went on elsewhere, by request
    id."""
    resumes = collections.defaultdict(list)
    for line in text.splitlines():
        if "event=stream_resumes" in line or "event=stream_moves" in line:
            fields = fields_of(line)
            resumes[fields["request_id"]].append(counts_of(fields["outputs"]))
    return resumes


class Trail:
    """The books of a fleet's requests. `problems` is empty when each token is
    one of an unbroken sequence, each life begins where the gateway was, and
    no sequence took more than its tokens need."""

    def __init__(self, fleet, stalls=()):
        """`stalls`: (begin, end) of when the clients' process stood still, in
        order."""
        self.problems = []
        self._stalls = stalls
        self.lives = 0
        self.resumed = 0     # lives that went on with a request's output
        self.cut = 0         # choices that were running when they were killed
        self.twice = 0       # tokens that were emitted, lost and emitted again
        self.oldest_ms = 0   # the longest before its kill that one was emitted
        self.known_ms = []   # from emission to the client, where it is known
        self.had = 0         # of those emitted 50 ms before a kill and earlier
        self.late = 0        # ... how many came to the client after the kill
        self.owed = 0        # ... though it did not stand still meanwhile
        self._resumes = resumes_of_log(fleet.gateway.log())
        self.requests = lives_of_fleet(fleet)
        for lives in self.requests.values():
            self._check(lives)

    def _problem(self, life, what):
        self.problems.append(f"{life.request_id} at {life.worker}: {what}")

    def _check(self, lives):
        ends = {}  # of each choice, as far as any worker emitted it
        for life in lives:
            self.lives += 1
            self._check_begin(life, ends)
            for choice, work in life.works.items():
                self._check_work(life, work)
            for choice in life.emitted:
                self._check_positions(life, choice)
                ends[choice] = life.end(choice)

    def _check_begin(self, life, ends):
        """With all that the gateway had of what was emitted before."""
        again = {choice: ends.get(choice, 0) - begin
                 for choice, begin in life.begins.items()}
        if min(again.values()) < 0:
            self._problem(life, f"it began at {life.begins}, beyond what was "
                                f"ever emitted: {ends}")
        self.resumed += max(life.begins.values()) > 0
        self.twice += sum(again.values())
        if any(again.values()) and not any(
                life.begins.items() <= had.items()
                for had in self._resumes.get(life.request_id, ())):
            self._problem(life, f"it began at {life.begins} of {ends}, where "
                                f"the gateway never was")

    def _check_work(self, life, work):
        if work["resumed"] != life.begins[work["choice"]]:
            self._problem(life, f"it began elsewhere: {work}")
        if work["generated"] == 0 or work["parked"] > 0:
            return
        if work["reused"] + work["prefilled"] != (work["prompt"] +
                                                  work["resumed"]):
            self._problem(life, f"its prefill is not what it knew: {work}")
        if work["decoded"] != work["generated"] - 1:
            self._problem(life, f"a step was not for a token: {work}")

    def _check_positions(self, life, choice):
        positions = [position for position, _ in life.emitted[choice]]
        begin = life.begins[choice]
        if positions != list(range(begin, begin + len(positions))):
            self._problem(life, f"choice {choice} from {begin} has gaps: "
                                f"{positions}")

    def add_arrivals(self, request_id, arrivals):
        """`arrivals`: times at which the client had each position, by choice.
        Counts what was on its way at each kill."""
        lives = self.requests.get(request_id, [])
        for number, life in enumerate(lives):
            if life.killed_at is None:
                continue
            for choice, tokens in life.emitted.items():
                if choice in life.works:
                    continue  # it had ended
                self.cut += 1
                later = [other.begins[choice] for other in lives[number + 1:]
                         if choice in other.begins]
                self._add_kill(life.killed_at, tokens,
                               arrivals.get(choice, []),
                               min(later, default=None))

    def _add_kill(self, killed_at, tokens, times, resumed_at):
        for position, emitted_at in tokens:
            age_ms = 1e3 * (killed_at - emitted_at)
            if resumed_at is not None and position >= resumed_at:
                self.oldest_ms = max(self.oldest_ms, round(age_ms))
                continue
            if position >= len(times):
                continue
            self.known_ms.append(1e3 * (times[position] - emitted_at))
            if age_ms > ON_THE_WAY_MS:
                self.had += 1
                self._add_late(emitted_at, times[position], killed_at)

    def _add_late(self, emitted_at, had_at, killed_at):
        if had_at <= killed_at:
            return
        self.late += 1
        stood = sum(max(0, min(end, had_at) - max(begin, emitted_at))
                    for begin, end in self._stalls)
        self.owed += 1e3 * (had_at - emitted_at - stood) > ON_THE_WAY_MS

    def facts(self):
        known = sorted(self.known_ms) or [0]
        return {"lives": self.lives, "resumed": self.resumed, "cut": self.cut,
                "emitted_twice": self.twice,
                "oldest_emitted_twice_ms": self.oldest_ms,
                "to_client_p50_ms": round(known[len(known) // 2], 1),
                "to_client_p99_ms": round(known[len(known) * 99 // 100], 1),
                "older_than_50_ms": self.had,
                "of_these_after_the_kill": self.late,
                "of_these_while_clients_ran": self.owed}
