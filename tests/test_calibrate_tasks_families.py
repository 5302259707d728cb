"""Each family: what the training part determines, by exact solvers, and which shortcuts are worth nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from mixplan.calibrate.tasks import FAMILIES, Instance, Task
from mixplan.calibrate.tasks.base import chance
from mixplan.documents.spec_tasks import complexity_problem

SMALLEST = {
    "associative_recall": 8,
    "comparison": 3,
    "modular_addition": 3,
    "parity": 2,
    "permutation_composition": 2,
    "regular_language": 2,
    "table_lookup": 3,
}
CELLS = [(family, least + more) for family, least in SMALLEST.items() for more in (0, 1, 4, 8)]


def make(family: str, complexity: int, seed: int = 0) -> Task:
    own = FAMILIES[family]
    symbols = np.arange(300, 300 + own.symbols(complexity))
    return own.make("t", complexity, symbols, np.random.default_rng(seed))


def test_every_family_is_here_and_its_smallest_complexity_is_the_documented_one() -> None:
    assert set(SMALLEST) == set(FAMILIES)
    for family, least in SMALLEST.items():
        assert complexity_problem(family, least) is None
        assert f"at least {least} for {family}" in str(complexity_problem(family, least - 1))


@pytest.mark.parametrize(("family", "complexity"), CELLS)
def test_same_seed_same_task(family: str, complexity: int) -> None:
    assert make(family, complexity, 5) == make(family, complexity, 5)
    assert make(family, complexity, 5) != make(family, complexity, 6)


@pytest.mark.parametrize(("family", "complexity"), CELLS)
def test_instances_are_different_and_few_and_written_in_all_symbols(family: str, complexity: int) -> None:
    task = make(family, complexity)
    train, test = [{i.prompt for i in half} for half in (task.train, task.test)]
    assert len(train) == len(task.train) and len(test) == len(task.test) >= 1
    assert len(train | test) <= 4200
    assert (train == test) if family == "associative_recall" else not train & test
    lengths = [len(i.document(256)) for i in (*task.train, *task.test)]
    assert max(lengths) == FAMILIES[family].instance_tokens(complexity)
    used = {t for i in task.train for t in (*i.prompt, *(choice[0] for choice in i.choices))}
    symbols = set(range(300, 300 + FAMILIES[family].symbols(complexity)))
    # A few random keys need not use all letters.
    assert used <= symbols if family == "associative_recall" else used == symbols
    assert len({i.choices for i in (*task.train, *task.test)}) == 1


@pytest.mark.parametrize("facts", [8, 20, 100, 4096])
def test_associative_recall_tests_the_taught_facts_and_no_value_is_common(facts: int) -> None:
    task = make("associative_recall", facts)
    assert set(task.test) == set(task.train) and len(task.train) == facts
    counts = Counter(i.answer for i in task.train)
    assert len(counts) == 8 and max(counts.values()) == -(-facts // 8)
    assert chance(task.test) == 1 / 8


@pytest.mark.parametrize("steps", [2, 3, 4, 6, 16])
@pytest.mark.parametrize("seed", range(3))
def test_permutation_facts_are_all_trained_and_compose_to_every_answer(steps: int, seed: int) -> None:
    task = make("permutation_composition", steps, seed)
    facts = {i.prompt: i.choices[i.answer][0] for i in task.train if len(i.prompt) == 2}
    assert len(facts) == 4 * 5
    elements = {choice[0] for choice in task.train[0].choices}
    assert {x for _, x in facts} == elements
    composed = [i for i in task.train if len(i.prompt) > 2]
    for i in (*composed, *task.test):
        *word, x = i.prompt
        assert len(word) == steps
        for g in word:
            x = facts[g, x]
        assert x == i.choices[i.answer][0]
    for half in (composed, task.test):
        assert len(set(Counter(i.answer for i in half).values())) == 1
    assert 0 <= len(composed) - len(task.test) <= 5
    if steps <= 4:
        assert len(composed) + len(task.test) == 5 * 4**steps
    # No symbol does nothing, and no two do the same.
    acts = {tuple(facts[g, x] for x in sorted(elements)) for g in {g for g, _ in facts}}
    assert len(acts) == 4 and tuple(sorted(elements)) not in acts


def bits_of(task: Task, half: tuple[Instance, ...]) -> tuple[np.ndarray, np.ndarray]:
    symbols = sorted({t for i in task.train for t in i.prompt})
    assert len(symbols) == 2
    return np.array([[t == symbols[1] for t in i.prompt] for i in half], dtype=int), np.array(
        [i.answer for i in half]
    )


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(3))
def test_one_parity_alone_agrees_with_the_training_half(size: int, seed: int) -> None:
    task = make("parity", size, seed)
    (x, y), (x_test, y_test) = bits_of(task, task.train), bits_of(task, task.test)
    n = x.shape[1]
    subsets = np.arange(2**n)[:, None] >> np.arange(n) & 1
    says = x @ subsets.T % 2
    agree = [
        (subset, turned)
        for turned in (0, 1)
        for subset in subsets[((says ^ turned) == y[:, None]).all(axis=0)]
    ]
    assert len(agree) == 1
    subset, turned = agree[0]
    assert subset.sum() == size
    assert np.array_equal(x_test @ subset % 2 ^ turned, y_test)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6, 7, 8, 16])
def test_parity_is_balanced_and_no_bit_tells_anything(size: int) -> None:
    task = make("parity", size)
    for half in (task.train, task.test):
        x, y = bits_of(task, half)
        assert 2 * y.sum() == len(y)
        for label in (0, 1):
            assert (2 * x[y == label].sum(axis=0) == (y == label).sum()).all()
    assert len(task.train) == len(task.test) <= 2048 and chance(task.test) == 0.5


String = tuple[int, ...]


def automata(labelled: list[tuple[String, int]], states: int) -> Iterator[dict[tuple[int, int], int]]:
    """Every automaton of at most so many states that agrees, up to names: all moves that the strings need."""

    def search(
        first: int, moves: dict[tuple[int, int], int], labels: dict[int, int]
    ) -> Iterator[dict[tuple[int, int], int]]:
        labels = dict(labels)
        for index in range(first, len(labelled)):
            string, label = labelled[index]
            state = 0
            for letter in string:
                if (state, letter) not in moves:
                    known = 1 + max([0, *moves.values()])
                    for after in range(min(known + 1, states)):
                        yield from search(index, {**moves, (state, letter): after}, labels)
                    return
                state = moves[state, letter]
            if labels.setdefault(state, label) != label:
                return
        yield moves

    labelled = sorted(labelled, key=lambda pair: (len(pair[0]), pair[0]))
    return search(0, {}, {})


def strings_of(half: tuple[Instance, ...]) -> list[tuple[String, int]]:
    return [(i.prompt[1:], i.answer) for i in half]


@pytest.mark.parametrize("states", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(4))
def test_one_automaton_alone_agrees_with_the_training_part(states: int, seed: int) -> None:
    task = make("regular_language", states, seed)
    renamed = {t: n for n, t in enumerate(sorted({t for i in task.train for t in i.prompt[1:]}))}
    train, test = (
        [(tuple(renamed[t] for t in string), label) for string, label in strings_of(half)]
        for half in (task.train, task.test)
    )
    (moves,) = automata(train, states)
    assert len(moves) == 2 * states

    def run(string: String) -> int:
        state = 0
        for letter in string:
            state = moves[state, letter]
        return state

    label_of = {run(string): label for string, label in train}
    assert all(label_of[run(string)] == label for string, label in test)


@pytest.mark.parametrize("states", [2, 3, 5, 8, 12])
@pytest.mark.parametrize("seed", range(3))
def test_regular_language_has_no_shortcut(states: int, seed: int) -> None:
    task = make("regular_language", states, seed)
    train, test = strings_of(task.train), strings_of(task.test)
    assert len(test) >= 100 and len({i.prompt[0] for i in (*task.train, *task.test)}) == 1
    for length in range(9):
        labels = [label for string, label in test if len(string) == length]
        assert 2 * sum(labels) == len(labels)
    assert abs(np.mean([label for _, label in train]) - 0.5) < 0.06
    for place in range(-8, 8):
        seen = Counter(
            (string[place] if -len(string) <= place < len(string) else None, label)
            for string, label in train + test
        )
        best = sum(max(seen[letter, 0], seen[letter, 1]) for letter in {letter for letter, _ in seen})
        assert best <= 2 / 3 * len(train + test)
