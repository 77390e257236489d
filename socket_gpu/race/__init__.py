"""RACE on a GPU: kernels of whole sequences and of decode steps, their launchers and the planned step."""
