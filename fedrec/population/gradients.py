"""What the clients of a round ask of the entry vectors: a gradient for each, in the form that is cheapest to keep."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of n clients on the table of entries.

    `softmax` (n, T, item) times `queries` (n, T, dim) is their dense part, None where rivals were drawn. The others
    are `rows` (n, M, dim) at `entry` (n, M), zero where padded; the first `listed` are known to be at items.
    """

    softmax: Tensor | None
    queries: Tensor
    entry: Tensor
    rows: Tensor
    listed: int

    def of(self, entries: int, out: Tensor | None = None) -> Tensor:
        """(n, entry, dim) each client's whole gradient on the first `entries`; what lies beyond is left out."""
        clients, _, dim = self.rows.shape
        whole = self.rows.new_empty(clients, entries, dim) if out is None else out
        dense = 0 if self.softmax is None else self.softmax.shape[2]
        if self.softmax is not None:
            torch.bmm(self.softmax.transpose(1, 2), self.queries, out=whole[:, :dense])
        whole[:, dense:].zero_()
        return self._spread(whole, self.rows)

    def behind(self, factor: Tensor) -> Tensor:
        """(n, k, item) the same of all items behind a factor (dim, k) of few columns, in less time than applying it.

        Only where there is a dense part.
        """
        assert self.softmax is not None
        narrow = torch.bmm((self.queries @ factor).transpose(1, 2), self.softmax)
        self._spread(narrow.transpose(1, 2), self.rows @ factor)
        return narrow

    def _spread(self, whole: Tensor, rows: Tensor) -> Tensor:
        """`whole` (n, entry, …) with `rows` (n, M, …) added at their entries, if it has them."""
        within = self.entry < whole.shape[1]
        at = torch.where(within, self.entry, 0)[:, :, None].expand_as(rows)
        return whole.scatter_add_(1, at, rows * within[:, :, None])

    def total(self, entries: int) -> Tensor:
        """(entry, dim) the sum over clients."""
        whole = self.rows.new_zeros(entries, self.rows.shape[2])
        if self.softmax is not None:
            whole[: self.softmax.shape[2]] = self.softmax.flatten(0, 1).T @ self.queries.flatten(0, 1)
        return whole.index_add_(0, self.entry.flatten(), self.rows.flatten(0, 1))
