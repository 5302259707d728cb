"""Gradient-boosted regression trees on histograms: a baseline that laws have to beat, never a default.

Squared loss (Friedman 2001, doi:10.1214/aos/1013203451), trees grown level by level over quantile bins.
Nothing is random: the same rows in any order give the same trees, to the bit. Outside the range of a feature
the prediction is that of its nearest value.

Shape legend: n = rows, F = features, T = trees, d = depth, B = bins of a feature, c = cuts between bins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FOLDS = 5
"""Most parts that the groups are divided into to choose the number of trees."""
_SAME_GAIN = 1e-9
"""Splits this close in gain (relative) are tied, and the first feature and lowest cut wins: rounding decides
nothing, so that a row of weight 2 is a row that stands there twice."""
_NO_GAIN = 1e-20
"""Share of the target's sum of squares that a split must gain; less is rounding."""


@dataclass(frozen=True)
class Trees:
    """Complete binary trees; node i has the children 2i + 1 (value ≤ threshold) and 2i + 2."""

    base: float
    """Weighted mean of the target: the prediction without trees."""
    feature: IntArray
    """Feature that a node asks for, shape (T, 2^d − 1)."""
    threshold: FloatArray
    """Shape (T, 2^d − 1); infinite where a node does not split."""
    value: FloatArray
    """What a leaf adds, the learning rate in it; shape (T, 2^d)."""
    features: int
    """F."""

    def predict(self, features: FloatArray) -> FloatArray:
        """Sum of the trees' leaves, not cut to any range.

        Args:
            features: shape (n, F), finite.

        Returns:
            shape (n,).

        Raises:
            ValueError: another shape, or values that are not finite.
        """
        features = _checked(features)
        if features.shape[1] != self.features:
            raise ValueError(f"the trees were fitted to {self.features} features, not {features.shape[1]}")
        return self.base + sum(self.steps(features), start=np.zeros(len(features)))

    def steps(self, features: FloatArray) -> Iterator[FloatArray]:
        """What each tree adds, shape (n,), for features of shape (n, F) that were checked."""
        rows, inner = np.arange(len(features)), self.feature.shape[1]
        for feature, threshold, value in zip(self.feature, self.threshold, self.value, strict=True):
            node = np.zeros(len(features), dtype=np.int64)
            for _ in range(inner.bit_length()):
                node = 2 * node + 1 + (features[rows, feature[node]] > threshold[node])
            yield value[node - inner]


@dataclass(frozen=True)
class _Growth:
    depth: int
    learning_rate: float
    min_leaf_weight: float
    bins: int


def fit_trees(
    features: FloatArray,
    target: FloatArray,
    weights: FloatArray,
    *,
    groups: NDArray | None = None,
    rounds: int = 200,
    depth: int = 4,
    learning_rate: float = 0.08,
    min_leaf_weight: float = 5.0,
    bins: int = 64,
) -> Trees:
    """Fit boosted trees to a weighted mean.

    Args:
        features: shape (n, F). Categories are the caller's to encode as numbers.
        target: shape (n,).
        weights: of the rows, shape (n,), ≥ 0; 2 is a row that stands there twice.
        groups: labels, shape (n,). With two or more of them the number of trees is the one with the least
            squared error on groups left out, in at most FOLDS parts, and the trees are then fitted to all
            rows. Rows of one run belong to one group; to forecast a larger rung, rows of one size do. What
            the labels are does not matter.
        rounds: most trees, ≥ 1.
        depth: levels of splits in a tree, ≥ 1.
        learning_rate: share of a leaf's mean residual that is added.
        min_leaf_weight: least sum of weights in a leaf.
        bins: most bins of a feature, quantiles by weight; a feature with fewer values has one per value.

    Raises:
        ValueError: shapes differ, values are not finite, weights are negative or all 0, or an argument is out
            of range.
    """
    features, target, weights = _checked(features), np.asarray(target, float), np.asarray(weights, float)
    labels = np.zeros(len(features), dtype=np.int64) if groups is None else np.asarray(groups)
    _check(len(features), target, weights, labels)
    if rounds < 1 or depth < 1 or bins < 2 or not learning_rate > 0.0 or not min_leaf_weight > 0.0:
        raise ValueError(
            "rounds and depth must be at least 1, bins at least 2, learning_rate and min_leaf_weight above "
            f"0; given {rounds}, {depth}, {bins}, {learning_rate}, {min_leaf_weight}"
        )
    # Sums depend on their order in the last bit, so rows are put into the one order that their content gives.
    order = np.lexsort((weights, target, *features.T[::-1]))
    order = order[weights[order] > 0.0]
    features, target, weights, labels = features[order], target[order], weights[order], labels[order]
    growth = _Growth(depth, learning_rate, min_leaf_weight, bins)
    fold = _folds(np.column_stack([features, target, weights]), labels)
    if fold.any():
        errors = np.zeros(rounds + 1)
        for one in range(int(fold.max()) + 1):
            out = fold == one
            trees = _boost(features[~out], target[~out], weights[~out], rounds, growth)
            errors += _errors(trees, features[out], target[out], weights[out], rounds)
        rounds = int(np.argmin(errors))
    return _boost(features, target, weights, rounds, growth)


def _checked(features: FloatArray) -> FloatArray:
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not features.shape[1] or not np.isfinite(features).all():
        raise ValueError(f"features must be finite numbers of shape (rows, features); got {features.shape}")
    return features


def _check(rows: int, target: FloatArray, weights: FloatArray, labels: NDArray) -> None:
    shapes = {target.shape, weights.shape, labels.shape}
    if shapes != {(rows,)}:
        raise ValueError(f"target, weights and groups need one entry for each of {rows} rows; got {shapes}")
    if not (np.isfinite(target).all() and np.isfinite(weights).all()):
        raise ValueError("target and weights must be finite")
    if (weights < 0.0).any() or not weights.any():
        raise ValueError("weights must not be negative, and one of them must be above 0")


def _folds(content: FloatArray, labels: NDArray) -> IntArray:
    """Part of each row, shape (n,): groups in the order of what their rows hold, dealt out in turn.

    Args:
        content: sorted rows, shape (n, columns).
        labels: group of each row, shape (n,).
    """
    fresh = np.r_[True, (content[1:] != content[:-1]).any(axis=1)]
    rank = np.cumsum(fresh)
    names, group = np.unique(labels, return_inverse=True)
    held = [tuple(rank[group == one]) for one in range(len(names))]
    place = np.empty(len(names), dtype=np.int64)
    place[sorted(range(len(names)), key=held.__getitem__)] = np.arange(len(names))
    return place[group] % min(FOLDS, len(names))


def _errors(
    trees: Trees, features: FloatArray, target: FloatArray, weights: FloatArray, rounds: int
) -> FloatArray:
    """Weighted squared error with the first 0, 1, … trees, shape (rounds + 1,)."""
    left = target - trees.base
    errors = [float(weights @ left**2)]
    for step in trees.steps(features):
        left = left - step
        errors.append(float(weights @ left**2))
    return np.array(errors + errors[-1:] * (rounds + 1 - len(errors)))


def _boost(
    features: FloatArray, target: FloatArray, weights: FloatArray, rounds: int, growth: _Growth
) -> Trees:
    """At most `rounds` trees, fewer where nothing is left to split."""
    binned = _bin(features, weights, growth.bins)
    base = float(np.average(target, weights=weights))
    residual, least = target - base, _NO_GAIN * float(weights @ target**2)
    feature, threshold, value = [], [], []
    for _ in range(rounds):
        asked, above, added, leaf = _grow(binned, weights * residual, growth, least)
        if not np.isfinite(above[0]):
            break
        feature.append(asked)
        threshold.append(above)
        value.append(added)
        residual = residual - added[leaf]
    leaves = 2**growth.depth
    return Trees(
        base=base,
        feature=np.array(feature, dtype=np.int64).reshape(-1, leaves - 1),
        threshold=np.array(threshold, dtype=np.float64).reshape(-1, leaves - 1),
        value=np.array(value, dtype=np.float64).reshape(-1, leaves),
        features=features.shape[1],
    )


@dataclass(frozen=True)
class _Binned:
    """Rows as bins."""

    cuts: FloatArray
    """Bin b of a feature ends at its cut b; shape (F, B − 1), infinite beyond a feature's last cut."""
    bin: IntArray
    """Shape (n, F)."""
    weights: FloatArray
    """Shape (n,)."""

    def sums(self, node: IntArray, nodes: int, values: FloatArray) -> FloatArray:
        """Sums of values, shape (n,), over the rows of a node up to a bin: shape (nodes, F, B)."""
        width, bins = self.cuts.shape[0], self.cuts.shape[1] + 1
        slot = self.bin + (node * width * bins)[:, None] + bins * np.arange(width)
        total = np.bincount(slot.ravel(), np.repeat(values, width), minlength=nodes * width * bins)
        return total.reshape(nodes, width, bins).cumsum(axis=2)


def _bin(features: FloatArray, weights: FloatArray, bins: int) -> _Binned:
    cuts = [_cuts(column, weights, bins) for column in features.T]
    padded = np.full((len(cuts), max(len(cut) for cut in cuts)), np.inf)
    for row, cut in zip(padded, cuts, strict=True):
        row[: len(cut)] = cut
    index = [np.searchsorted(cut, column) for cut, column in zip(cuts, features.T, strict=True)]
    return _Binned(padded, np.column_stack(index).astype(np.int64), weights)


def _cuts(column: FloatArray, weights: FloatArray, bins: int) -> FloatArray:
    """Midpoints between neighbouring values at up to bins − 1 quantiles by weight; shape (c,), ascending."""
    values, inverse = np.unique(column, return_inverse=True)
    last = np.arange(len(values) - 1)
    if len(values) > bins:
        below = np.cumsum(np.bincount(inverse, weights))
        quantile = below[-1] * np.arange(1, bins) / bins
        last = np.unique(np.minimum(np.searchsorted(below, quantile), len(values) - 2))
    return values[last] / 2.0 + values[last + 1] / 2.0


def _grow(
    binned: _Binned, pull: FloatArray, growth: _Growth, least: float
) -> tuple[IntArray, FloatArray, FloatArray, IntArray]:
    """One tree for the weighted residuals `pull`, shape (n,).

    Returns:
        Feature and threshold of the nodes and value of the leaves, as in `Trees`; and the leaf of each row.
    """
    leaves, rows = 2**growth.depth, np.arange(len(pull))
    feature, threshold = np.zeros(leaves - 1, dtype=np.int64), np.full(leaves - 1, np.inf)
    node = np.zeros(len(pull), dtype=np.int64)
    for level in range(growth.depth if binned.cuts.size else 0):
        here = slice(2**level - 1, 2 ** (level + 1) - 1)
        gain = _gain(binned, node, 2**level, pull, growth.min_leaf_weight)
        best = gain.max(axis=1)
        asked, cut = np.divmod(
            np.argmax(gain >= best[:, None] * (1.0 - _SAME_GAIN), axis=1), binned.cuts.shape[1]
        )
        split = best > least
        feature[here] = asked
        threshold[here] = np.where(split, binned.cuts[asked, cut], np.inf)
        node = 2 * node + (split[node] & (binned.bin[rows, asked[node]] > cut[node]))
    mass = np.bincount(node, binned.weights, minlength=leaves)
    total = np.bincount(node, pull, minlength=leaves)
    value = growth.learning_rate * np.divide(total, mass, out=np.zeros(leaves), where=mass > 0.0)
    return feature, threshold, value, node


def _gain(
    binned: _Binned, node: IntArray, nodes: int, pull: FloatArray, min_leaf_weight: float
) -> FloatArray:
    """Squared error that each split of each node takes away, 0 where it may not; shape (nodes, F·(B − 1)).

    W_l·W_r ÷ (W_l + W_r) × (mean_l − mean_r)²: no difference of large numbers.
    """
    mass, force = binned.sums(node, nodes, binned.weights), binned.sums(node, nodes, pull)
    left, right = mass[:, :, :-1], mass[:, :, -1:] - mass[:, :, :-1]
    enough = min_leaf_weight * (1.0 - _SAME_GAIN)
    may = (left >= enough) & (right >= enough) & np.isfinite(binned.cuts)
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = force[:, :, :-1] / left - (force[:, :, -1:] - force[:, :, :-1]) / right
        gain = np.where(may, left * right / mass[:, :, -1:] * apart**2, 0.0)
    return gain.reshape(nodes, -1)
