"""`python -m socket_theory`: the same commands as the console script."""

from socket_theory.cli import main

main(prog_name="socket-theory")
