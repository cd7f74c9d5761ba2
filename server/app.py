"""fedrec's server as a Flower app: training over whatever grid Flower provides."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedrec.exchange.serve import serve
from fedrec.task import Task

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train the run in the folder that `--run-config 'run="…"'` names."""
    folder = Path(str(context.run_config["run"]))
    serve(Task.open(folder), grid, folder)
