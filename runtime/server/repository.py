"""The models that are served: loaded from a folder, replaced while requests go on, taken out again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runtime.errors import InputError, MissingPackageError, ModelError, ProviderError
from runtime.files import identity

from .layout import found
from .loaded_model import Served, load
from .logs import Log
from .options import Options
from .refusals import Malformed, NotReady, Unknown

READY, UNAVAILABLE, LOADING = "READY", "UNAVAILABLE", "LOADING"


@dataclass(slots=True)
class Version:
    """One version of a model, whether it is loaded or not."""

    served: Served | None = None
    state: str = LOADING
    reason: str = ""
    """Why it is not loaded, or why the newer file is not."""
    file: Path | None = None
    seen: object = None
    """The identity of the file that was tried last."""


@dataclass(slots=True)
class Model:
    """The versions of a model; the highest that is loaded answers where a request names none."""

    versions: dict[str, Version] = field(default_factory=dict)
    unloaded: bool = False
    """A client took it out: it stays out until a client loads it again."""

    @property
    def default(self) -> Served | None:
        loaded = [version.served for version in self.versions.values() if version.served is not None]
        return max(loaded, key=lambda served: int(served.version), default=None)


class Repository:
    """Models by name. All changes are made in the event loop's thread; files are opened in another."""

    def __init__(self, options: Options, log: Log):
        self.options, self._log = options, log
        self.models: dict[str, Model] = {}
        self.stopping = False
        self._changing = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "mlpx-loader")

    def find(self, name: str, version: str | None = None) -> Served:
        """The version of a model, or its default. Raises Unknown; NotReady: it is known and not loaded."""
        model = self.models.get(name)
        if model is None:
            raise Unknown(f"no model is called '{name[:200]}': this server has {self._names()}")
        if version is None:
            if (served := model.default) is not None:
                return served
            raise NotReady(f"the model '{name}' is not loaded{self._why(model)}")
        held = model.versions.get(version)
        if held is None:
            raise Unknown(f"the model '{name}' has no version '{version[:40]}': it has {', '.join(model.versions)}")
        if held.served is None:
            raise NotReady(f"version {version} of the model '{name}' is not loaded: {held.reason or held.state}")
        return held.served

    def served(self) -> Iterator[Served]:
        """Every version that is loaded, by name and version."""
        for model in self.models.values():
            for version in model.versions.values():
                if version.served is not None:
                    yield version.served

    def loaded(self, name: str) -> list[str]:
        """The versions of a model that answer, in order."""
        versions = self.models[name].versions
        return sorted((number for number, held in versions.items() if held.served is not None), key=int)

    @property
    def ready(self) -> bool:
        """Whether the server takes requests, and every model but those that a client took out can answer."""
        if self.stopping:
            return False
        return all(model.default is not None or model.unloaded for model in self.models.values())

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """The repository as V2 lists it; with ``ready`` only what is loaded."""
        return [
            {"name": name, "version": number, "state": version.state, "reason": version.reason}
            for name, model in self.models.items()
            for number, version in sorted(model.versions.items(), key=lambda item: int(item[0]))
            if version.state == READY or not ready
        ]

    async def refresh(self, out: Callable[[str], bool] = lambda name: False) -> None:
        """Look at the folder: load what is new or was changed, take out what is gone. Never raises for a model.

        ``out`` says of a model that is new here whether clients took it out, of other workers or before this one.
        Raises InputError: the folder cannot be read.
        """
        async with self._changing:
            layout = await self._aside(found, self.options.folder)
            for name in [name for name in self.models if name not in layout]:
                self._take_out(name, list(self.models[name].versions))
                del self.models[name]
                self._log.event("model_gone", model=name)
            for name, versions in layout.items():
                model = self.models.get(name)
                if model is None:
                    model = self.models[name] = Model(unloaded=out(name))
                if model.unloaded:
                    self._listed(model, versions)
                else:
                    await self._update(name, model, versions, again=False)

    async def load(self, name: str) -> None:
        """Load a model anew from the folder, as a client asks. Raises Unknown; Malformed: it cannot be loaded."""
        async with self._changing:
            layout = await self._aside(found, self.options.folder)
            if name not in layout:
                raise Unknown(f"no model is called '{name[:200]}' in the folder: it has {', '.join(layout) or 'none'}")
            model = self.models.setdefault(name, Model())
            model.unloaded = False
            await self._update(name, model, layout[name], again=True)
            wrong = [f"version {number}: {v.reason}" for number, v in model.versions.items() if v.reason]
            if wrong:
                raise Malformed(f"the model '{name}' could not be loaded: {'; '.join(wrong)}")

    async def unload(self, name: str) -> None:
        """Take a model out; requests that it has are still answered. Raises Unknown."""
        async with self._changing:
            if name not in self.models:
                raise Unknown(f"no model is called '{name[:200]}': this server has {self._names()}")
            model = self.models[name]
            model.unloaded = True
            self._take_out(name, list(model.versions))
            self._listed(model, model.versions)
            self._log.event("model_unloaded", model=name)

    @staticmethod
    def _listed(model: Model, versions: Iterable[str]) -> None:
        """The versions of a model that clients took out, for the index."""
        model.versions = {number: Version(state=UNAVAILABLE, reason="unloaded") for number in versions}

    async def _update(self, name: str, model: Model, versions: dict[str, Path | str], *, again: bool) -> None:
        gone = [number for number in model.versions if number not in versions]
        for number, file in versions.items():
            version = model.versions.setdefault(number, Version())
            if isinstance(file, str):
                version.state, version.reason = READY if version.served is not None else UNAVAILABLE, file
                continue
            seen = (identity(file), identity(Path(f"{file}.data")), _certificates(file))
            if again or seen != version.seen or version.file != file:
                version.file, version.seen = file, seen
                await self._load_version(name, number, version, file)
        self._take_out(name, gone)  # when the new ones answer
        for number in gone:
            del model.versions[number]

    async def _load_version(self, name: str, number: str, version: Version, file: Path) -> None:
        if version.served is None:
            version.state = LOADING
        try:
            served = await self._aside(load, name, number, file, self.options)
        except Exception as error:  # one odd file is no reason to end; an older one goes on answering
            known = isinstance(error, ModelError | ProviderError | InputError | MissingPackageError)
            version.reason = str(error) if known else f"{file.name} cannot be loaded: {type(error).__name__}: {error}"
            version.state = READY if version.served is not None else UNAVAILABLE
            self._log.event("model_refused", model=name, version=number, reason=version.reason)
            return
        old, version.served = version.served, served
        version.state, version.reason = READY, ""
        if old is not None:
            served.statistics = old.statistics  # counters never go back
            old.close()
        proof = {"sha256": served.sha256, "proved": served.proved, "device": served.session.device}
        self._log.event("model_loaded", model=name, version=number, **proof)

    def _take_out(self, name: str, numbers: list[str]) -> None:
        for number in numbers:
            version = self.models[name].versions[number]
            if version.served is not None:
                version.served.close()
                version.served = None

    async def _aside(self, function: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._loader, function, *arguments)

    def close(self) -> None:
        """End the threads."""
        for served in self.served():
            served.close()
        self._loader.shutdown(wait=False)

    def _names(self) -> str:
        return ", ".join(self.models) or "none"

    @staticmethod
    def _why(model: Model) -> str:
        reasons = {version.reason for version in model.versions.values() if version.reason}
        return f": {'; '.join(sorted(reasons))}" if reasons else ""


def _certificates(file: Path) -> tuple[object, ...]:
    """What changes when a certificate beside a file is replaced."""
    with suppress(OSError):
        return tuple(identity(path) for path in sorted(file.parent.glob("*.parity.json")))
    return ()
