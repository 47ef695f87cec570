"""Failures that must meet something that runs.

What a client has says little of what a worker does: on a busy machine a stream
may have ended there long before its client reads its first tokens. So a test
repeats its failure until that has met a running stream; what must hold holds
in every round."""

ROUNDS = 8


def until_hit(attempt, restore):
    """Calls `attempt` until it returns something true, which it returns;
    `restore` in between."""
    for _ in range(ROUNDS):
        hit = attempt()
        if hit:
            return hit
        restore()
    raise AssertionError(f"in {ROUNDS} rounds the failure met nothing")
