"""One method, one file; `METHODS` is the registry by class name."""

from socket_theory.estimators.baselines import Dense, OracleTopK, RandomTokens, Window
from socket_theory.estimators.bernoulli import Bernoulli, BernoulliSanta
from socket_theory.estimators.cache import Cache
from socket_theory.estimators.estimate import Estimate, Stats
from socket_theory.estimators.hard_lsh import HardLSH
from socket_theory.estimators.method import Method
from socket_theory.estimators.santa import Santa
from socket_theory.estimators.socket_lsh import Socket
from socket_theory.estimators.socket_sampling import SocketSampling
from socket_theory.estimators.storage import load_cache

METHODS: dict[str, type[Method]] = {
    method.__name__: method
    for method in (
        Dense,
        OracleTopK,
        Window,
        RandomTokens,
        HardLSH,
        Socket,
        SocketSampling,
        Santa,
        Bernoulli,
        BernoulliSanta,
    )
}

__all__ = [
    "METHODS",
    "Bernoulli",
    "BernoulliSanta",
    "Cache",
    "Dense",
    "Estimate",
    "HardLSH",
    "Method",
    "OracleTopK",
    "RandomTokens",
    "Santa",
    "Socket",
    "SocketSampling",
    "Stats",
    "Window",
    "load_cache",
]
