"""A key is for one draw and a file for one question: neither is used twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from socket_theory import HardLSH, Key, SignHash
from socket_theory.core.baselines import head_uniforms
from socket_theory.core.cache import Cache
from socket_theory.core.claim import Context
from socket_theory.core.hashing import round_to_bfloat16
from socket_theory.core.rng import normal, philox, uniform
from socket_theory.evaluate import prefill, ranking

KEY = Key.from_seed(1)


def test_every_integer_is_a_seed_and_a_value_of_its_own() -> None:
    integers = [
        0,
        *(sign * (1 << bits) + more for sign in (-1, 1) for bits in (0, 1, 16, 32, 64, 128) for more in (0, 1)),
    ]
    different = set(integers)
    assert len({Key.from_seed(seed) for seed in different}) == len(different)
    assert len({KEY.fold_in("tag", value) for value in different}) == len(different)


def test_a_stream_does_not_come_back() -> None:
    keys = [key for key, _ in zip(KEY.stream(), range(3000), strict=False)]
    assert len(set(keys)) == 3000
    assert KEY.split(3000) == tuple(keys)


def test_both_words_of_a_key_and_the_step_decide_the_numbers() -> None:
    low, high = KEY.words
    keys = [KEY, Key((low ^ 1, high)), Key((low, high ^ 1)), Key((high, low))]
    words = [philox(key, np.arange(50), step).tobytes() for key in keys for step in (0, 1, 2**40)]
    assert len(set(words)) == len(words)


def test_planes_are_all_different_and_share_no_number_with_the_key_itself() -> None:
    weights = SignHash(num_tables=300, num_planes=6, head_dim=16).draw(KEY).weights.reshape(1800, 16)
    assert len({row.tobytes() for row in weights}) == 1800
    own = round_to_bfloat16(normal(KEY, np.arange(weights.size, dtype=np.uint64)))
    assert not np.isin(weights, own).all()
    assert np.mean(weights.ravel() == own) < 0.02


def test_sequences_heads_and_items_have_uniforms_of_their_own() -> None:
    """Items at powers of two, where an index that packs too few bits meets another head's."""
    items = np.concatenate([[0], 2 ** np.arange(32)])
    found = head_uniforms(KEY, (2, 4, 8), items)
    assert found.shape == (2, 4, 33)
    assert len(np.unique(found)) == found.size
    np.testing.assert_array_equal(found[0, 0], uniform(KEY, items))


def test_parts_and_batches_of_a_claim_have_keys_of_their_own() -> None:
    context = Context(KEY, "quick", 1e-8)
    parts = context.split("a", "b")
    keys = [key for part in (context, *parts) for key, _ in part.batches(5, 2)]
    assert len({*keys, KEY, *(part.key for part in parts)}) == len(keys) + 3


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def test_a_capture_of_other_positions_tokens_weights_or_format_is_another_file(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(token_ids: list[int], positions: list[int]) -> str:
        return prefill._capture_key(model, token_ids, np.array(positions))

    names = [
        name([5, 6, 7, 8], [2, 3]),
        name([5, 6, 7, 8], [1, 3]),
        name([5, 6, 7, 8], [3]),
        name([5, 6, 7, 9], [2, 3]),
        name([6, 5, 7, 8], [2, 3]),
        name([5, 6, 7], [8, 2, 3]),
    ]
    assert name([5, 6, 7, 8], [2, 3]) == names[0]
    monkeypatch.setattr(prefill, "FORMAT", prefill.FORMAT + 1)
    names.append(name([5, 6, 7, 8], [2, 3]))
    monkeypatch.undo()
    model.write_bytes(b"weightz")
    names.append(name([5, 6, 7, 8], [2, 3]))
    assert len(set(names)) == len(names)


def test_one_byte_of_any_file_of_a_checkpoint_is_another_model(tmp_path: Path) -> None:
    hashes = []
    for name in ("config.json", "model.safetensors", "pytorch_model.bin"):
        for content in (b"1", b"2"):
            (tmp_path / name).write_bytes(content)
            hashes.append(prefill.weights_sha256(tmp_path))
    (tmp_path / "config.json").rename(tmp_path / "other.json")
    hashes.append(prefill.weights_sha256(tmp_path))
    assert len(set(hashes)) == len(hashes)
    (tmp_path / "README.md").write_text("not read")
    assert prefill.weights_sha256(tmp_path) == hashes[-1]


def test_both_words_of_a_key_decide_what_its_generator_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """`generator` goes through a digest, which is replaced here by keys that differ in one word."""
    draws = []
    for words in ((1, 2), (1, 3), (4, 2)):
        with monkeypatch.context() as patch:
            patch.setattr(Key, "fold_in", lambda self, tag, value=0, words=words: Key(words))
            draws.append(KEY.generator().random(4).tobytes())
    assert len(set(draws)) == 3


def test_trials_of_a_ranking_have_keys_and_queries_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(method: object, query: np.ndarray, cache: Cache) -> np.ndarray:
        seen.extend((query.tobytes(), cache.keys.tobytes()))
        return scores_of(method, query, cache)  # type: ignore[arg-type]

    scores_of = ranking.scores_of
    monkeypatch.setattr(ranking, "scores_of", note)
    size = ranking.RankingSize(num_keys=20, head_dim=4, num_trials=2, num_queries=1)
    for trial in range(3):
        ranking.run_trial([HardLSH(2, 3)], [5], size, KEY.fold_in("trial", trial))
    assert len(set(seen)) == 6
