"""RACE: linear-time attention by soft collisions of queries and keys (letter R)."""
