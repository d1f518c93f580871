"""The models that are served: loaded from a folder, replaced while requests go on, unloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import InputError, MissingPackageError, ModelError, ProviderError
from runtime.files import identity
from runtime.session.trial import end_trials

from .layout import Versions, scan_models
from .loaded_model import LoadedModel, check_file, load_model
from .logs import Log
from .options import Options
from .refusals import Malformed, NotReady, Unknown
from .self_check import check
from .shared_memory import Regions
from .statistics import Records

READY, UNAVAILABLE, LOADING = "READY", "UNAVAILABLE", "LOADING"
WRONG = "NOT_READY"
"""The state in the index of a version that is loaded, and does not answer as was proved."""
_CHECKS = 4
"""Files that are hashed or tried at once."""
Faults = dict[tuple[str, str], str]
"""What is wrong with loaded models, by name and version."""


@dataclass(slots=True)
class Version:
    """One version of a model, whether it is loaded or not."""

    loaded: LoadedModel | None = None
    state: str = LOADING
    reason: str = ""
    """Why it is not loaded, or why the newer file is not."""
    file: Path | None = None
    file_identity: object = None
    """Of the file that was tried last, with its data and certificates."""


@dataclass(slots=True)
class Model:
    """The versions of a model; the highest that is loaded answers requests that name no version."""

    versions: dict[str, Version] = field(default_factory=dict[str, Version])
    unloaded: bool = False
    """By a client: it is not loaded until a client loads it again."""

    @property
    def default(self) -> LoadedModel | None:
        """The loaded version with the highest number; None where none is loaded."""
        loaded = [version.loaded for version in self.versions.values() if version.loaded is not None]
        return max(loaded, key=lambda model: int(model.version), default=None)


class Repository:
    """Models by name. All changes are made in the event loop's thread; files are checked and opened in others."""

    def __init__(self, options: Options, log: Log):
        self.options: Options = options
        self._log = log
        self.models: dict[str, Model] = {}
        self.regions: Regions = Regions(options.shared_memory, options.max_body)
        self.stopping = False
        self.faults_elsewhere: Faults = {}
        """What the other workers found wrong with their copies."""
        self.report_faults: Callable[[Faults], None] = lambda _: None
        """Called with what is wrong with the models of this worker, when that may have changed."""
        self._changing = asyncio.Lock()
        self._checkers = ThreadPoolExecutor(_CHECKS, "mlpx-checker")
        self._loader = ThreadPoolExecutor(1, "mlpx-loader")

    def find(self, name: str, version: str | None = None) -> LoadedModel:
        """A version of a model, or its default. Raises Unknown; NotReady: it is known and not loaded."""
        model = self.models.get(name)
        if model is None:
            raise Unknown(f"no model is called '{name[:200]}': this server has {self._names()}")
        if version is None:
            if (default := model.default) is not None:
                return default
            reasons = "; ".join(sorted({entry.reason for entry in model.versions.values() if entry.reason}))
            raise NotReady(f"the model '{name}' is not loaded{f': {reasons}' if reasons else ''}")
        entry = model.versions.get(version)
        if entry is None:
            raise Unknown(f"the model '{name}' has no version '{version[:40]}': it has {', '.join(model.versions)}")
        if entry.loaded is None:
            raise NotReady(f"version {version} of the model '{name}' is not loaded: {entry.reason or entry.state}")
        return entry.loaded

    def loaded_models(self) -> Iterator[LoadedModel]:
        """Every version that is loaded."""
        for model in self.models.values():
            for version in model.versions.values():
                if version.loaded is not None:
                    yield version.loaded

    def metadata(self, name: str, version: str | None = None) -> dict[str, Any]:
        """V2 metadata of a version of a model, or of its default. Raises Unknown, NotReady."""
        record = self.find(name, version).metadata()
        versions = self.models[name].versions
        return record | {"versions": sorted((n for n, entry in versions.items() if entry.loaded is not None), key=int)}

    @property
    def ready(self) -> bool:
        """Whether the server takes requests, and every model that clients did not unload can answer, and is right."""
        if self.stopping or self.faults():
            return False
        return all(model.default is not None or model.unloaded for model in self.models.values())

    def require_ready(self, name: str, version: str | None = None) -> None:
        """Raises Unknown; NotReady: a version, or the default, is not loaded, or does not answer as was proved."""
        model = self.find(name, version)
        if fault := self.faults().get((model.name, model.version)):
            place = f"version {model.version} of the model '{name}'"
            raise NotReady(f"{place} does not compute what was proved: {fault}")

    def faults(self) -> Faults:
        """What is wrong with models that are loaded, here or in another worker."""
        here = {(model.name, model.version): model.fault for model in self.loaded_models()}
        return {key: fault for key in here if (fault := here[key] or self.faults_elsewhere.get(key))}

    async def verify(self) -> None:
        """Check every proved model by the rows of its certificate."""
        for model in list(self.loaded_models()):
            if any(model is loaded for loaded in self.loaded_models()):  # others may be unloaded meanwhile
                await check(model, self._log)
        self._report_faults()

    def statistics(self) -> Records:
        """The counters of every version that is loaded in this worker."""
        for model in self.loaded_models():
            model.statistics.wrong = int(bool(model.fault))
        return {(model.name, model.version): model.statistics for model in self.loaded_models()}

    def _report_faults(self) -> None:
        self.report_faults({(m.name, m.version): m.fault for m in self.loaded_models() if m.fault})

    def index(self, *, ready: bool = False) -> list[dict[str, Any]]:
        """The repository as V2 lists it, and what is proved; with ``ready`` only what is loaded and right."""
        faults = self.faults()
        entries: list[dict[str, Any]] = []
        for name, model in self.models.items():
            for number, version in sorted(model.versions.items(), key=lambda item: int(item[0])):
                fault = faults.get((name, number))
                state, reason = (WRONG, fault) if fault else (version.state, version.reason)
                proved = None if version.loaded is None else version.loaded.proved
                entries.append({"name": name, "version": number, "state": state, "reason": reason, "proved": proved})
        return [entry for entry in entries if entry["state"] == READY or not ready]

    async def refresh(self, unloaded: Collection[str] = ()) -> None:
        """Look at the folder: load what is new or was changed, unload what is gone. Never raises for a model.

        ``unloaded`` are models that clients unloaded before: they are listed, and not loaded.
        Raises InputError: the folder cannot be read.
        """
        async with self._changing:
            layout = await self._in_thread(scan_models, self.options.folder)
            for name in [name for name in self.models if name not in layout]:
                self._release(name, list(self.models[name].versions))
                del self.models[name]
                self._log.event("model_gone", model=name)
            updates: list[tuple[str, Model, Versions]] = []
            for name, versions in layout.items():
                model = self.models.setdefault(name, Model(unloaded=name in unloaded))
                if model.unloaded:
                    self._list_unloaded(model, versions)
                else:
                    updates.append((name, model, versions))
            await asyncio.gather(
                *(self._update(*update) for update in updates)
            )  # a file that hangs in its trial does not hold up the others

    async def refresh_or_log(self) -> None:
        """``refresh``; an error is logged, since the next look at the folder may succeed."""
        try:
            await self.refresh()
        except InputError as error:
            self._log.event("folder_unreadable", reason=str(error))
        except Exception as error:
            self._log.failure("refresh", error)

    async def load(self, name: str) -> None:
        """Load a model from the folder, again if it is loaded. Raises Unknown; Malformed: it cannot be loaded."""
        async with self._changing:
            layout = await self._in_thread(scan_models, self.options.folder)
            if name not in layout:
                raise Unknown(f"no model is called '{name[:200]}' in the folder: it has {', '.join(layout) or 'none'}")
            model = self.models.setdefault(name, Model())
            model.unloaded = False
            await self._update(name, model, layout[name], reload=True)
            reasons = [f"version {number}: {v.reason}" for number, v in model.versions.items() if v.reason]
        if reasons:
            raise Malformed(f"the model '{name}' could not be loaded: {'; '.join(reasons)}")

    async def unload(self, name: str) -> None:
        """Unload a model; requests that it has are still answered. Raises Unknown."""
        async with self._changing:
            if name not in self.models:
                raise Unknown(f"no model is called '{name[:200]}': this server has {self._names()}")
            model = self.models[name]
            model.unloaded = True
            self._release(name, list(model.versions))
            self._list_unloaded(model, model.versions)
            self._log.event("model_unloaded", model=name)

    @staticmethod
    def _list_unloaded(model: Model, versions: Iterable[str]) -> None:
        """Keep the versions of an unloaded model for the index."""
        model.versions = {number: Version(state=UNAVAILABLE, reason="unloaded") for number in versions}

    async def _update(self, name: str, model: Model, versions: Versions, *, reload: bool = False) -> None:
        gone = [number for number in model.versions if number not in versions]
        changed: list[tuple[str, Version, Path]] = []
        for number, file in versions.items():
            version = model.versions.setdefault(number, Version())
            if isinstance(file, str):
                version.state, version.reason = READY if version.loaded is not None else UNAVAILABLE, file
                continue
            file_identity = (identity(file), identity(Path(f"{file}.data")), _certificates(file))
            if reload or file_identity != version.file_identity or version.file != file:
                version.file, version.file_identity = file, file_identity
                version.state = LOADING if version.loaded is None else version.state
                changed.append((number, version, file))
        await asyncio.gather(*(self._load_version(name, *each) for each in changed))
        self._release(name, gone)  # when the new ones answer
        for number in gone:
            del model.versions[number]

    async def _load_version(self, name: str, number: str, version: Version, file: Path) -> None:
        try:
            checked = await self._in_thread(check_file, file, self.options, pool=self._checkers)
            loaded = await self._in_thread(load_model, name, number, file, self.options, checked)
            await self._check_first(loaded, version.loaded)
        except Exception as error:  # one odd file does not end the server; an older version goes on answering
            known = isinstance(error, ModelError | ProviderError | InputError | MissingPackageError)
            version.reason = str(error) if known else f"{file.name} cannot be loaded: {type(error).__name__}: {error}"
            version.state = READY if version.loaded is not None else UNAVAILABLE
            self._log.event("model_refused", model=name, version=number, reason=version.reason)
            return
        old, version.loaded = version.loaded, loaded
        version.state, version.reason = READY, ""
        if old is not None:
            old.close()
        self._report_faults()
        proof = {"sha256": loaded.sha256, "proved": loaded.proved, "device": loaded.session.device}
        self._log.event("model_loaded", model=name, version=number, **proof)

    async def _check_first(self, loaded: LoadedModel, old: LoadedModel | None) -> None:
        """Check a model before it takes requests.

        Raises ModelError: it does not answer as was proved, and the older one does, and stays.
        """
        replaces_right = old is not None and not old.fault
        if old is not None:
            loaded.statistics, loaded.fault = old.statistics, old.fault  # counters never go back
        if self.options.verify_every:
            await check(loaded, None if replaces_right else self._log)  # what is right stays right
        if loaded.fault and replaces_right:
            loaded.close()
            hint = "What to do: run mlpx verify --certificate on the file, on this machine"
            raise ModelError(f"the new file does not compute here what was proved: {loaded.fault}. {hint}")

    def _release(self, name: str, numbers: list[str]) -> None:
        for number in numbers:
            version = self.models[name].versions[number]
            if version.loaded is not None:
                version.loaded.close()
                version.loaded = None

    async def _in_thread(self, function: Any, *arguments: Any, pool: ThreadPoolExecutor | None = None) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool or self._loader, function, *arguments)

    def close(self) -> None:
        """End the threads."""
        for model in self.loaded_models():
            model.close()
        for pool in (self._checkers, self._loader):
            pool.shutdown(wait=False, cancel_futures=True)
        self.regions.unregister(None)
        end_trials()

    def _names(self) -> str:
        return ", ".join(self.models) or "none"


def _certificates(file: Path) -> tuple[object, ...]:
    """What changes when a certificate beside a file is replaced."""
    with suppress(OSError):
        return tuple(identity(path) for path in sorted(file.parent.glob("*.parity.json")))
    return ()
