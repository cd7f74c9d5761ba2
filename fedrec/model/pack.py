"""A published model version: shared parameters, item vectors, catalogue, statement, and a card to read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from fedrec.files import write_atomic
from fedrec.model.catalogue_files import write_catalogue
from fedrec.privacy.statement import Statement
from fedrec.task import Task

FORMAT = 1

_MANIFEST = "pack.json"
_FILES = ("README.md", "catalogue.parquet", "items.safetensors", "model.safetensors", "privacy.json")


def write_pack(folder: Path, task: Task, shared: NDArray[np.float32], claims: Sequence[Statement]) -> None:
    """Write `model.safetensors`, `items.safetensors`, `catalogue.parquet`, `pack.json`, `privacy.json`, `README.md`.

    Tensors have the names of the model's layout; `items.safetensors` holds what a device ranks with:
    `vectors` (item, dim) and `prior` (item,), and with what it places a free text: `centre` (width,)
    and `projection` (width + feature, dim). Nothing in a pack comes from a device except through
    the releases that `privacy.json` states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # An older pack loses its manifest first: a crash must not leave it beside newer tensors.
    (folder / _MANIFEST).unlink(missing_ok=True)
    model = task.model
    with torch.no_grad():
        parameters = model.layout.views(torch.from_numpy(shared.copy()))
        items = {"vectors": model.item_vectors(parameters).numpy(), "prior": model.prior(parameters).numpy()}
        items |= {"centre": model.centre.numpy(), "projection": parameters.get("projection", model.axes).numpy()}
    named = {name: np.ascontiguousarray(value.numpy()) for name, value in parameters.items()}
    about = _about(task)
    write_atomic(folder / "model.safetensors", save(named, metadata={"task": task.hash}))
    write_atomic(folder / "items.safetensors", save({n: np.ascontiguousarray(v) for n, v in items.items()}))
    write_catalogue(task.catalogue, folder / "catalogue.parquet")
    write_atomic(folder / "privacy.json", json.dumps([json.loads(c.json()) for c in claims], indent=2).encode())
    write_atomic(folder / "README.md", _card(about, claims).encode())
    # The manifest comes last: a folder that has one is complete.
    write_atomic(folder / _MANIFEST, json.dumps(about | {"files": _digests(folder)}, indent=2).encode())


def _about(task: Task) -> dict[str, object]:
    spec, encoder = task.plan.model, task.model.adapter.encoder
    return {
        "format": FORMAT,
        "task": task.hash,
        "plan": json.loads(task.plan.model_dump_json()),
        "catalogue": {"items": len(task.catalogue), "hash": task.catalogue.hash},
        "encoder": {"name": encoder.name, "hash": encoder.hash, "dim": encoder.dim},
        "ranking": {"dim": spec.dim, "decays": list(spec.decays), "parameters": task.model.layout.size},
    }


def _digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _FILES}


def _card(about: dict[str, object], claims: Sequence[Statement]) -> str:
    shown = json.dumps({name: about[name] for name in ("catalogue", "encoder", "ranking")}, indent=2)
    promises = "\n\n".join(claim.text() for claim in claims)
    return f"""# A fedrec model pack

A shared item model and ranking layer for text-based recommendation, trained over federated clients.
`plan.toml` of the run is repeated in `pack.json`.

## What is inside

```json
{shown}
```

Score of item i after a history: the sum of the learned maps of its decayed contexts, plus the
device's own embedding (which is not in this pack), times the item's vector, plus its prior.

## Who is protected from whom

{promises}

## Limits

Trained on the behaviour of one population in one catalogue; it repeats that population's tastes and
popularity. Text vectors inherit the languages and the biases of the encoder.
"""
