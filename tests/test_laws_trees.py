"""Boosted trees: they find steps and interactions, and depend on nothing but the rows' content."""

from __future__ import annotations

import numpy as np
import pytest

from mixplan.laws.trees import FOLDS, Trees, fit_trees


def grid(rows: int = 600, features: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, features))


def same(one: Trees, other: Trees) -> bool:
    return one.base == other.base and all(
        np.array_equal(getattr(one, name), getattr(other, name)) for name in ("feature", "threshold", "value")
    )


def test_finds_a_step_where_it_is() -> None:
    x = np.arange(40.0)[:, None]
    trees = fit_trees(x, (x[:, 0] >= 25) * 0.6 + 0.2, np.ones(40))
    assert trees.predict(np.array([[24.0], [24.4], [24.6], [25.0]])) == pytest.approx(
        [0.2, 0.2, 0.8, 0.8], abs=1e-6
    )


def test_finds_an_interaction_that_no_sum_of_single_features_has() -> None:
    sign = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    # Unbalanced: of a balanced exclusive or, no first split gains anything.
    features = np.repeat(sign, [10, 20, 30, 25], axis=0)
    target = 0.5 + 0.4 * features.prod(axis=1)
    assert fit_trees(features, target, np.ones(85)).predict(sign) == pytest.approx(
        [0.9, 0.1, 0.1, 0.9], abs=1e-6
    )
    single = fit_trees(features, target, np.ones(85), depth=1).predict(sign)
    assert np.abs(single - [0.9, 0.1, 0.1, 0.9]).max() > 0.2


def test_beats_the_mean_on_rows_it_has_not_seen() -> None:
    features = grid(1500)
    truth = 1 / (1 + np.exp(-2 * features[:, 0] - features[:, 1] * features[:, 2]))
    noisy = truth + np.random.default_rng(1).normal(scale=0.1, size=1500)
    trees = fit_trees(features[:1000], noisy[:1000], np.ones(1000))
    error = np.mean((trees.predict(features[1000:]) - truth[1000:]) ** 2)
    assert error < 0.1 * truth[1000:].var()


@pytest.mark.parametrize("grouped", [False, True])
def test_order_of_rows_and_names_of_groups_change_nothing(grouped: bool) -> None:
    features = np.round(grid(300), 1)  # many rows alike in every feature
    rng = np.random.default_rng(2)
    target, weights = np.round(rng.random(300), 1), rng.integers(1, 4, 300) / 3
    groups = rng.integers(0, 7, 300)
    names = np.array(["g", "a", "f", "b", "e", "c", "d"], dtype=object)
    order = rng.permutation(300)
    first = fit_trees(features, target, weights, groups=groups if grouped else None, rounds=30)
    second = fit_trees(
        features[order],
        target[order],
        weights[order],
        groups=names[groups][order] if grouped else None,
        rounds=30,
    )
    assert same(first, second)


def test_weight_two_is_the_row_twice() -> None:
    features, rng = grid(200), np.random.default_rng(3)
    target, weights = rng.random(200), rng.integers(0, 3, 200)
    weighted = fit_trees(features, target, weights.astype(float))
    repeated = fit_trees(
        np.repeat(features, weights, axis=0), np.repeat(target, weights), np.ones(weights.sum())
    )
    assert np.array_equal(weighted.threshold, repeated.threshold)
    assert weighted.predict(features) == pytest.approx(repeated.predict(features), abs=1e-9)
    unweighted = fit_trees(features, target, np.ones(200))
    assert np.abs(weighted.predict(features) - unweighted.predict(features)).max() > 0.05


def test_quantile_bins_follow_the_weights() -> None:
    x = np.arange(1000.0)
    heavy = np.where(x < 10, 1000.0, 1e-3)
    trees = fit_trees(x[:, None], (x == 3).astype(float), heavy, bins=16, min_leaf_weight=1.0)
    assert trees.predict(np.array([[2.0], [3.0], [4.0]])) == pytest.approx([0.0, 1.0, 0.0], abs=1e-6)


def test_constant_target() -> None:
    trees = fit_trees(grid(), np.full(600, 0.3), np.ones(600))
    assert len(trees.value) == 0 and trees.predict(grid(5)) == pytest.approx(0.3)


def test_one_row() -> None:
    trees = fit_trees(np.array([[1.0, 2.0]]), np.array([0.7]), np.array([0.5]), groups=np.array(["a"]))
    assert trees.predict(np.array([[9.0, 9.0], [1.0, 2.0]])) == pytest.approx([0.7, 0.7])
    assert trees.predict(np.empty((0, 2))).shape == (0,)


def test_flat_beyond_the_range() -> None:
    features = grid()
    trees = fit_trees(features, features[:, 0] + features[:, 1], np.ones(600))
    ends = np.vstack([features.min(axis=0), features.max(axis=0)])
    assert trees.predict(ends) == pytest.approx(trees.predict(ends * 100), abs=0)
    assert np.diff(trees.predict(ends)) > 3


def test_leaves_weigh_at_least_what_was_asked() -> None:
    x = np.arange(20.0)[:, None]
    target = (x[:, 0] >= 17).astype(float)
    assert len(np.unique(fit_trees(x, target, np.ones(20), min_leaf_weight=5.0).predict(x))) > 1
    least = fit_trees(x, target, np.ones(20), min_leaf_weight=5.0, depth=1)
    assert least.threshold.max() <= 14.5
    assert len(fit_trees(x, target, np.full(20, 0.1), min_leaf_weight=5.0).value) == 0


def test_groups_left_out_stop_before_a_group_is_learned_by_heart() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(30), 20)
    # What a group has in common is seen by the trees, but says nothing about another group.
    mark, effect = rng.normal(size=30), 0.4 * rng.normal(size=30)
    signal = rng.normal(size=600)
    features = np.column_stack([mark[groups], signal])
    target = (signal > 0) + effect[groups]
    stopped, whole = (fit_trees(features, target, np.ones(600), groups=g) for g in (groups, None))
    assert 0 < len(stopped.value) < len(whole.value) == 200
    fresh = np.column_stack([rng.normal(size=500), rng.normal(size=500)])
    truth = fresh[:, 1] > 0
    assert np.var(stopped.predict(fresh) - truth) < 0.5 * np.var(whole.predict(fresh) - truth)


def test_groups_that_say_nothing_about_each_other_leave_the_mean() -> None:
    x = np.repeat([[1.0], [2.0]], 20, axis=0)
    target = np.tile([0.0, 1.0], 20) + np.repeat([0.0, 0.5], 20)
    trees = fit_trees(x, target, np.ones(40), groups=x[:, 0])
    assert len(trees.value) == 0 and trees.predict(x) == pytest.approx(0.75)


def test_more_groups_than_parts() -> None:
    features, groups = grid(), np.arange(600) % (3 * FOLDS + 1)
    trees = fit_trees(features, features[:, 0], np.ones(600), groups=groups, rounds=60)
    assert len(trees.value) == 60  # a clean signal is still being learned after 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.array([[np.nan], [1.0]])}, "finite"),
        ({"features": np.empty((2, 0))}, "shape"),
        ({"target": np.array([0.1])}, "2 rows"),
        ({"target": np.array([0.1, np.inf])}, "finite"),
        ({"weights": np.array([1.0, -1.0])}, "negative"),
        ({"weights": np.zeros(2)}, "above 0"),
        ({"groups": np.array([1])}, "2 rows"),
        ({"rounds": 0}, "at least 1"),
        ({"min_leaf_weight": 0.0}, "above 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change: dict, message: str) -> None:
    given = {"features": np.array([[0.0], [1.0]]), "target": np.array([0.1, 0.2]), "weights": np.ones(2)}
    with pytest.raises(ValueError, match=message):
        fit_trees(**(given | change))


def test_prediction_needs_the_same_features() -> None:
    trees = fit_trees(grid(), grid()[:, 0], np.ones(600), rounds=5)
    for features in (np.ones((3, 2)), np.ones(3), np.full((1, 3), np.nan)):
        with pytest.raises(ValueError, match="features"):
            trees.predict(features)
