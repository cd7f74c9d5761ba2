"""Small runs that between them take every way through a stacked cohort, for tests of devices."""

import numpy as np

SMALL = {
    "data": {"source": "synthetic", "options": {"users": 40, "items": 64}},
    "model": {"encoder": "tiny", "dim": 8, "rank": 2}, "federation": {"rounds": 3, "cohort": 12},
    "evaluation": {"every": 0, "baselines": "none"},
}  # fmt: skip
CHANGES = {
    "bottleneck": {},
    "frozen": {"model": {"adapter": "none", "maps": "diagonal"}},
    "lora": {"model": {"adapter": "lora"}},
    "lora, one by one": {"model": {"adapter": "lora", "dim": 20}},
    "drawn": {"training": {"negatives": 9}},
    "little": {"model": {"residuals": False, "popularity": False, "projection": False}},
    "cold": {"split": {"kind": "cold-items"}, "training": {"hide_seen": False}},
    "steps": {"training": {"steps": 2}},
    "steps, drawn": {"training": {"steps": 2, "negatives": 9}},
    "warm": {"warm": {"enabled": True}},
}  # fmt: skip
CLIENTS = np.arange(0, 40, 3)
