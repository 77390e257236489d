"""The mathematics and the frame that every family stands on; it imports no family."""
