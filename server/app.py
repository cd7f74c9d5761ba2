"""fedrec's server as a Flower app: training over whatever grid Flower provides."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrec.exchange.serve import serve
from fedrec.runs import Run
from fedrec.task import Task, run_folder

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the run in the folder that `--run-config 'run="…"'` names."""
    run = Run.open(run_folder(context.run_config))
    task = Task.open(run.path)
    run.check_plan(task.plan)
    with run.locked():
        serve(task, grid, run.path)
