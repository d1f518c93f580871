"""Whatever a user's data are in, as the arrays of a model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtime.errors import InputError
from runtime.model.port import Port

from .arrays import Data, as_array, check_lengths
from .dataframes import rows_of_table

_NOT_TABLES = (np.ndarray, Mapping, list, tuple)


def as_inputs(
    data: Mapping[str, Any] | Data,
    ports: Sequence[Port],
    *,
    dtype: str | None = None,
    named_ports: Callable[[], Sequence[Port]] | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of all inputs by name: from the data of the only input, a mapping of several, or a table.

    The columns of a table are matched with the features of all inputs (see ``rows_of_table``), those of a table for
    one of several inputs with its own; ``named_ports`` is called only then, and gives the ports with the names of
    their features.
    Raises InputError as ``as_array``, and for missing or unknown names or batches of unequal length.
    """
    if not isinstance(data, _NOT_TABLES):
        rows = rows_of_table(data, ports if named_ports is None else named_ports(), dtype=dtype)
        if rows is not None:
            return rows
    names = [port.name for port in ports]
    if len(ports) == 1 and not isinstance(data, Mapping):
        data = {names[0]: data}
    if not isinstance(data, Mapping):
        hint = f"give a dict, {{'{names[0]}': …, '{names[1]}': …}}"
        message = f"this model has {len(ports)} inputs ({', '.join(names)}), and got one array"
        raise InputError(f"{message}. What to do: {hint}")
    mistakes = [f"'{name}' is missing" for name in names if name not in data]
    mistakes += [f"'{name}' is unknown" for name in data if name not in names]
    if mistakes:
        raise InputError(f"{'; '.join(mistakes)}; the model's inputs are: {', '.join(names)}")
    arrays: dict[str, np.ndarray] = {}
    for position, port in enumerate(ports):
        table = None
        if not isinstance(data[port.name], _NOT_TABLES):
            named = port if named_ports is None else named_ports()[position]
            table = rows_of_table(data[port.name], [named], dtype=dtype)
        arrays |= table or {port.name: as_array(data[port.name], port, dtype=dtype)}
    return check_lengths(arrays)
