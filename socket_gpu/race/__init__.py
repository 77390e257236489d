"""RACE on a GPU: attention of whole sequences, forward and backward."""
