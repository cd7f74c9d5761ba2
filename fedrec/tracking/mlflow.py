"""MLflow, when it is asked for."""

from __future__ import annotations

import os
import time
from typing import Any

# Read by MLflow when it is imported: nothing of ours phones home.
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
# By its own defaults MLflow waits minutes for a server that is away, and so would training.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from fedrec.runs import Row
from fedrec.tracking.story import Story, scalars

_MOST = 100  # parameters that MLflow takes at once


class MLflow:
    """A run in the experiment `$MLFLOW_EXPERIMENT_NAME` ("fedrec" without it) at `$MLFLOW_TRACKING_URI`.

    A run folder has one MLflow run: a resume goes on with it, and adds the rounds that it does not have yet.
    """

    def __init__(self, story: Story) -> None:
        self._client = MlflowClient()
        self._run = self._found(story)
        self._known = {metric.step for metric in self._client.get_metric_history(self._run, "round")}
        for row in story.rows:
            self.log(row)

    def log(self, row: Row) -> None:
        """Add a row unless MLflow has it: what it has once cannot be replaced."""
        if row["round"] in self._known:
            return
        now, step = int(time.time() * 1000), row["round"]
        named = {"round": step, **{tag.replace("@", " at "): value for tag, value in scalars(row).items()}}
        self._client.log_batch(self._run, metrics=[Metric(tag, value, now, step) for tag, value in named.items()])
        self._known.add(step)

    def close(self, *, finished: bool) -> None:
        """Tell how it ended."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")

    def _found(self, story: Story) -> str:
        """The id of the run folder's MLflow run, which is made if there is none."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "fedrec")
        known = self._client.get_experiment_by_name(name)
        place = known.experiment_id if known else self._client.create_experiment(name)
        found = self._client.search_runs([place], f"tags.`fedrec.run` = '{story.key}'", max_results=1)
        if found:
            self._client.update_run(found[0].info.run_id, status="RUNNING")
            return str(found[0].info.run_id)
        return self._new(place, story)

    def _new(self, place: str, story: Story) -> str:
        tags = {"fedrec.run": story.key, "mlflow.note.content": story.promises}
        run = str(self._client.create_run(place, tags=tags, run_name=story.name).info.run_id)
        settings = [Param(name, str(value)) for name, value in _flat(story.plan.model_dump(mode="json")).items()]
        for start in range(0, len(settings), _MOST):
            self._client.log_batch(run, params=settings[start : start + _MOST])
        return run


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings, spelt as `--set` takes them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found
