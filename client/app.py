"""fedrec's client as a Flower app, for Flower's simulation engine: each node is one virtual device."""

from fedrec.exchange.client import client_app
from fedrec.population.nodes import open_node

app = client_app(open_node)
