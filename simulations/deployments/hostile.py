"""Enrolled devices that mean harm, over the real wire: each sends one kind of what no honest device sends."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedrec.deploy.folder import DeviceFolder
from fedrec.deploy.host import opened
from fedrec.deploy.identity import Identity
from fedrec.deploy.roster import Roster
from fedrec.errors import FedrecError
from fedrec.exchange import wire
from fedrec.exchange.client import answering
from fedrec.exchange.fleet import Node
from fedrec.exchange.flower import crashed
from fedrec.exchange.parcels import pack
from simulations.deployments.tap import files, leaks
from simulations.deployments.trial import DEVICES, MASKED, OPEN, Outcome, Trial, trial

CANARY = "zq-a-text-that-stays-at-home-qz"
Answer = Callable[[Message], Message]
Attack = Callable[[Message], Message | None]  # None: answer honestly
Work = Callable[[Node, Answer], Attack]  # of a device that knows its node, and what an honest one answers
_POISON = b"cos\nsystem\n(S'touch /tmp/pickled'\ntR."


@dataclass
class Past:
    """What a device sent before."""

    first: Message | None = None


def attacks() -> dict[str, Answer]:
    """What hostile devices send instead of an update, by name."""
    past = Past()
    return {
        "NaN": _vector(lambda sound: np.full_like(sound, np.nan)),
        "infinite": _vector(lambda sound: np.full_like(sound, np.inf)),
        "huge": _vector(lambda sound: np.full_like(sound, 1e30)),
        "wrong shape": _vector(lambda sound: sound[:-1]),
        "two-dimensional": _vector(lambda sound: sound.reshape(1, -1)),
        "wrong type": _vector(lambda sound: sound.astype(np.int32)),
        "wider type": _vector(lambda sound: sound.astype(np.float64)),
        "oversized": _vector(lambda sound: np.tile(sound, 1000)),
        "wrong key": lambda message: _sent(message, RecordDict({"vector": ArrayRecord({"w": Array(_sound(message))})})),
        "one more record": lambda message: _sent(message, _with(message, "metrics", ConfigRecord({"loss": 0.1}))),
        "pickle": lambda message: _sent(message, _raw(_POISON)),
        "objects": lambda message: _sent(message, _raw(_npy(np.array([{}], object)))),
        "replay": lambda message: _replayed(message, past),
        "stale model": _header(lambda header: replace(header, model="0" * 64)),
        "other attempt": _header(lambda header: replace(header, nonce="0" * 16)),
        "other round": _header(lambda header: replace(header, round=header.round + 1)),
        "other task": _header(lambda header: replace(header, task="0" * 64)),
        "a long error": lambda message: crashed(message, CANARY * 1000),
    }


def hostile(folder: Path) -> Outcome:
    """Beside six honest devices, one for each attack; mode none with a bound on norms, two rounds.

    One more is honest but says everything twice, and counts once; another speaks in the name of the first device.
    """
    evil = attacks()
    everybody = DEVICES + 2 + len(evil)
    plan = OPEN.override({
        "clients": everybody, "data": {"options": {"users": str(everybody)}},
        "federation": {"rounds": 2, "cohort": everybody, "bound": 1000.0},
    })  # fmt: skip
    with trial(folder, plan, join=False, patience=30.0) as run:
        places = _enrolled(run, everybody - DEVICES)
        run.absent = dict.fromkeys((1, 2), range(DEVICES + 1, everybody))
        with Roster(run.federation.site.roster, everybody) as roster:
            other = roster.nodes()[0]
        work: list[Work] = [_twice, partial(_as_another, other), *(_only(attack) for attack in evil.values())]
        run.federation.join([run.folder / f"host-{number}" for number in range(3)])
        with at_work([*zip(places, work, strict=True)]):
            outcome = run.end(400)
        last = json.loads((run.federation.site.state / "last.json").read_text())
        told = leaks(files(run.federation.site.path), [CANARY])
    refused = sum(last["refused"].values())
    notes = [f"{refused} of {len(evil)} refused in the last round: {last['refused']}"]
    if refused != len(evil) or last["accepted"] != DEVICES + 1:
        outcome = replace(outcome, ledger="wrong: somebody was let through")
    if where := [place for place in told if "superlink.db" not in place]:  # Flower keeps a reply until the run ends
        outcome = replace(outcome, ledger=f"wrong: a stranger's words are in {', '.join(where)}")
    return replace(outcome, notes="; ".join([*filter(None, [outcome.notes]), *notes]))


def hostile_masks(folder: Path) -> Outcome:
    """Masked rounds of thirteen devices, of whom as many as the plan can do without answer nonsense, each in a step."""
    steps = ("query.keys", "query.shares", wire.TRAIN, "query.consent", "query.reveal")
    everybody = DEVICES + len(steps) + 2
    plan = MASKED.override({
        "clients": everybody, "data": {"options": {"users": str(everybody)}}, "shares": {"survivors": 0.65},
        "federation": {"rounds": 2, "cohort": everybody},
    })  # fmt: skip
    with trial(folder, plan, join=False) as run:
        places = _enrolled(run, everybody - DEVICES)
        run.federation.join([run.folder / f"host-{number}" for number in range(3)])
        work = [_only(partial(_nonsense_in, step)) for step in (*steps, "", "")]
        with at_work([*zip(places, work, strict=True)]):
            outcome = run.end(400)
        last = json.loads((run.federation.site.state / "last.json").read_text())
    return replace(outcome, notes=f"refused: {last['refused']}, in the sum: {last['accepted']}")


@contextmanager
def at_work(devices: Sequence[tuple[Path, Work]]) -> Iterator[None]:
    """Enrolled devices that answer through this process, each with something else than its honest answer."""
    over = threading.Event()
    with ExitStack() as stack:
        for place, work in devices:
            (hosted,), _ = opened([DeviceFolder(place)], stack, lambda path, words: None)
            thread = threading.Thread(target=_serve, args=(place, work, answering(hosted), over))
            thread.start()
            stack.callback(thread.join)
        stack.callback(over.set)
        yield


def _serve(place: Path, work: Work, honest: Answer, over: threading.Event) -> None:
    folder = DeviceFolder(place)
    node = Node(urlsplit(folder.enrolment.server).netloc, Identity.read(place).key, folder.authority)
    attack = work(node, honest)
    while not over.wait(0.2):
        try:
            node.activate()
            node.once(lambda message: attack(message) or honest(message))
        except FedrecError:
            continue
    node.close()


def _enrolled(run: Trial, count: int) -> list[Path]:
    """Devices of the seats after the honest ones."""
    places = [run.folder / "evil" / f"{DEVICES + number:05}" for number in range(count)]
    for number, place in enumerate(places, DEVICES):
        assert run.federation.admit(place) == number
        run.federation.fill(place, number)
    return places


def _vector(change: Callable[[Any], Any]) -> Answer:
    return lambda message: wire.update(message, wire.read_header(message).echo, change(_sound(message)))


def _header(change: Callable[[wire.Header], wire.Header]) -> Answer:
    return lambda message: wire.update(message, change(wire.read_header(message).echo), _sound(message))


def _replayed(message: Message, past: Past) -> Message:
    """What was sent in the first round, again; there, what belongs to no round."""
    past.first = past.first or wire.update(message, wire.Header("", nonce="-"), _sound(message))
    sent = past.first.content
    past.first = wire.update(message, wire.read_header(message).echo, _sound(message))
    return _sent(message, sent)


def _only(attack: Attack) -> Work:
    return lambda node, honest: attack


def _twice(node: Node, honest: Answer) -> Attack:
    """Sends an honest answer beforehand, and then once more."""

    def attack(message: Message) -> None:
        with suppress(FedrecError):
            node._push(pack([honest(message)])[0])

    return attack


def _as_another(other: int, node: Node, honest: Answer) -> Attack:
    """Sends NaN in the name of another node."""

    def attack(message: Message) -> Message:
        reply = _vector(lambda sound: np.full_like(sound, np.nan))(message)
        reply.metadata.__dict__["_src_node_id"] = other
        return reply

    return attack


def _nonsense_in(step: str, message: Message) -> Message | None:
    if message.metadata.message_type != step:
        return None
    return _sent(message, RecordDict({"said": ConfigRecord({"client": 7, "words": CANARY})}))


def _sound(message: Message) -> Any:  # noqa: ANN401  (a vector)
    return np.full_like(wire.read_train(message).shared, 0.01)


def _with(message: Message, name: str, record: ConfigRecord) -> RecordDict:
    content = wire.update(message, wire.read_header(message).echo, _sound(message)).content
    content[name] = record
    return content


def _raw(content: bytes) -> RecordDict:
    return RecordDict({"vector": ArrayRecord({"vector": Array("float32", (96,), "numpy.ndarray", content)})})


def _npy(values: Any) -> bytes:  # noqa: ANN401  (an array)
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


def _sent(message: Message, content: RecordDict) -> Message:
    if "header" not in content:
        content["header"] = wire.read_header(message).echo.record()
    return Message(content, reply_to=message)
