"""Flower, kept in one place: messages, the client app, the strategy."""

# Before anything else here imports Flower: it reads its switches once.
from fedrec.exchange import flower as flower
