"""TensorBoard's event file, which every run has."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_TENSOR, Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.summary.writer.record_writer import RecordWriter

from fedrec.runs import Row
from fedrec.tracking.story import Story, scalars

EVENTS = Path("tensorboard", "events.out.tfevents.fedrec")


class TensorBoard:
    """An event file in the run folder whose bytes follow from the metrics alone.

    The time of an event is its round: clock times would tell how long a round took, and so, in private runs, how many
    people were in it. A resumed run writes the same bytes again, so a TensorBoard that is open reads on.
    """

    def __init__(self, story: Story) -> None:
        self._path, self._rows = story.run.path / EVENTS, story.rows
        self._head = [_first(), _text("plan", f"```toml\n{story.plan.to_toml()}```"), _text("privacy", story.promises)]
        self._path.parent.mkdir(exist_ok=True)
        self._write("wb", [*self._head, *map(_numbers, self._rows)])

    def log(self, row: Row) -> None:
        """Append a row; one of a round already told replaces it and all later ones."""
        kept = [old for old in self._rows if old["round"] < row["round"]]
        grown, self._rows = len(kept) == len(self._rows), [*kept, row]
        if grown:
            self._write("ab", [_numbers(row)])
        else:
            self._write("wb", [*self._head, *map(_numbers, self._rows)])

    def close(self, *, finished: bool) -> None:
        """Every row is in the file already."""

    def _write(self, mode: str, events: Iterable[bytes]) -> None:
        # Not its EventFileWriter: that one names this machine in the file's name, and starts a thread.
        with self._path.open(mode) as file:
            writer = RecordWriter(file)
            for event in events:
                writer.write(event)


def _first() -> bytes:
    return bytes(Event(file_version="brain.Event:2").SerializeToString())


def _numbers(row: Row) -> bytes:
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(row).items()]
    event = Event(wall_time=row["round"], step=row["round"], summary=Summary(value=values))
    return bytes(event.SerializeToString(deterministic=True))


def _text(tag: str, markdown: str) -> bytes:
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    about = SummaryMetadata(plugin_data=plugin, data_class=DATA_CLASS_TENSOR)
    said = TensorProto(dtype=DT_STRING, string_val=[markdown.encode()])
    event = Event(summary=Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=said)]))
    return bytes(event.SerializeToString(deterministic=True))
