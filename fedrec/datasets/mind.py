"""MIND, the Microsoft news data set (Wu et al. 2020): `news.tsv` and `behaviors.tsv`, in a folder or the zip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedrec.datasets.dataset import Dataset
from fedrec.datasets.events import Reading, histories
from fedrec.datasets.files import Layout, Source, batches, nonempty, text_source, unpacked
from fedrec.datasets.notes import showable
from fedrec.device.event import Kind
from fedrec.errors import DataError
from fedrec.model.catalogue import Catalogue
from fedrec.model.catalogue_files import check_ids

NEWS = Layout("\t", quoted=False, names=("id", "category", "subcategory", "title", "abstract", "url", "e1", "e2"))
BEHAVIORS = Layout("\t", quoted=False, names=("impression", "user", "time", "history", "impressions"))
Records = NDArray[np.int64]

CLOCK = "%m/%d/%Y %I:%M:%S %p"


def mind(path: Path) -> Dataset:
    """Clicks: the history before a person's first impression, then what they clicked in impressions.

    The history has no times of its own: its n clicks get the n seconds before the first impression. What was shown
    and not clicked is no event.
    """
    with unpacked(path, ("news.tsv", "behaviors.tsv")) as folder:
        news, behaviors = nonempty(folder / "news.tsv"), nonempty(folder / "behaviors.tsv")
        catalogue = _catalogue(pa.concat_tables(batches(news, NEWS)), text_source(news, NEWS))
        log = text_source(behaviors, BEHAVIORS)
        clicks = _clicks(pa.concat_tables(batches(behaviors, BEHAVIORS)), log)
        record = clicks.column("record").to_numpy()
        reading = Reading(
            source=Source(log.name, lambda rows: log.rows(record[list(rows)].tolist())),
            columns={"user": "user", "item": "item", "time": "time"},
            kind=Kind.CLICK,
        )
        return Dataset("mind", catalogue, *histories([clicks], reading, catalogue))


def _catalogue(news: pa.Table, source: Source) -> Catalogue:
    columns = {name: news.column(name).to_pylist() for name in NEWS.names[:5]}
    check_ids(columns["id"], source, "id")
    tags = list(zip(columns["category"], columns["subcategory"], strict=True))
    described = zip(columns["title"], columns["abstract"], tags, strict=True)
    return Catalogue(columns["id"], [_text(title, abstract, tag) for title, abstract, tag in described], tags=tags)


def _text(title: str, abstract: str, tags: Sequence[str]) -> str:
    body = ". ".join(part.strip() for part in (title, abstract) if part.strip())
    return f"{body} [category: {', '.join(tags)}]"


def _clicks(log: pa.Table, source: Source) -> pa.Table:
    """Columns `user item time record`: one row for each click, and the record of the log that it comes from."""
    parsed = pc.strptime(pc.utf8_trim_whitespace(log.column("time")), format=CLOCK, unit="s", error_is_null=True)
    times = np.array(parsed.cast(pa.int64()).cast(pa.float64()).fill_null(np.nan))
    shown_in, shown = _split(log.column("impressions"))
    labels = np.asarray(pc.utf8_slice_codeunits(shown, -2, None), dtype=str)
    for odd in np.flatnonzero((labels != "-0") & (labels != "-1"))[:1].tolist():
        raise DataError(
            "an impression is NEWS-0 or NEWS-1",
            remedy="The unlabelled test split has no clicks to learn from: use the training or validation split.",
            file=source.name,
            row=source.rows([int(shown_in[odd])])[0],
            column="impressions",
            value=showable(shown[odd].as_py()),
        )
    clicked = labels == "-1"
    read_in, read, before = _history(log, times)
    record = np.concatenate([read_in, shown_in[clicked]])
    clicks = pc.utf8_slice_codeunits(shown, 0, -2).filter(pa.array(clicked))
    # A time that could not be parsed stays as it is, so that the note can show it.
    exact = pa.array(times[record] - np.concatenate([before, np.zeros(len(clicks), np.int64)]), from_pandas=True)
    raw = log.column("time").take(pa.array(record))
    return pa.table(
        {
            "user": log.column("user").take(pa.array(record)),
            "item": pa.concat_arrays([read, clicks]),
            "time": pc.coalesce(exact.cast(pa.int64()).cast(pa.string()), raw),
            "record": record,
        }
    )


def _history(log: pa.Table, times: NDArray[np.float64]) -> tuple[Records, pa.Array, Records]:
    """(record, item, seconds before the impression) of what people had read before their first impression."""
    person = np.asarray(log.column("user").combine_chunks().dictionary_encode().indices)
    order = np.lexsort((np.arange(len(times)), times, person))
    _, start = np.unique(person[order], return_index=True)
    first = np.sort(order[start])
    owner, items = _split(log.column("history").take(pa.array(first)))
    end = np.cumsum(np.bincount(owner, minlength=len(first)))
    return first[owner], items, end[owner] - np.arange(len(owner))


def _split(column: pa.ChunkedArray) -> tuple[Records, pa.Array]:
    """(record, word) for every word of every record."""
    parts = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(column)).combine_chunks()
    words = pc.list_flatten(parts)
    held = pc.not_equal(words, "")
    return np.asarray(pc.list_parent_indices(parts).filter(held)).astype(np.int64), words.filter(held)
