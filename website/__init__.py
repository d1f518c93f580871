"""The documentation site: ``make docs`` builds it from ``docs/`` and the docstrings of the public names.

Four steps, one file each: ``sources`` gathers the pages, ``reference`` and ``gallery`` write those that are made,
Zensical renders them (``building``), and ``checking`` reads what was rendered. ``publishing`` puts a built site on a
branch, under its version.
"""
