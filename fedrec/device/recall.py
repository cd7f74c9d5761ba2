"""A person's events as training sees them: over the rows of a task's catalogue."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from fedrec.device.event import NO_ITEM
from fedrec.device.history import SCHEMA, History
from fedrec.device.store import Store


def history_of(store: Store, rows: Mapping[str, int]) -> History:
    """The events in time order, in the order in which they came where times are equal.

    `rows` says where a catalogue has its items; events about items that it does not have are left out.
    """
    held = store.columns()
    known = np.flatnonzero([not item or item in rows for item in held.items])
    columns = {
        "kind": held.kinds[known],
        "item": np.array([rows.get(held.items[place], NO_ITEM) for place in known], np.int32),
        "text": [held.texts[place] for place in known],
        "weight": held.weights[known],
        "rating": held.ratings[known],
        "time": held.times[known],
    }
    return History(pa.table(columns, schema=SCHEMA))
