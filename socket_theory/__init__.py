"""Attention estimators you can trust: each with its law, its theorem and a test that could have refuted it."""

from socket_theory.attention import (
    AttentionState,
    angles,
    angular_attention,
    attention_logits,
    soft_angular_attention,
    softmax_attention,
)
from socket_theory.estimators import (
    Bernoulli,
    BernoulliSanta,
    Cache,
    Dense,
    Estimate,
    HardLSH,
    OracleTopK,
    RandomTokens,
    Santa,
    Socket,
    SocketSampling,
    Stats,
    Window,
    load_cache,
)
from socket_theory.hashing import Planes, SignHash
from socket_theory.moments import SoftKernel, hard_kernel
from socket_theory.rng import Key
from socket_theory.selection import Budget
from socket_theory.states import empty_state, merge_states

__version__ = "0.1.0"

__all__ = [
    "AttentionState",
    "Bernoulli",
    "BernoulliSanta",
    "Budget",
    "Cache",
    "Dense",
    "Estimate",
    "HardLSH",
    "Key",
    "OracleTopK",
    "Planes",
    "RandomTokens",
    "Santa",
    "SignHash",
    "Socket",
    "SocketSampling",
    "SoftKernel",
    "Stats",
    "Window",
    "__version__",
    "angles",
    "angular_attention",
    "attention_logits",
    "empty_state",
    "hard_kernel",
    "load_cache",
    "merge_states",
    "soft_angular_attention",
    "softmax_attention",
]
