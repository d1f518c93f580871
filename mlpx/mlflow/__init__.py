"""Proved files in MLflow: logged with their certificate, registered, and served by MLflow's own commands.

``import mlpx.mlflow`` is a flavour like MLflow's own: ``log_model`` and ``save_model`` write a model, ``load_model``
reads it, and ``mlflow.pyfunc``, ``mlflow models serve`` and ``mlflow models predict`` run it. Its package,
``mlpx[mlflow]``, is imported by these functions, not by the import of this module.
"""

from .contents import FLAVOR_NAME
from .loading import load_model, load_pyfunc
from .saving import save_model
from .tracking import log_model

__all__ = ["FLAVOR_NAME", "load_model", "log_model", "save_model"]

_load_pyfunc = load_pyfunc
"""The name that MLflow looks for in the module of a flavour."""
