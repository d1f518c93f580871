"""Random faults in the files of generated networks, to see whether a proof can be fooled.

``subjects`` has networks and their right files, ``faults`` the kinds of faults, ``oracle`` says whether a file computes
something else, and ``trial`` puts the three beside the verdict.
"""
