"""SOCKET: ranking and sampling of tokens by soft collisions of a query with sign codes of the keys."""
