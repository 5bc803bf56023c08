"""``python -m natstats_cli``: the command, as launchers of processes start it."""

from .main import main

main()
