"""C99 source of a file's network: generated, compiled, and proved like any other runtime.

``program`` reads a file's operators for one row, with the table ``operators``; ``writing`` makes the header and the
code of it; ``compilers`` compiles and loads code, as an opener of the proof; ``proving`` proves it with every compiler.
"""
