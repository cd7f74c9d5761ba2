"""How much each event counts in a profile: the same where devices train and where they only rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fedrec.model.pack_format import Profile
    from fedrec.sections import ProfileSpec

FAINTEST = 1e-6  # a view of a history is divided by its length, or by this


class Weighed(Protocol):
    """Events as columns, (event,) each; see `History`."""

    @property
    def kinds(self) -> NDArray[Any]:
        """`Kind` values."""

    @property
    def ratings(self) -> NDArray[Any]:
        """In [0, 1], NaN where there is none."""

    @property
    def weights(self) -> NDArray[Any]:
        """How much the event counts, before signs and ratings."""


def signed_weights(events: Weighed, spec: ProfileSpec | Profile) -> NDArray[np.float32]:
    """(event,) kind × rating × the event's own weight."""
    ratings = events.ratings
    factor = np.where(np.isnan(ratings), 1.0, 1.0 + spec.rating * (2.0 * np.nan_to_num(ratings) - 1.0))
    signed: NDArray[np.float32] = (np.array(spec.kinds())[events.kinds] * factor * events.weights).astype(np.float32)
    return signed
