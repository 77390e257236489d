"""What the name "cupy" stands for: the backend, and each family's own operations and plans on it."""

from __future__ import annotations

from socket_gpu.core.backend import CupyBackend
from socket_gpu.race.operations import CupySequences
from socket_gpu.race.plan import RacePlan
from socket_gpu.santa.plan import SantaPlan
from socket_gpu.socket_lsh.operations import CupyOperations
from socket_gpu.socket_lsh.plan import DecodePlan
from socket_theory.core.backend import register_operations
from socket_theory.core.plans import register_plan
from socket_theory.race.estimator import Race
from socket_theory.race.operations import FAMILY as RACE
from socket_theory.santa.estimator import Santa
from socket_theory.socket_lsh.estimator import Socket
from socket_theory.socket_lsh.hard_lsh import HardLSH
from socket_theory.socket_lsh.operations import FAMILY as SOCKET_LSH

register_operations(SOCKET_LSH, CupyBackend.name, CupyOperations())
register_operations(RACE, CupyBackend.name, CupySequences())
register_plan(CupyBackend.name, Socket, DecodePlan)
register_plan(CupyBackend.name, HardLSH, DecodePlan)
register_plan(CupyBackend.name, Santa, SantaPlan)
register_plan(CupyBackend.name, Race, RacePlan)

__all__ = ["CupyBackend"]
