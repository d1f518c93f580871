"""Reading a model that was logged: the bytes that were proved, on the device that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from runtime import InputError, ModelError, Session, imported, read_certificate, require_signature, sha256

from .contents import FLAVOR_NAME, PURPOSE
from .reaching import require_server

_AGAIN = "log the file again, or restore what was logged"


class ProvedModel:
    """What ``mlflow.pyfunc`` calls."""

    def __init__(self, session: Session):
        self.session = session

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> Any:
        """The model's outputs for a batch of rows: arrays (rows, ...).

        ``model_input`` is a dict of arrays by the names of the inputs, and gives a dict by the names of the outputs; or
        it is a data frame with a column for each feature, and gives the array of a single output.
        Raises MlflowException for data that the model cannot take: only of these MLflow's servers give the message.
        """
        del params  # it has none
        from mlflow.exceptions import MlflowException

        try:
            outputs = self.session.run(model_input, dtype="float32")
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        return outputs if isinstance(model_input, Mapping) or len(outputs) > 1 else next(iter(outputs.values()))


def load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ProvedModel:
    """What MLflow loads: the model in a folder, on the device of ``model_config``. Raises as ``load_model``."""
    config = model_config or {}
    return ProvedModel(_open(Path(path), str(config.get("device", "cpu")), trusted_keys=None))


def load_model(
    model_uri: str,
    device: str | None = None,
    *,
    dst_path: str | Path | None = None,
    trusted_keys: Sequence[str | Path] | None = None,
) -> Session:
    """The session of a logged model, once its file is known to be the proved one.

    Args:
        model_uri: as MLflow has them: "models:/NAME@ALIAS", "models:/NAME/VERSION", "runs:/RUN/NAME" or a folder.
        device: "cpu", "cuda", "cuda:N" or "auto"; by default the one that the model was logged with.
        dst_path: a folder to download to; by default a temporary one, as MLflow makes it.
        trusted_keys: public keys, with one of which the certificate must be signed.

    Raises ModelError: no model of this flavour, or a file or certificate that is not the one that was logged;
    ProviderError: the device is not available here; SignatureError: not signed with a trusted key; UnreachableError:
    the registry does not answer; and what MLflow raises where it cannot find or download the model.

    Examples:
        Continues the example of ``mlpx.mlflow.log_model``.

        >>> with mlpx.mlflow.load_model("models:/comfort/1", device="cpu") as session:
        ...     session.device
        'cpu'
    """
    imported("mlflow", PURPOSE)
    import mlflow.artifacts

    if model_uri.startswith("models:/"):
        require_server(mlflow.get_registry_uri(), "registry", "nothing was loaded")
    target = None if dst_path is None else str(dst_path)
    folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=model_uri, dst_path=target))
    return _open(folder, device, trusted_keys)


def _open(folder: Path, device: str | None, trusted_keys: Sequence[str | Path] | None) -> Session:
    flavors = _flavors(folder)
    if FLAVOR_NAME not in flavors:
        kinds = ", ".join(sorted(flavors)) or "none"
        hint = "load it by its own flavour, or log a proved file with mlpx.mlflow.log_model"
        raise ModelError(f"{folder} has no flavour '{FLAVOR_NAME}'; it has {kinds}. What to do: {hint}")
    if device is None:
        config: Any = flavors.get("python_function", {}).get("config") or {}
        device = str(cast("Mapping[str, Any]", config).get("device", "cpu") if isinstance(config, Mapping) else config)
    return Session(_checked_file(folder, flavors[FLAVOR_NAME], trusted_keys), device)


def _flavors(folder: Path) -> Mapping[str, Mapping[str, Any]]:
    """The flavours of a model's MLmodel file, which anybody may have written. Raises ModelError, MlflowException."""
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    try:
        flavors: dict[str, Any] = dict(Model.load(str(folder)).flavors or {})
        wrong = [str(name) for name, entry in flavors.items() if not isinstance(entry, Mapping)]
    except MlflowException:
        raise
    except Exception as error:  # YAML's own errors, and what MLflow makes of a file of another structure
        reason = " ".join(str(error).split())  # YAML's have several lines
        message = f"{folder / 'MLmodel'} is not an MLmodel file: {type(error).__name__}: {reason}"
        raise ModelError(f"{message}. What to do: {_AGAIN}") from None
    if wrong:
        expected = f"the entry of each flavour has names and values, and that of '{wrong[0]}' has not"
        raise ModelError(f"{folder / 'MLmodel'}: {expected}. What to do: {_AGAIN}")
    return flavors


def _checked_file(folder: Path, flavor: Mapping[str, Any], trusted_keys: Sequence[str | Path] | None) -> Path:
    """The ONNX file of a model, whose bytes are those of its certificate, and that the logged one."""
    record = folder / "MLmodel"
    names = {key: str(flavor.get(key)) for key in ("file", "sha256", "certificate", "certificate_sha256")}
    for key in ("file", "certificate"):
        if key not in flavor or Path(names[key]).name != names[key] or names[key] in ("", ".."):
            message = f"{record}: {key} of the flavour '{FLAVOR_NAME}' is the name of a file, not {names[key]!r}"
            raise ModelError(f"{message}. What to do: {_AGAIN}")
    file, path = folder / names["file"], folder / names["certificate"]
    try:
        certificate = read_certificate(path)
    except InputError as error:
        raise ModelError(f"the model in {folder} cannot be checked: {error}") from None
    if certificate.digest != names["certificate_sha256"]:
        expected = f"has the SHA-256 {certificate.digest}, and {record} expects {names['certificate_sha256']}"
        raise ModelError(f"{path} is not the certificate that was logged: it {expected}. What to do: {_AGAIN}")
    if not certificate.proved:
        raise ModelError(f"{file} is {certificate.verdict}: {certificate.why}. What to do: log a file that is proved")
    if not certificate.is_of(file):
        problem = _difference(file, certificate.sha256)
        raise ModelError(f"{file} is not the file that {path.name} proves: {problem}. What to do: {_AGAIN}")
    if certificate.sha256 != names["sha256"]:
        expected = f"proves the SHA-256 {certificate.sha256}, and {record} expects {names['sha256']}"
        raise ModelError(f"{path} is not of the file that was logged: it {expected}. What to do: {_AGAIN}")
    if trusted_keys:
        require_signature(certificate, trusted_keys)
    return file


def _difference(file: Path, expected: str) -> str:
    try:
        found = sha256(file)
    except FileNotFoundError:
        return "it is missing"
    except (OSError, ValueError) as error:
        return f"it cannot be read: {getattr(error, 'strerror', None) or error}"
    return "its external data has changed" if found == expected else f"its SHA-256 is {found}, not {expected}"
