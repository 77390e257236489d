"""RACE on a GPU: its kernels, their launchers, its plan and its benchmark."""
