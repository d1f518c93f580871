"""One program per question; each prints a table, and with ``--json FILE`` writes what it measured."""
