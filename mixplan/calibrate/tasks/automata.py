"""Small deterministic automata over two letters: drawing minimal ones, and samples that determine them.

Shape legend: q = states, 2 = letters. An automaton is `moves` (q, 2), where each letter leads from each
state, and `accepts` (q,); state 0 is the start. A string is a tuple of letters 0 and 1.
"""

from __future__ import annotations

from collections import deque

import numpy as np

LETTERS = 2
String = tuple[int, ...]


def draw_minimal(states: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random automaton of which every state is reached from the start and no two are equivalent."""
    while True:
        moves = generator.integers(0, states, size=(states, LETTERS))
        accepts = generator.random(states) < 0.5
        if len(access_strings(moves)) == states and len(distinguishing_strings(moves, accepts)) == states**2:
            return moves, accepts


def access_strings(moves: np.ndarray) -> dict[int, String]:
    """The first string, by length and then alphabet, that leads from the start to each state in reach."""
    found: dict[int, String] = {0: ()}
    queue = deque([0])
    while queue:
        state = queue.popleft()
        for letter in range(LETTERS):
            after = int(moves[state, letter])
            if after not in found:
                found[after] = (*found[state], letter)
                queue.append(after)
    return found


def distinguishing_strings(moves: np.ndarray, accepts: np.ndarray) -> dict[tuple[int, int], String]:
    """A shortest string that one of two states accepts and the other does not, for pairs that have one.

    Pairs of a state with itself are there too, with the empty string, so that q² entries mean a minimal
    automaton.
    """
    states = range(len(moves))
    found: dict[tuple[int, int], String] = {
        (a, b): () for a in states for b in states if accepts[a] != accepts[b]
    }
    grew = True
    while grew:
        longer = {
            (a, b): (letter, *found[int(moves[a, letter]), int(moves[b, letter])])
            for letter in range(LETTERS)
            for a in states
            for b in states
            if a != b and (a, b) not in found and (int(moves[a, letter]), int(moves[b, letter])) in found
        }
        grew = bool(longer)
        found |= longer
    return found | {(a, a): () for a in states}


def characteristic_sample(moves: np.ndarray, accepts: np.ndarray) -> set[String]:
    """Strings whose labels leave one automaton of at most q states, up to the names of its states.

    As in RPNI (Oncina and García 1992): the access strings of the q states are told apart in pairs, so any
    automaton that agrees has a state for each and no other; each access string with one letter appended is
    told apart from all access strings but one, which fixes that move; and every state ends some string.
    """
    access = access_strings(moves)
    apart = distinguishing_strings(moves, accepts)
    kernel = {(): 0} | {
        (*string, letter): int(moves[state, letter])
        for state, string in access.items()
        for letter in range(LETTERS)
    }
    sample = set(access.values())
    for state, string in access.items():
        for other_string, other in kernel.items():
            if state != other:
                sample |= {(*string, *apart[state, other]), (*other_string, *apart[state, other])}
    return sample
