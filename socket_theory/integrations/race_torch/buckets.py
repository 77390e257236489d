"""Soft buckets of a chunk of torch vectors, and the way back from their gradient to the vectors (R1, R8).

Notation: z = W x, t = tanh z, steep = 2 beta t, up = sigma(steep), down = sigma(-steep). Features lie with the tokens
last and the tables inside the buckets, [G, 2^P L, n]: whatever is done to all tokens of a chunk runs along memory, and
one matrix product serves all tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, eq=False)
class Hash:
    """Planes and steepness in the dtype that is computed in.

    rows : [P L, D], plane p of all tables before plane p + 1; beta : no axis; corners : [2 P, 2^P], row p is 1 at the
    buckets on the upper side of plane p and row P + p at the others.
    """

    rows: Any
    beta: Any
    corners: Any

    @classmethod
    def of(cls, planes: Any, beta: Any, dtype: Any) -> Hash:
        """Of planes [L, P, D] and a beta without an axis."""
        num_tables, num_planes, head_dim = planes.shape
        bits = (
            torch.arange(2**num_planes, device=planes.device) >> torch.arange(num_planes, device=planes.device)[:, None]
        )
        upper = (bits & 1).to(dtype)
        rows = planes.to(dtype).transpose(0, 1).reshape(num_planes * num_tables, head_dim)
        return cls(rows, beta.to(dtype), torch.cat([upper, 1 - upper]))

    @property
    def num_planes(self) -> int:
        return int(self.corners.shape[0]) // 2

    @property
    def num_features(self) -> int:
        return int(self.rows.shape[0]) // self.num_planes * int(self.corners.shape[1])

    def features(self, vectors: Any) -> Any:
        """phi of vectors [G, n, D] -> [G, 2^P L, n]."""
        projected = self._project(vectors)
        signed = projected.mul_(2).sigmoid_().mul_(2).sub_(1)
        return self._product(signed.mul_(2 * self.beta))[0]

    def buckets(self, vectors: Any) -> Buckets:
        """The same with what their gradient needs."""
        twice = self._project(vectors).mul_(2)
        upper, lower = twice.sigmoid(), twice.neg_().sigmoid_()
        signed = upper - lower
        features, up, down = self._product(signed * (2 * self.beta))
        return Buckets(self, vectors, features, up, down, signed, upper.mul_(lower).mul_(4))

    def _project(self, vectors: Any) -> Any:
        """z [G, P, L, n]."""
        return torch.matmul(self.rows, vectors.mT).unflatten(1, (self.num_planes, -1))

    def _product(self, steep: Any) -> tuple[Any, Any, Any]:
        """prod_p sigma(c_rp steep_p) [G, 2^P L, n], built bit by bit, and its factors."""
        up, down = steep.sigmoid(), steep.neg_().sigmoid_()
        groups, num_planes, num_tables, count = steep.shape
        features = steep.new_empty(groups, 2**num_planes, num_tables, count)
        features[:, 0], features[:, 1] = down[:, 0], up[:, 0]
        for p in range(1, num_planes):
            lower = features[:, : 2**p]
            torch.mul(lower, up[:, p : p + 1], out=features[:, 2**p : 2 ** (p + 1)])
            lower.mul_(down[:, p : p + 1])
        return features.flatten(1, 2), up, down


@dataclass(frozen=True, eq=False)
class Buckets:
    """features [G, 2^P L, n] of vectors [G, n, D]; up, down, t and 1 - t^2 [G, P, L, n], none of them a difference."""

    hash: Hash
    vectors: Any
    features: Any
    up: Any
    down: Any
    signed: Any
    slope: Any

    def backward(self, weighted: Any, scale: Any | None = None) -> tuple[Any, Any]:
        """Gradients of the projections z [G, P L, n] and, summed over everything, of beta.

        `weighted` [G, 2^P L, n] is dphi_r phi_r, and `scale` [G, n] a factor of each token's. With H+ and H- the sums
        of dphi_r phi_r over the buckets on either side of plane p, sum_r dphi_r phi_r (c_rp - tanh(beta t_p)) is
        2 (down H+ - up H-), where nothing cancels by itself. So dt_p = beta times that, and dbeta the sum of t_p times
        that.
        """
        groups, num_planes, num_tables, count = self.up.shape
        sides = torch.matmul(self.hash.corners, weighted.view(groups, -1, num_tables * count))
        above, below = sides.view(groups, 2, num_planes, num_tables, count).unbind(1)
        steeper = above.mul_(self.down).sub_(below.mul_(self.up)).mul_(2)
        if scale is not None:
            steeper *= scale[:, None, None]
        beta = (self.signed * steeper).sum()
        return steeper.mul_(self.slope).mul_(self.hash.beta).flatten(1, 2), beta

    def to_vectors(self, projected: Any) -> Any:
        """Gradient [G, n, D] of the vectors from that of z [G, P L, n]."""
        return torch.matmul(projected.mT, self.hash.rows)

    def to_planes(self, projected: Any) -> Any:
        """Gradient [P L, D] of the planes, summed over the tokens."""
        return torch.matmul(projected, self.vectors).sum(0)
