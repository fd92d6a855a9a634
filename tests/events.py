"""What is in TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2


def read_events(folder: Path) -> Iterator[Any]:
    """All events of a folder's files, the oldest first."""
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):  # length (8 bytes), its checksum (4), an event, its checksum (4)
            length = int.from_bytes(data[at : at + 8], "little")
            yield event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
            at += 16 + length


def values_of(folder: Path, kind: str) -> dict[tuple[str, int], Any]:
    """(tag, step) -> value, of all values of a kind: `simple_value`, `image` or `histo`."""
    return {
        (value.tag, event.step): getattr(value, kind)
        for event in read_events(folder)
        for value in event.summary.value
        if value.HasField(kind)
    }


def hyperparameters_of(folder: Path) -> dict[str, Any]:
    """Name -> value, of the run."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    found: dict[str, Any] = {}
    for event in read_events(folder):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name == "hparams":
                started = HParamsPluginData.FromString(value.metadata.plugin_data.content).session_start_info
                found |= {name: getattr(v, v.WhichOneof("kind")) for name, v in started.hparams.items()}
    return found
