"""How text vectors move with the adapter, at one shared vector: one Jacobian serves every client of a round.

A client's gradient on the vectors of all entries becomes its gradient on the adapter by J, or by a backward pass of its
own where there are fewer clients than dimensions: J costs one backward pass for each dimension of a vector.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from fedrec.model.adapter import TowerInputs
from fedrec.model.ranking import ADAPTER, Model, Parameters

# Found by measuring MiniLM's last block: rows (token × cotangent) of a matrix product that stay in a processor's cache,
# and a device that is wide enough to take many more.
_CELLS = {"cpu": 1 << 11}
_WIDE = 1 << 16
_COTANGENTS = 8
_PIECE = 32 << 20  # bytes of J at a time on a processor; a wide device takes as many times more as it takes rows
_ROOM = 2 << 30  # bytes of J that are kept for the next clients


class TowerJacobian:
    """d vectors / d adapter of the texts in `inputs`, at `parameters`. All adapters, all encoders.

    `clients` is how many `pull` will see in all. J is kept for the later ones if it takes no more than `room` bytes.
    """

    def __init__(
        self, model: Model, parameters: Parameters, inputs: TowerInputs, *, clients: int = 1, room: int = _ROOM
    ) -> None:
        self._model, self._inputs, self._clients = model, inputs, clients
        self._adapter = {name: part.detach() for name, part in parameters.items() if name.startswith(ADAPTER)}
        self._fixed = {name: part.detach() for name, part in parameters.items() if name not in self._adapter}
        self.width = sum(part.numel() for part in self._adapter.values())
        self.keeps = len(inputs) * model.spec.dim * self.width * inputs.values.element_size() <= room
        self._kept: list[tuple[Tensor, Tensor]] = []

    def pull(self, gradients: Tensor) -> Tensor:
        """(n, width) gradients on the adapter, in the layout's order, of n clients' (n, entry, dim) on the vectors.

        Exact: every client's own, whatever the others' are. Unless J is kept, memory grows with n alone.
        """
        found = gradients.new_zeros(len(gradients), self.width)
        if not self.width:
            return found
        expected = max(len(gradients), self._clients if self.keeps else 0)
        if expected < self._model.spec.dim:
            self._one_by_one(gradients, found)
        else:
            for rows, piece in self.pieces():
                found.addmm_(gradients[:, rows].flatten(1), piece.flatten(0, 1))
        return found

    def pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Some rows of `inputs` and their J (row, dim, width), one after the other until all were there."""
        if self._kept:
            yield from self._kept
            return
        kept = []
        for rows in self._cut(_COTANGENTS, self._model.spec.dim * self.width):
            piece = rows, self._differentiate(self._trimmed(rows))
            if self.keeps:
                kept.append(piece)
            yield piece
        self._kept = kept

    def _differentiate(self, inputs: TowerInputs) -> Tensor:
        def vector(adapter: dict[str, Tensor], values: Tensor, mask: Tensor) -> Tensor:
            one = TowerInputs(values[None], mask[None])
            return self._model.text_vectors(self._fixed | adapter, one)[0]

        differentiate = vmap(jacrev(vector, chunk_size=_COTANGENTS), in_dims=(None, 0, 0))
        found = differentiate(self._adapter, inputs.values, inputs.mask)
        return torch.cat([part.flatten(2) for part in found.values()], dim=2)

    def _one_by_one(self, gradients: Tensor, found: Tensor) -> None:
        touched = gradients.any(dim=0).any(dim=1)
        for rows in self._cut(1, 1):
            if not touched[rows].any():
                continue
            with torch.enable_grad():
                adapter = {name: part.clone().requires_grad_() for name, part in self._adapter.items()}
                vectors = self._model.text_vectors(self._fixed | adapter, self._trimmed(rows))
            for own, gradient in zip(found, gradients[:, rows], strict=True):
                parts = torch.autograd.grad(vectors, list(adapter.values()), gradient, retain_graph=True)
                own += torch.cat([part.flatten() for part in parts])

    def _cut(self, cotangents: int, numbers: int) -> Iterator[Tensor]:
        """Rows of texts of like length, longest first, as many as are worked on together.

        Each token is as many rows of a product as there are `cotangents`; each text leaves `numbers` behind.
        """
        cells = _CELLS.get(self._inputs.values.device.type, _WIDE)
        most = max(1, _PIECE * (cells // _CELLS["cpu"]) // (numbers * self._inputs.values.element_size()))
        lengths = self._inputs.mask.sum(dim=1)
        order = lengths.argsort(descending=True, stable=True)
        widths, start = lengths[order].clamp(min=1).tolist(), 0
        while start < len(order):
            size = min(most, max(1, cells // (cotangents * widths[start])))
            yield order[start : start + size]
            start += size

    def _trimmed(self, rows: Tensor) -> TowerInputs:
        """Those texts without the padding that none of them needs."""
        inputs = self._inputs[rows]
        if not inputs.mask.shape[1]:
            return inputs
        width = max(1, int(inputs.mask.sum(dim=1).max()))
        return TowerInputs(inputs.values[:, :width], inputs.mask[:, :width])
