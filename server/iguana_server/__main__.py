"""python -m iguana_server."""

from iguana_server.cli import main

main()
