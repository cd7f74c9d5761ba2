"""W&B, when it is asked for."""

from __future__ import annotations

import os

# Read by W&B when it is imported: nothing of ours phones home.
os.environ |= {"WANDB_ERROR_REPORTING": "false"}

import wandb

from fedrec.runs import Row
from fedrec.tracking.story import Story, scalars


class WandB:
    """A run in the project `$WANDB_PROJECT` ("fedrec" without it); W&B's own variables say where and whether online.

    Of this machine it learns its platform and a few versions, which W&B adds to every run: no console output, code,
    list of packages, or measurements.
    """

    def __init__(self, story: Story) -> None:
        quiet = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
            host="", login_timeout=30, init_timeout=30, finish_timeout=60, finish_timeout_raises=True,
        )  # fmt: skip
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "fedrec"), dir=os.environ.get("WANDB_DIR", story.run.path),
            id=story.key, resume="allow", name=story.name, notes=story.promises,
            config=story.plan.model_dump(mode="json"), settings=quiet,
        )  # fmt: skip
        self._next = self._run.step
        for row in story.rows:
            self.log(row)

    def log(self, row: Row) -> None:
        """Add a row unless W&B has it: what it has once cannot be replaced."""
        if row["round"] >= self._next:
            self._run.log({"round": row["round"], **scalars(row)}, step=row["round"], commit=True)
            self._next = row["round"] + 1

    def close(self, *, finished: bool) -> None:
        """Tell how it ended."""
        self._run.finish(exit_code=0 if finished else 1)
