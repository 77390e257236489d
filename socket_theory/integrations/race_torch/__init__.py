"""RACE attention of torch tensors, piece by piece; `socket_theory.integrations.torch_layers` is what users import."""
