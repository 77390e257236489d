"""The learning experiment: equal but for the attention, causal, repeatable, and it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="pip install 'socket-theory[torch]'")

import torch

from socket_theory.core.rng import Key
from socket_theory.evaluate.learning import angular, gate
from socket_theory.evaluate.learning import train as train_module
from socket_theory.evaluate.learning.angular import angular_attention
from socket_theory.evaluate.learning.experiment import kinds_of, record, trained
from socket_theory.evaluate.learning.gate import require_right
from socket_theory.evaluate.learning.kinds import Angular, Kind, Race, Softmax, SoftmaxAttention
from socket_theory.evaluate.learning.model import LanguageModel, ModelSize, rotations, turned
from socket_theory.evaluate.learning.summary import summaries
from socket_theory.evaluate.learning.text import split
from socket_theory.evaluate.learning.train import Plan, Run, Windows, train
from socket_theory.race.targets import sharpened_angular_attention

CPU = torch.device("cpu")
SIZE = ModelSize(width=32, num_layers=2, num_heads=2, head_dim=16)
PLAN = Plan(steps=24, batch=4, context=32, learning_rate=1e-2, evaluations=3)
KINDS: list[Kind] = [Race(3, 2), Angular(3.0), Softmax()]
SENTENCES = "\n\n".join(f"The {n}th of some sentences, as like one another as lines of code." for n in range(60))
CORPUS = split({f"document {n}": SENTENCES.replace("some", f"some {n}") for n in range(30)}, "3")
WINDOWS = Windows(CORPUS, PLAN.context, CPU)

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def model_of(kind: Kind, seed: int = 0) -> Any:
    return LanguageModel(97, SIZE, lambda layer: kind.attention(SIZE.head_dim, Key.from_seed(layer)), seed)


def heads(*shape: int, dtype: Any = torch.float64) -> list[Any]:
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {run.kind: run for run in trained(CORPUS, KINDS, [1], SIZE, PLAN, CPU)}


@pytest.mark.parametrize("gamma", [1.0, 3.0, 4.5])
def test_angular_attention_is_that_of_the_reference(gamma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(angular, "AT_ONCE", 7)
    query, keys, values = heads(2, 3, 40, 8)
    arrays = [tensor.detach().numpy() for tensor in (query, keys, values)]
    wanted = sharpened_angular_attention(*arrays, gamma, causal=True).value
    found = angular_attention(query, keys, values, gamma).detach().numpy()
    assert abs(found - wanted).max() <= 1e-12 * abs(wanted).max()


def test_angular_attention_has_the_gradient_of_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(angular, "AT_ONCE", 2)
    assert torch.autograd.gradcheck(lambda *given: angular_attention(*given, 4.0), heads(1, 1, 5, 3))


def test_keys_along_the_query_and_against_it_have_finite_gradients() -> None:
    query, _, values = heads(1, 1, 6, 4, dtype=torch.float32)
    keys = torch.cat([query[..., :3, :], -query[..., 3:, :]], -2).detach().requires_grad_()
    value = angular_attention(query, keys, values, 4.0)
    wanted = sharpened_angular_attention(*(t.detach().numpy() for t in (query, keys, values)), 4, causal=True).value
    assert abs(value.detach().numpy() - wanted).max() <= 4e-3 * abs(wanted).max()
    for gradient in torch.autograd.grad(value.square().sum(), (query, keys, values)):
        assert gradient.isfinite().all()


@by_kind
def test_logits_do_not_change_when_later_characters_do(kind: Kind) -> None:
    model, draw = model_of(kind), torch.Generator().manual_seed(5)
    before = torch.randint(97, (2, 150), generator=draw)
    for place in (1, 64, 149):
        after = before.clone()
        after[:, place:] = (after[:, place:] + 1) % 97
        first, second = (model(characters).detach() for characters in (before, after))
        assert torch.equal(first[:, :place], second[:, :place])
        assert not torch.allclose(first[:, place:], second[:, place:])


def test_kinds_differ_in_their_attention_only() -> None:
    models = [model_of(kind) for kind in KINDS]
    first = {name: tensor for name, tensor in models[0].named_parameters() if not name.endswith("log_beta")}
    for model in models[1:]:
        others = dict(model.named_parameters())
        assert others.keys() == first.keys()
        assert all(torch.equal(others[name], tensor) for name, tensor in first.items())
    other = model_of(KINDS[0], seed=1)
    assert not torch.equal(other.embedding.weight, models[0].embedding.weight)


def test_positions_turn_vectors_so_that_products_depend_on_distances() -> None:
    query, keys = (torch.randn(8, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
    turns = rotations(40, 8, CPU)
    asked, held = (turned(vector.expand(1, 1, 40, 8), turns)[0, 0] for vector in (query, keys))
    products = asked @ held.T
    assert torch.allclose(products[5:, 5:], products[:-5, :-5], atol=1e-4)
    assert torch.allclose(asked.norm(dim=-1), query.norm().expand(40))
    assert torch.equal(asked[0], query)


def test_a_block_turns_queries_and_keys_and_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(SoftmaxAttention, "forward", lambda _, *given: seen.append(given) or given[2])
    model_of(Softmax())(torch.full((1, 20), 7))
    query, keys, values = (given[0, 0].detach() for given in seen[0])
    products = query @ keys.T
    scale = products.abs().max()
    assert (products[3:, 3:] - products[:-3, :-3]).abs().max() < 1e-4 * scale
    assert (products[0] - products[0, 0]).abs().max() > 1e-2 * scale
    assert torch.allclose(values, values[:1].expand(20, -1), atol=1e-5)


def test_every_kind_learns(runs: dict[str, Run]) -> None:
    for run in runs.values():
        assert run.steps == [0, 8, 16, 24]
        for losses in (run.training, run.validation):
            assert abs(losses[0] - np.log(97)) < 0.5
            assert losses[-1] < losses[0] - 1
        assert run.seconds_per_step > 0
    assert runs["race"].parameters == runs["softmax"].parameters + SIZE.num_layers
    assert runs["angular"].parameters == runs["softmax"].parameters


def test_beta_is_learned_and_kinds_part(runs: dict[str, Run]) -> None:
    betas = runs["race"].betas
    assert betas[0] == pytest.approx([1.0] * SIZE.num_layers)
    assert all(beta != pytest.approx(1.0, rel=1e-4) for beta in betas[-1])
    assert runs["softmax"].betas == [[]] * 4
    assert len({run.validation[-1] for run in runs.values()}) == len(KINDS)


@by_kind
def test_the_same_seed_gives_the_same_curve(kind: Kind, runs: dict[str, Run]) -> None:
    again, other = (train(kind, seed, SIZE, PLAN, WINDOWS) for seed in (1, 2))
    assert replace(again, seconds_per_step=0.0) == replace(runs[kind.name], seconds_per_step=0.0)
    assert other.validation != again.validation


def windows_seen(seed: int, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Where the windows of every batch that is learned from begin."""
    seen: list[list[int]] = []
    cut = Windows.cut

    def watched(self: Windows, text: Any, starts: Any) -> Any:
        if text is self.training and torch.is_grad_enabled():
            seen.append(starts.tolist())
        return cut(self, text, starts)

    monkeypatch.setattr(Windows, "cut", watched)
    train(Softmax(), seed, SIZE, plan, WINDOWS)
    monkeypatch.undo()
    return seen


def test_the_seed_alone_draws_the_batches_and_no_two_are_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(PLAN, steps=5, evaluations=1)
    first, again, other = (windows_seen(seed, plan, monkeypatch) for seed in (1, 1, 2))
    assert first == again != other
    assert len({tuple(starts) for starts in first}) == 5
    assert all(len(starts) == PLAN.batch for starts in first)


def test_the_validation_loss_is_that_of_the_text_held_out(runs: dict[str, Run]) -> None:
    other = Windows(replace(CORPUS, validation=CORPUS.validation[::-1]), PLAN.context, CPU)
    backwards = train(Softmax(), 1, SIZE, PLAN, other)
    assert backwards.training == runs["softmax"].training
    assert backwards.validation[-1] > runs["softmax"].validation[-1]


def test_the_learning_rate_rises_and_falls() -> None:
    plan = Plan(steps=100, learning_rate=1.0)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, abs=1e-2)


def test_the_gate_lets_the_right_ones_through() -> None:
    for kind in KINDS:
        for dtype in (torch.float32, torch.bfloat16):
            assert 0 < require_right(kind, 16, 300, CPU, dtype) < 0.5


def test_the_gate_stops_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def drops_a_token(_: Any, query: Any, keys: Any, values: Any) -> Any:
        if query.dtype == torch.float32:
            keys, values = (
                torch.cat([heads[..., :7, :], heads[..., 6:7, :], heads[..., 8:, :]], -2) for heads in (keys, values)
            )
        return torch.nn.functional.scaled_dot_product_attention(query, keys, values, is_causal=True)

    def stops_a_gradient(_: Any, query: Any, keys: Any, values: Any) -> Any:
        keys = keys if query.dtype == torch.float64 else torch.cat([keys[..., :9, :].detach(), keys[..., 9:, :]], -2)
        return torch.nn.functional.scaled_dot_product_attention(query, keys, values, is_causal=True)

    for wrong, sentence in ((drops_a_token, "the outputs of Softmax"), (stops_a_gradient, "the gradients of the keys")):
        monkeypatch.setattr(SoftmaxAttention, "forward", wrong)
        with pytest.raises(ValueError, match=sentence):
            require_right(Softmax(), 16, 300, CPU, torch.float32)
    assert gate.ALLOWED[torch.bfloat16] <= 1e-2


def test_wrong_settings_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"steps=0 was given: pass an integer of at least 1"):
        Plan(steps=0)
    with pytest.raises(ValueError, match=r"learning_rate=0"):
        Plan(learning_rate=0)
    with pytest.raises(ValueError, match=r"head_dim=15 was given: pass an even one"):
        ModelSize(head_dim=15)
    with pytest.raises(ValueError, match=r"context=100000 was given for a text of"):
        Windows(CORPUS, 100_000, CPU)
    monkeypatch.setattr(train_module, "cross_entropy", lambda logits, _: logits.sum() * float("nan"))
    with pytest.raises(ValueError, match=r"the loss of Softmax\(\) with seed 0 is nan at step"):
        train(Softmax(), 0, SIZE, PLAN, WINDOWS)


def test_a_summary_compares_seed_with_seed() -> None:
    def run(kind: Kind, seed: int, last: float) -> Run:
        settings = {"num_planes": 4, "num_tables": 2} if kind.name == "race" else {"gamma": 4.0}
        betas = [[2.0, 2.0], [1.0 + seed, 3.0]] if kind.name == "race" else [[], []]
        return Run(kind.name, settings, seed, 10, [0, 5], [4.0, 2.0], [4.0, last], betas, 0.1)

    made = [run(Race(), 0, 1.3), run(Softmax(), 0, 1.0), run(Race(), 1, 1.6), run(Softmax(), 1, 1.2), run(Race(), 2, 9)]
    race, softmax = summaries(record(CORPUS, SIZE, PLAN, CPU, made))
    assert (race.name, softmax.name) == ("RACE, P=4, L=2", "softmax")
    assert race.final == (1.3, 1.6, 9)
    assert race.above == pytest.approx((0.3, 0.4))
    assert race.betas == (1.0, 3.0)
    assert (softmax.mean_above, softmax.betas) == (None, None)
    assert softmax.spread == pytest.approx(0.2 / 2**0.5)
    assert softmax.bits == pytest.approx(1.1 / np.log(2))
    assert softmax.curve("validation") == ([4.0, pytest.approx(1.1)], [4.0, 1.0], [4.0, 1.2])


def test_the_kinds_are_race_its_target_and_softmax() -> None:
    assert kinds_of(3, [2, 5], 1.5) == [Race(3, 2, 1.5), Race(3, 5, 1.5), Angular(3.0), Softmax()]
