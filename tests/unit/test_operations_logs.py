"""Logs hold what happened and counts; whatever is planted of a person, a device or an address stays out."""

import ast
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from fedrec.deploy.logs import JsonLines, note
from fedrec.deploy.roster import Reason
from fedrec.errors import PrivacyRefusal, WireError

ROOT = Path(__file__).parents[2]
CANARY = "zq-canary-1f3e"


@pytest.fixture
def log():
    """A logger of ours and one of somebody else, into one buffer."""
    buffer, handlers = io.StringIO(), {}
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(JsonLines("trainer"))
    for name in ("fedrec.test", "flwr.server.test"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.propagate, logger.level = False, logging.DEBUG
        handlers[name] = logger
    yield (
        handlers["fedrec.test"],
        handlers["flwr.server.test"],
        lambda: [json.loads(line) for line in buffer.getvalue().splitlines()],
    )
    for logger in handlers.values():
        logger.removeHandler(handler)
        logger.propagate, logger.level = True, logging.NOTSET


def test_a_line_has_four_fields_and_counts(log):
    ours, _, lines = log
    note(ours, "a round is released", {"round": 3, "bytes_up": 80_000, "phase": "collecting", "late": None})
    (line,) = lines()
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info", "process": "trainer", "event": "a round is released", "round": 3, "bytes_up": 80_000,
        "phase": "collecting", "late": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["text", "item", "user", "node", "seat", "address", "client", "user_id", "node_id", "peer_address", "Item",
     "process", "level", "ts", "event"],
)  # fmt: skip
def test_names_that_could_be_about_somebody_are_refused(log, name):
    ours, _, lines = log
    note(ours, "done", {name: 12_345, "count": 1})
    (line,) = lines()
    assert line["left_out"] == [name] and line["count"] == 1 and "12345" not in json.dumps(line | {"ts": ""})
    assert (line["process"], line["level"], line["event"]) == ("trainer", "info", "done")


@pytest.mark.parametrize(
    "value", [CANARY, [CANARY], {"a": CANARY}, float("nan"), object(), CANARY.encode(), "10.1.2.3", "x" * 41]
)
@pytest.mark.parametrize("name", ["count", "phase"])
def test_values_that_are_not_plain_figures_are_refused(log, name, value):
    ours, _, lines = log
    note(ours, "done", {name: value})
    (line,) = lines()
    assert line["left_out"] == [name] and CANARY not in json.dumps(line)


def test_our_messages_keep_numbers_and_lose_words(log):
    ours, _, lines = log
    ours.warning("round %d took %.1f s: %s", 7, 2.5, CANARY)
    ours.warning("refused: %s", PrivacyRefusal("P06", CANARY))
    ours.warning("%s, a %s", Reason.USED, ValueError)
    ours.warning("client %d failed, node=%s too, node %d", 4711, 4712, 4713)
    assert [line["event"] for line in lines()] == [
        "round 7 took 2.5 s: …", "refused: PrivacyRefusal P06", "used by another key, a ValueError",
        "client … failed, node=… too, node …",
    ]  # fmt: skip


def test_of_other_peoples_messages_only_the_place_is_kept(log):
    _, theirs, lines = log
    theirs.warning("%s bought %s", "ann", CANARY)
    theirs.error(f"at 10.1.2.3: {CANARY}")
    for line in lines():
        assert line["event"].startswith("flwr.server.test:") and CANARY not in json.dumps(line)
        assert "10.1.2.3" not in json.dumps(line)


@pytest.mark.parametrize("which", [0, 1])
def test_an_error_is_its_class_and_its_place(log, which):
    try:
        raise WireError(f"rule {CANARY}", remedy=CANARY, text=CANARY)
    except WireError:
        log[which].exception("a reply was refused")
    (line,) = log[2]()
    assert line["error"] == "WireError" and line["at"].startswith("test_operations_logs.py:")
    assert CANARY not in json.dumps(line)


def test_an_error_with_a_code_keeps_it(log):
    ours, _, lines = log
    try:
        raise PrivacyRefusal("P10", CANARY)
    except PrivacyRefusal:
        ours.exception("refused")
    assert lines()[0]["code"] == "P10"


SCRIPT = """
import logging, sys, threading, warnings
from pathlib import Path
from fedrec.deploy import logs
logs.LARGEST = 2000
logs.start_logging("trainer", Path(sys.argv[1]))
canary = sys.argv[2]
for number in range(40):
    logs.note(logging.getLogger("fedrec.x"), "a round is released", {"round": number})
warnings.warn(canary)
logging.getLogger("uvicorn").info(canary)
logging.getLogger("fedrec.x").info("bad %d", canary)
thread = threading.Thread(target=lambda: int(canary))
thread.start(); thread.join()
raise ValueError(canary)
"""


def test_a_whole_process_rotates_its_file_and_dies_without_a_word_about_anybody(tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "logs"), CANARY]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1 and done.stdout == ""
    files = sorted((tmp_path / "logs").iterdir())
    assert [file.name for file in files][:2] == ["trainer.jsonl", "trainer.jsonl.1"] and len(files) <= 6
    assert all(file.stat().st_mode & 0o077 == 0 and file.stat().st_size <= 2000 for file in files)
    written = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    spoken = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["round"] for line in spoken if "round" in line] == list(range(40))
    assert {line.get("error") for line in spoken} == {None, "ValueError"}
    assert sum(line["event"] == "the process ends with an error" for line in spoken) == 2
    assert CANARY not in json.dumps([written, spoken]) and {line["process"] for line in written} == {"trainer"}


def loose_messages(source):
    """Log calls whose message is not a constant: what they say cannot be told from what they say it of."""
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in levels:
            owner = ast.unparse(node.func.value).lower()
            constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
            if "log" in owner and not constant:
                yield ast.unparse(node)


def test_our_messages_are_constants():
    sources = {path: path.read_text() for path in (ROOT / "fedrec").rglob("*.py")}
    assert {str(path): found for path, source in sources.items() if (found := list(loose_messages(source)))} == {}


@pytest.mark.parametrize("source", ["_LOG.info(f'{x}')", "log.error(message)", "logging.warning('a' + b)"])
def test_a_loose_message_is_found(source):
    assert list(loose_messages(source))
