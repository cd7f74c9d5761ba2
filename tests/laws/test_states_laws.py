"""Whatever is interrupted, a repeated round starts from what it started from the first time."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as some

from fedrec.population.states import DeviceStates

CLIENTS = 3
cohorts = some.lists(some.integers(0, CLIENTS - 1), unique=True, max_size=CLIENTS)
# Each round: crashed tries (who was through before the crash), then the try that was checkpointed.
rounds = some.lists(some.tuples(some.lists(cohorts, max_size=2), cohorts), max_size=8)


def attempt(folder, number, cohort, entries, tries):
    """Run a cohort in a fresh process; what a client makes depends on where it started and on nothing else."""
    states = DeviceStates(folder, CLIENTS, 1)
    for client in cohort:
        start = float(states.before(client, number)[0])
        entries.setdefault((number, client), set()).add(start)
        states.keep(client, number, np.array([start + number + client / 8], np.float32))
        tries[client] = start + number + client / 8


@settings(derandomize=True, deadline=None, max_examples=150)
@given(rounds)
def test_every_try_of_a_round_starts_from_one_embedding(history):
    with tempfile.TemporaryDirectory() as name:
        entries, expected = {}, dict.fromkeys(range(CLIENTS), 0.0)
        for number, (crashed, done) in enumerate(history, start=1):
            for through in crashed:
                attempt(Path(name), number, through, entries, expected)
            attempt(Path(name), number, done, entries, expected)
        assert all(len(starts) == 1 for starts in entries.values())
        last = DeviceStates(Path(name), CLIENTS, 1)
        assert last.after(len(history)).ravel().tolist() == [expected[client] for client in range(CLIENTS)]


seeded = some.lists(some.tuples(cohorts, some.integers(0, CLIENTS)), max_size=8)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(seeded)
def test_with_seeded_cohorts_crashes_leave_no_trace(history):
    with tempfile.TemporaryDirectory() as name:
        calm, rough = Path(name, "calm"), Path(name, "rough")
        for number, (cohort, through) in enumerate(history, start=1):
            attempt(rough, number, cohort[:through], {}, {})
            attempt(rough, number, cohort, {}, {})
            attempt(calm, number, cohort, {}, {})
        last = [DeviceStates(folder, CLIENTS, 1).after(len(history)).tolist() for folder in (calm, rough)]
        assert last[0] == last[1]
