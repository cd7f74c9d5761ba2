"""Many virtual clients: everybody's data, device states, a grid in this process."""

# Before the grid imports Flower: it reads its switches once.
import fedrec.exchange.flower  # noqa: F401
