"""``python -m medadv``: the command line."""

from medadv.cli import main

main()
