"""What the outside may ask for: one list, which our own door and nginx both keep.

A request is judged by its raw request line, before anybody decodes, merges or resolves anything in it. What is not
spelled exactly as below is not there; so no two programs can disagree about what a path means.
"""

from __future__ import annotations

import re
from enum import Enum

# Not here: register-node and unregister-node (a seat is the roster's to give), get-fab (devices run installed code).
_CALLS = (
    "activate-node",
    "confirm-message-received",
    "deactivate-node",
    "get-run",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
    "send-node-heartbeat",
)

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*"

# Method and target, in what Python's and nginx's regular expressions have in common.
FLEET = rf"POST /v1/fleet/(?:{'|'.join(_CALLS)})"
ENROL = r"POST /fedrec/v1/enrol"
_PACK = rf"pack/(?:latest|{_NAME}/{_NAME}|encoders/[0-9a-f]{{64}}/{_NAME})"
LOOK = rf"GET /fedrec/v1/(?:ca|bell|bell\?after=[0-9]{{1,15}}|task/{_NAME}|{_PACK})"

# Who speaks (flwr-public-key …), in what format, with which version; not the tokens of other parts of Flower.
FLEET_HEADERS = (
    "accept",
    "content-type",
    "flwr-component-name",
    "flwr-package-name",
    "flwr-package-version",
    "flwr-public-key",
    "flwr-signature",
    "flwr-timestamp",
)
DESK_HEADERS = ("accept", "content-length", "content-type")

ENROL_BYTES = 16 * 1024

_LONGEST = 512  # characters of a target


class Place(Enum):
    """Who answers a request."""

    FLEET = "fleet"
    DESK = "desk"


def place(method: str, target: bytes) -> Place | None:
    """Who answers `method` on a raw request target (path and query as sent); None if nobody does."""
    line = f"{method} {target.decode('latin-1')}"
    if len(line) > _LONGEST:
        return None
    if re.fullmatch(FLEET, line):
        return Place.FLEET
    return Place.DESK if re.fullmatch(f"{ENROL}|{LOOK}", line) else None
