"""How fast a decode step is, told only after the step has passed its correctness gate on the same inputs."""
