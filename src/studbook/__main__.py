"""``python -m studbook`` is the command line."""

from studbook.cli import main

main()
