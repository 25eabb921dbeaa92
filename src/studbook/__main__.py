"""``python -m studbook`` is the command line."""

from __future__ import annotations

from studbook.cli import main

main()
