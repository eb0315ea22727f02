"""What outputs are taken for, and the floors that they get."""

import numpy as np
import pytest

from onnxcomp.api import OutputFloor
from onnxcomp.search.outputs import floor_of, floors_in_words, states_of

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.standard_normal((2, 5))
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(1, keepdims=True)


@pytest.mark.parametrize(
    ("array", "kind", "floors"),
    [
        (PROBABILITIES, "probabilities", (0.01, None)),
        (PROBABILITIES.astype(np.float16)[None], "probabilities", (0.01, None)),
        (np.log(PROBABILITIES), "probabilities", (0.01, None)),
        (SCORES, "scores", (0.01, 15)),
        (SCORES[None], "numbers", (None, 20)),
        (SCORES[:, :1], "numbers", (None, 20)),
        (SCORES[0], "numbers", (None, 20)),
        (np.float32(3), "numbers", (None, 20)),
        (np.zeros((0, 5)), "numbers", (None, 20)),
        (np.full((2, 5), np.nan), "scores", (0.01, 15)),
        (np.argmax(SCORES, 1), "labels", (0.01, None)),
        (np.array(["a", "b"], object), "labels", (0.01, None)),
    ],
    ids=str,
)
def test_the_floor_goes_by_what_an_output_holds(array, kind, floors):
    found = floor_of("y", [np.asarray(array)] * 2)
    assert (found.kind, (found.max_drop, found.min_snr)) == (kind, floors)


def test_all_samples_have_to_look_alike():
    assert floor_of("y", [PROBABILITIES, SCORES]).kind == "scores"
    assert floor_of("y", [PROBABILITIES, PROBABILITIES[:0]]).kind == "numbers"


STATE, LONGER = np.zeros((2, 1, 8)), np.zeros((2, 2, 8))


@pytest.mark.parametrize(
    ("given", "name", "array", "is_state"),
    [
        ("state", "stateN", STATE, True),
        ("h_in", "h_out", STATE, True),
        ("input_hidden", "output_hidden", STATE, True),
        ("prevMemory", "nextMemory", STATE, True),
        ("cell_state", "cell", STATE, True),
        ("past_key_values.0.key", "present.0.key", LONGER, True),
        ("past_key_values.10.key", "present.0.key", LONGER, False),
        ("past_key_values.0.key", "present.0.value", LONGER, False),
        ("past_0", "present_0", STATE, True),
        ("state", "stateN", LONGER, False),
        ("state", "stateN", STATE.astype(np.float32), False),
        ("state", "stateN", STATE[0], False),
        ("input", "output", STATE, False),
        ("input_1", "output_1", STATE, False),
        ("image", "mask", STATE, False),
    ],
)
def test_states(given, name, array, is_state):
    feed = {"x": np.zeros((1, 512)), given: STATE}
    outputs = {"y": np.zeros((1, 1)), name: array}
    assert states_of(feed, outputs) == ({name} if is_state else set())


def test_what_would_leave_nothing_is_no_state():
    assert states_of({"x": STATE}, {"y": SCORES, "x_out": STATE}) == set()
    assert states_of({"x": SCORES, "h": STATE}, {"h_out": STATE}) == set()


def test_floors_in_words():
    kinds = ("probabilities", "scores", "numbers", "numbers", "labels", "state")
    floors = [
        OutputFloor(output=name, kind=kind) for name, kind in zip("abcdef", kinds, strict=True)
    ]
    assert floors_in_words(floors) == (
        "at least 0.99 of the rows of 'a' agree with the original's; "
        "at least 0.99 of the rows of 'b' agree, with an SNR of at least 15 dB; "
        "an SNR of at least 20 dB of 'c' and 'd'; at least 0.99 of 'e' equal to the original's; "
        "'f', a state that is fed back, is not judged"
    )
    many = [OutputFloor(output=name, kind="numbers") for name in "abcdef"]
    assert floors_in_words(many) == "an SNR of at least 20 dB of 'a', 'b', 'c' and 3 others"
