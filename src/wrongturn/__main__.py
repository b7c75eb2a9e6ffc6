"""``python -m wrongturn``: the same as the ``wrongturn`` command."""

from wrongturn.cli import main

main()
