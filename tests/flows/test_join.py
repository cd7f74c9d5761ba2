"""Which client is on which node, and who is let in."""

import pytest
from federation import OPEN, SERVER, SPEC, TASK, Tampered, Toy, grid_of, partition

from fedrec.errors import RunError, WireError
from fedrec.exchange.client import client_app
from fedrec.exchange.strategy import FederatedTraining
from fedrec.population.grid import in_process


def join(grid, clients, folder, patience=0.3):
    strategy = FederatedTraining(SPEC, OPEN, SERVER, task=TASK, folder=folder)
    strategy.join(grid, clients, patience=patience)
    return strategy


def test_too_few_nodes_are_waited_for_and_then_named(tmp_path):
    with pytest.raises(WireError, match="nodes=2, clients=3.*num-supernodes=3"):
        join(grid_of(nodes=2), 3, tmp_path)


def test_nodes_that_come_late_are_waited_for(tmp_path):
    grid, shown = grid_of(nodes=3), iter([1, 2, 3])
    nodes = list(grid.get_node_ids())
    late = Tampered(grid, lambda requests, replies: replies)
    late.get_node_ids = lambda: nodes[: next(shown)]
    assert join(late, 3, tmp_path, patience=30).crew._roster == {0: 1, 1: 2, 2: 3}


def test_more_nodes_than_clients_are_left_alone(tmp_path):
    assert join(grid_of(nodes=5), 3, tmp_path).crew._roster == {0: 1, 1: 2, 2: 3}


@pytest.mark.parametrize("nodes", [3, 4])
def test_two_nodes_cannot_be_one_client(tmp_path, nodes):
    doubled = grid_of(nodes=nodes, client_of=lambda place: (0, 1, 1, 2)[place])
    with pytest.raises(WireError, match="every client of the plan is on one node"):
        join(doubled, 3, tmp_path)


def test_a_node_of_another_task_ends_the_join(tmp_path):
    grid = in_process(
        client_app(lambda context: Toy(partition(context), task="other" if partition(context) == 2 else TASK)), 3
    )
    with pytest.raises(WireError, match="set up for one task.*from one run folder"):
        join(grid, 3, tmp_path)


def test_a_node_that_cannot_open_its_device_ends_the_join(tmp_path):
    def fail(context):
        raise RunError("no device here")

    with pytest.raises(WireError, match="the node answered with an error"):
        join(in_process(client_app(fail), 2), 2, tmp_path)
