"""Items of today, which no pack has yet: their text alone places them among the others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec.embed.models import Model
from fedrec.model.catalogue import Catalogue
from fedrec.model.pack_files import Pack

Floats = NDArray[np.float32]


def stocked(model: Model, items: Catalogue) -> Model:
    """The model with those of `items` that its pack does not have, as popular as half of all.

    Their vectors are those of their texts, without features and without what training adds to an item once it is
    known. Raises `EncoderError` where texts cannot be read.
    """
    pack = model.pack
    rows = [row for row, item in enumerate(items.ids) if item not in pack.catalogue.rows]
    if not rows:
        return model
    vectors = model.reader.vectors([items.texts[row] for row in rows])
    more = {
        name: _padded(value, len(rows))
        for name, value in pack.parameters.items()
        if name in ("residuals", "popularity")
    }
    fresh = replace(
        pack, catalogue=_joined(pack, items, rows), parameters={**pack.parameters, **more},
        vectors=np.vstack([pack.vectors, vectors]),
        prior=_middling(pack.prior, len(rows)),
        popularity=None if pack.popularity is None else _middling(pack.popularity, len(rows)),
    )  # fmt: skip
    return replace(model, pack=fresh, bare=model)


def _joined(pack: Pack, items: Catalogue, rows: list[int]) -> Catalogue:
    old = pack.catalogue
    return Catalogue(
        [*old.ids, *(items.ids[row] for row in rows)],
        [*old.texts, *(items.texts[row] for row in rows)],
        _padded(old.features, len(rows)),
        [*old.tags, *(items.tags[row] for row in rows)],
    )


def _padded(values: Floats, rows: int) -> Floats:
    return np.concatenate([values, np.zeros((rows, *values.shape[1:]), np.float32)])


def _middling(values: Floats, rows: int) -> Floats:
    return np.append(values, np.full(rows, np.median(values), np.float32))
