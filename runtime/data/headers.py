"""The columns of a table by the names of a model's features, with the units that their headers may carry."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import normalize

from runtime.model.port import Port

_CLOSING = {"]": "[", ")": "("}


def by_feature(headers: Sequence[str], port: Port) -> tuple[dict[str, list[int]], dict[str, tuple[str, str, str]]]:
    """The columns of each of the port's features; and of those that a header has in another unit: it, its unit, ours.

    A column belongs to a feature by its name alone, or, where the feature has a unit, as in ``speed [m/s]`` and
    ``speed (m/s)``. A unit is the same if it is written the same, after Unicode's normalisation NFKC.
    """
    features = port.features or ()
    units = dict(zip(features, port.units or (None,) * len(features), strict=True))
    places: dict[str, list[int]] = {feature: [] for feature in features}
    other: dict[str, tuple[str, str, str]] = {}
    for index, header in enumerate(headers):
        name, unit = (header, None) if header in places else _split(header, units)
        if name is None:
            continue
        wanted = units[name]
        if unit is None or wanted is None or normalize("NFKC", unit) == normalize("NFKC", wanted):
            places[name].append(index)
        else:
            other.setdefault(name, (header, unit, wanted))
    return places, other


def _split(header: str, units: dict[str, str | None]) -> tuple[str | None, str | None]:
    """The feature with a unit that the header begins with, and the unit in the brackets that it ends with."""
    opening = _CLOSING.get(header[-1:])
    for index, character in enumerate(header):
        if character == opening and units.get(name := header[:index].rstrip()) is not None:
            return name, header[index + 1 : -1].strip()
    return None, None
