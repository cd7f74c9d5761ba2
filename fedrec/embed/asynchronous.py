"""`AsyncRecommender`: the same for apps with an event loop. Each call runs in a thread, and the loop goes on."""

from __future__ import annotations

import time
from asyncio import to_thread
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedrec.device.event import Kind
from fedrec.embed.page import Page, Pick, Reason
from fedrec.embed.preference import Preference
from fedrec.embed.recommender import Recommender, Verdict
from fedrec.embed.session import Filter
from fedrec.embed.tell import Told
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_format import PackInfo

if TYPE_CHECKING:
    from fedrec.embed.stay import Occasion, Outcome
    from fedrec.embed.sync import Source


class AsyncRecommender:
    """`recommender` for an event loop: its methods under the same names, to be awaited.

    `Recommender` says what they do. `consent`, `ledger` and the rest are those of `recommender`. A pick's `why` is
    computed where it is asked for: await `explain` instead where the loop must not wait for some milliseconds.
    """

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender

    @classmethod
    async def open(  # noqa: PLR0913  (as `Recommender.open`)
        cls,
        folder: Path | str,
        *,
        pack: Path | str | None = None,
        key: Ed25519PublicKey | str | None = None,
        secret: bytes | None = None,
        retention_days: int = 180,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """See `Recommender.open`."""
        return cls(
            await to_thread(
                Recommender.open, folder, pack=pack, key=key, secret=secret, retention_days=retention_days, clock=clock
            )
        )

    def __repr__(self) -> str:
        return "AsyncRecommender(contents withheld)"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See `Recommender.close`."""
        await to_thread(self.recommender.close)

    async def log(  # noqa: PLR0913  (as `Recommender.log`)
        self,
        kind: Kind | str,
        item: str = "",
        *,
        text: str = "",
        rating: float | None = None,
        weight: float = 1.0,
        dwell_s: float | None = None,
        time: float | None = None,
        page: Page | int | None = None,
    ) -> int:
        """See `Recommender.log`."""
        return await to_thread(
            self.recommender.log, kind, item, text=text, rating=rating, weight=weight, dwell_s=dwell_s, time=time,
            page=page,
        )  # fmt: skip

    async def tell(self, sentence: str, *, item: str = "") -> Told:
        """See `Recommender.tell`."""
        return await to_thread(self.recommender.tell, sentence, item=item)

    async def feedback(self, item: Pick | str, verdict: Verdict) -> int:
        """See `Recommender.feedback`."""
        return await to_thread(self.recommender.feedback, item, verdict)

    async def catalogue(self) -> Catalogue | None:
        """See `Recommender.catalogue`."""
        return await to_thread(lambda: self.recommender.catalogue)

    async def preferences(self) -> list[tuple[int, Preference]]:
        """See `Recommender.preferences`."""
        return await to_thread(lambda: self.recommender.preferences)

    async def recommend(  # noqa: PLR0913  (as `Recommender.recommend`)
        self,
        k: int = 10,
        *,
        filter: Filter | None = None,
        diversity: float = 0.0,
        calibration: float = 0.0,
        explore: float = 0.0,
        hide_seen: bool = True,
    ) -> Page:
        """See `Recommender.recommend`."""
        return await to_thread(
            self.recommender.recommend, k, filter=filter, diversity=diversity, calibration=calibration,
            explore=explore, hide_seen=hide_seen,
        )  # fmt: skip

    async def explain(self, item: str) -> Reason:
        """See `Recommender.explain`."""
        return await to_thread(self.recommender.explain, item)

    async def undo(self, change: int | None = None) -> bool:
        """See `Recommender.undo`."""
        return await to_thread(self.recommender.undo, change)

    async def forget(
        self,
        *,
        item: str | None = None,
        topic: str | None = None,
        before: float | None = None,
        everything: bool = False,
    ) -> int:
        """See `Recommender.forget`."""
        return await to_thread(self.recommender.forget, item=item, topic=topic, before=before, everything=everything)

    async def export(self, path: Path | str) -> None:
        """See `Recommender.export`."""
        await to_thread(self.recommender.export, path)

    async def contribute(self, occasion: Occasion | None = None) -> Outcome:
        """See `Recommender.contribute`."""
        return await to_thread(self.recommender.contribute, occasion)

    async def sync(
        self, source: Source | None = None, *, authority: bytes | None = None, older: bool = False
    ) -> PackInfo | None:
        """See `Recommender.sync`."""
        return await to_thread(self.recommender.sync, source, authority=authority, older=older)
