"""The exit codes of the commands, besides 0. No imports: a broken installation needs them too."""

UNPROVED, WRONG_USE, MACHINE_LACKS, DEFECT = 1, 2, 3, 70
INTERRUPTED, UNREAD, TERMINATED = 130, 141, 143
"""Ended by Ctrl-C, by the reader of the output, who has gone, and by SIGTERM."""
