"""Attention estimators you can trust: each with its law, its theorem and a test that could have refuted it."""

from socket_theory.core.angular import angles, angular_attention, hard_kernel
from socket_theory.core.attention import AttentionState, attention_logits, softmax_attention
from socket_theory.core.baselines import Dense, OracleTopK, RandomTokens, Window
from socket_theory.core.cache import Cache
from socket_theory.core.estimate import Estimate, Stats
from socket_theory.core.hashing import Planes, SignHash
from socket_theory.core.owned_elsewhere import BorrowedRows, PagedRows
from socket_theory.core.prefill import Prefill
from socket_theory.core.rng import Key
from socket_theory.core.selection import Budget
from socket_theory.core.states import empty_state, merge_states
from socket_theory.core.storage import load_cache, save_cache
from socket_theory.race.attention import race_attention
from socket_theory.race.estimator import Race
from socket_theory.race.per_bucket import race_per_bucket_attention
from socket_theory.race.targets import sharpened_angular_attention
from socket_theory.santa.bernoulli import Bernoulli, BernoulliSanta
from socket_theory.santa.estimator import Santa
from socket_theory.socket_lsh.angular import soft_angular_attention
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH
from socket_theory.socket_lsh.law import SoftKernel
from socket_theory.socket_lsh.sampling import SocketSampling

__version__ = "0.1.0"

__all__ = [
    "AttentionState",
    "Bernoulli",
    "BernoulliSanta",
    "BorrowedRows",
    "Budget",
    "Cache",
    "Dense",
    "Estimate",
    "HardLSH",
    "Key",
    "OracleTopK",
    "PagedRows",
    "Planes",
    "Prefill",
    "Race",
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
    "race_attention",
    "race_per_bucket_attention",
    "save_cache",
    "sharpened_angular_attention",
    "soft_angular_attention",
    "softmax_attention",
]
