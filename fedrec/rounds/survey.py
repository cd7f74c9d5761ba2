"""One round that teaches the sentiment head: everybody's moments, summed, noised, charged and solved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from fedrec.errors import DataError, PrivacyRefusal, require
from fedrec.files import write_atomic
from fedrec.model.listed import listed
from fedrec.model.pack_files import verify_pack
from fedrec.model.pack_format import CARD, FILES, MANIFEST, SENTIMENT, SIGNATURE, STATEMENTS, manifest_of
from fedrec.model.sentiment import Survey
from fedrec.privacy.crossing import Summed
from fedrec.privacy.plan import PrivacyPlan
from fedrec.privacy.statement import Statement, written
from fedrec.privacy.terms import Mode
from fedrec.protection import protection
from fedrec.rounds.aggregate import Release, Rounds, Turn
from fedrec.rounds.filter import Vector
from fedrec.spec import Plan

ABOUT = "sentiment head"  # what the added statements of a pack are about

_TURN = Turn(1)


@dataclass(frozen=True, eq=False)
class Learnt:
    """A head's weights (width + 1,) and the release they follow from.

    Once the weights are on disk, close the round: `rounds.published(1, release.digest)`.
    """

    weights: NDArray[np.float32]
    release: Release
    answered: int


def promise(plan: Plan, survey: Survey) -> PrivacyPlan | None:
    """What the settings of `plan` promise people about the survey alone, None in mode `none`. Takes seconds.

    A person who also takes part in training is promised the sum of both. Refuses what one round of moments cannot
    honour: a promise about single interactions (P14), for a device's moments hold no noise about these, and masks
    (P13), for here the server gets every vector.
    """
    mode = Mode(plan.privacy.mode)
    if mode.protects_interactions:
        remedy = "Use user-central, user-distributed or user-local."
        raise PrivacyRefusal("P14", "a survey protects whole people", remedy=remedy, mode=str(mode))
    if plan.shares.masked:
        remedy = "Set shares.masked = false for the survey: its statement then says that the server sees each vector."
        raise PrivacyRefusal("P13", "masks are on where a plan claims them", remedy=remedy, masked=True)
    alone = {"clients": survey.users, "warm": {"enabled": True}, "federation": {"rounds": 0}}
    return protection(plan.override(alone), lambda noise: (survey.clip, survey.size))


def learn(survey: Survey, rounds: Rounds, answer: Callable[[int], Vector | None]) -> Learnt:
    """Ask everybody once; `answer` is what a client sent, None where nothing came. Bad replies are dropped."""
    check = rounds.filter(_TURN, survey.size)

    def accepted() -> Iterator[Summed]:
        # One at a time: a hundred thousand vectors need not lie in memory together.
        for client in rounds.cohort(_TURN.number, survey.users):
            reply = answer(int(client))
            if reply is not None and check.reason(reply) is None:
                yield Summed(reply.astype(np.float64 if reply.dtype == np.float32 else np.int64), 1)

    summed = rounds.join(_TURN, accepted(), survey.size)
    release = rounds.release(_TURN, summed, survey.size)
    return Learnt(survey.solve(release.mean, release.noise), release, summed.count)


def add_head(folder: Path, weights: NDArray[np.float32], claims: Sequence[Statement]) -> None:
    """Put a head into an unsigned pack, and beside the pack's statements the `claims` about the head's own release."""
    info = verify_pack(folder, None)
    require(not info.signer, "a head is added before a pack is signed", remedy="Add it, then publish the pack.")
    if weights.shape != (info.encoder.dim + 1,):
        raise DataError("a head reads vectors of the pack's encoder", head=len(weights), width=info.encoder.dim)
    about = json.loads((folder / MANIFEST).read_bytes())
    stated = json.loads((folder / STATEMENTS).read_bytes())
    others = [one for one in stated if one.get("about") != ABOUT]
    added = [{"about": ABOUT, **one} for one in json.loads(written(claims))]
    card = (
        (folder / CARD).read_text().partition(_HEADING)[0] + _HEADING + "\n\n".join(one.text() for one in claims) + "\n"
    )
    # Without its manifest a folder is no pack: a crash leaves nothing that could pass for one.
    (folder / MANIFEST).unlink()
    (folder / SIGNATURE).unlink(missing_ok=True)
    write_atomic(folder / SENTIMENT, save({"weights": np.ascontiguousarray(weights, np.float32)}))
    write_atomic(folder / STATEMENTS, json.dumps(others + added, indent=2).encode())
    write_atomic(folder / CARD, card.encode())
    files = {name: listed((folder / name).read_bytes()) for name in (*FILES, SENTIMENT)}
    write_atomic(folder / MANIFEST, manifest_of(about | {"files": files}))


_HEADING = """
## The sentiment head

`sentiment.safetensors` was learnt in one round of its own; what that protects adds to what stands above.

"""
