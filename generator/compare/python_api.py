"""Comparison of the Python API of two clients with griffe (https://mkdocstrings.github.io/griffe/).

griffe does not know three things, so this module adds them first: attrs generates constructors; users never construct
models that occur only in responses; and a generated operation is used through `call()`, with the arguments of its
private `_get_kwargs`. griffe ignores annotations, so their changes are listed separately.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import griffe

from generator.compare.rules import Effect
from generator.paths import DOCUMENT_MODULE, EMULATOR, GENERATED, HAND_WRITTEN

_PACKAGE = HAND_WRITTEN.name
_EMULATOR = EMULATOR.name
_ATTRS = frozenset({"attrs.define", "attrs.frozen"})
_CALL = "call"
_DOCUMENT = DOCUMENT_MODULE.relative_to(GENERATED)
# Every generated model has these.
_EVERYWHERE = frozenset({"to_dict", "from_dict", "additional_keys"})


@dataclass(frozen=True)
class Breakage:
    """A breaking change that griffe found.

    Attributes:
        kind: griffe's name for it.
        python: The affected Python name.
        old: The old value, if griffe reports it.
        new: The new value.
    """

    kind: str
    python: str
    old: str | None
    new: str | None


@dataclass(frozen=True)
class ApiComparison:
    """Differences of two clients in names, signatures and annotations.

    Attributes:
        breakages: Breaking changes that griffe found.
        added: New names with their signatures.
        removed: Removed names with their signatures.
        changed: Old and new signature or annotation of each changed name.
        files: Files that differ.
    """

    breakages: list[Breakage]
    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, tuple[str, str]]
    files: list[str]

    @property
    def code_differs(self) -> bool:
        """Whether any file differs."""
        return bool(self.files)

    @property
    def effect(self) -> Effect:
        """Breaking or additive by names and signatures. Cosmetic if only annotations or private code differ."""
        if self.breakages:
            return Effect.BREAKING
        if self.added:
            return Effect.ADDITIVE
        return Effect.COSMETIC if self.code_differs else Effect.NONE


def compare_apis(old: Path, new: Path, read_only: frozenset[str] = frozenset()) -> ApiComparison:
    """Compare two clients without importing them.

    Args:
        old: A folder with the package `forge_realtime`, generated and hand-written, and optionally the emulator.
        new: Another one.
        read_only: Models that users never construct.
    """
    before, after = (_load(folder, read_only) for folder in (old, new))
    found: dict[tuple[str, str], Breakage] = {}
    pairs = [(before, after), (before["_api"], after["_api"])]
    olds, news = (dict(_names(package)) for package in (before, after))
    if (old / _EMULATOR).is_dir() and (new / _EMULATOR).is_dir():
        emulators = _read(old, _EMULATOR), _read(new, _EMULATOR)
        pairs.append(emulators)
        for names, emulator in zip((olds, news), emulators, strict=True):
            names.update(_hand_written(emulator))
    for pair in pairs:
        for breakage in griffe.find_breaking_changes(*pair):
            # Only generated code imports from the modules of models.
            if not (breakage.obj.is_module and breakage.obj.path.startswith(f"{_PACKAGE}._api.models.")):
                one = _breakage(breakage)
                found.setdefault((one.kind, one.python), one)
    files = _files(old), _files(new)
    return ApiComparison(
        breakages=list(found.values()),
        added={name: news[name] for name in news if name not in olds},
        removed={name: olds[name] for name in olds if name not in news},
        changed={name: (olds[name], news[name]) for name in olds if name in news and olds[name] != news[name]},
        files=sorted(name for name in files[0].keys() | files[1].keys() if files[0].get(name) != files[1].get(name)),
    )


def public_api(folder: Path) -> dict[str, str]:
    """Return the public names of a client with their signatures or annotations.

    Args:
        folder: A folder with the package `forge_realtime`.

    Returns:
        Operations by full dotted name; models and hand-written names by the name under which they are imported.
    """
    return dict(_names(_load(folder, frozenset())))


def _files(folder: Path) -> dict[str, bytes]:
    # The hash of the document differs even if the code is the same.
    paths = (path for package in (_PACKAGE, _EMULATOR) for path in (folder / package).rglob("*"))
    files = (path for path in paths if path.is_file() and path.relative_to(folder) != _DOCUMENT)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _load(folder: Path, read_only: frozenset[str]) -> griffe.Module:
    package = _read(folder, _PACKAGE)
    for module in _modules(package):
        for cls in module.classes.values():
            if not cls.is_alias and not (cls.name in read_only and module.path.startswith(f"{_PACKAGE}._api.models")):
                _give_constructor(cls)
        if "_get_kwargs" in module.members:
            # An operation whose responses have no type has only the detailed functions.
            for name in {"sync", "sync_detailed", "asyncio", "asyncio_detailed"} & module.members.keys():
                module.del_member(name)
            arguments = module["_get_kwargs"].parameters
            module.set_member(_CALL, griffe.Function(_CALL, parameters=arguments, returns=_return_type(module)))
    return package


def _read(folder: Path, name: str) -> griffe.Module:
    package = griffe.load(
        name, search_paths=[str(folder)], allow_inspection=False, try_relative_path=False, resolve_aliases=True
    )
    assert isinstance(package, griffe.Module)
    return package


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for member in list(module.members.values()):
        if isinstance(member, griffe.Module):
            yield from _modules(member)


def _return_type(module: griffe.Module) -> str:
    # `_parse_response` returns None for an undocumented status; `call()` raises instead.
    return str(module["_parse_response"].returns).removesuffix(" | None")


def _give_constructor(cls: griffe.Class) -> None:
    decorator = next((one for one in cls.decorators if one.callable_path in _ATTRS), None)
    if decorator is None or "__init__" in cls.members:
        return
    all_by_keyword = _keyword(decorator.value, "kw_only") == "True"
    parameters = [griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)]
    for attribute in cls.attributes.values():
        value = attribute.value
        if "property" in attribute.labels or attribute.annotation is None or _keyword(value, "init") == "False":
            continue
        if str(attribute.annotation).startswith("ClassVar"):
            continue
        default = (_keyword(value, "default") or _keyword(value, "factory")) if _is_field(value) else value
        by_keyword = all_by_keyword or _keyword(value, "kw_only") == "True"
        kind = griffe.ParameterKind.keyword_only if by_keyword else griffe.ParameterKind.positional_or_keyword
        name = attribute.name.lstrip("_")
        parameters.append(griffe.Parameter(name, annotation=attribute.annotation, kind=kind, default=default))
    cls.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))


def _is_field(value: Any) -> bool:
    return isinstance(value, griffe.ExprCall) and str(value.function) in {"field", "_attrs_field"}


def _keyword(call: Any, name: str) -> str | None:
    for argument in call.arguments if isinstance(call, griffe.ExprCall) else ():
        if isinstance(argument, griffe.ExprKeyword) and argument.name == name:
            return str(argument.value)
    return None


def _breakage(breakage: griffe.Breakage) -> Breakage:
    values = (breakage.old_value, breakage.new_value)
    parameter = next((value for value in values if isinstance(value, griffe.Parameter)), None)
    path = breakage.obj.path if parameter is None else f"{breakage.obj.path}({parameter.name})"
    texts = [None if value is None else _text(value) for value in values]
    if breakage.kind is griffe.BreakageKind.OBJECT_REMOVED:
        texts = [None, None]
    return Breakage(breakage.kind.value, _public_name(path), texts[0], texts[1])


def _text(value: Any) -> str:
    if not isinstance(value, griffe.Parameter):
        return str(getattr(value, "value", value))
    annotation = "" if value.annotation is None else f": {value.annotation}"
    return f"{value.name}{annotation}{'' if value.default is None else f' = {value.default}'}"


def _public_name(path: str) -> str:
    """Return the name under which users import an object: without private rooms and their modules."""
    path = re.sub(r"^forge_realtime\._api\.models\.(?:[a-z0-9_]+\.)?(?=\w)", "", path)
    path = re.sub(rf"^forge_realtime\._api\.api\.\w+\.(\w+)\.{_CALL}\b", r"\1", path)
    path = re.sub(r"^forge_realtime\.(?!_api\.)(?:_\w+\.(?:[a-z0-9_]+\.)*)?", "", path)
    path = re.sub(rf"^{_EMULATOR}\.(?:_\w+\.(?:[a-z0-9_]+\.)*)?", f"{_EMULATOR}.", path)
    return path.replace(".__init__(", "(")


def _names(package: griffe.Module) -> Iterator[tuple[str, str]]:
    for module in _modules(package["_api.api"]):
        if _CALL in module.members:
            yield module.path, f"{_signature(module[_CALL])} -> {module[_CALL].returns}"
    yield from _public(package["_api.models"], "")
    yield from _hand_written(package)


def _hand_written(package: griffe.Module) -> Iterator[tuple[str, str]]:
    for module in _modules(package):
        if not any(part.startswith("_") for part in module.path.split(".")):
            yield from _public(module, f"{module.path}.".removeprefix(f"{_PACKAGE}."))


def _public(owner: griffe.Module | griffe.Class, prefix: str) -> Iterator[tuple[str, str]]:
    prefix = prefix.removeprefix(".")
    members = owner.all_members if isinstance(owner, griffe.Class) else owner.members
    for name, member in members.items():
        if name.startswith("_") or not member.is_public or name in _EVERYWHERE:
            continue
        try:
            target = member.final_target if isinstance(member, griffe.Alias) else member
        except griffe.AliasResolutionError:
            continue  # It belongs to another library.
        if isinstance(target, griffe.Class):
            yield f"{prefix}{name}", "class"
            yield from _public(target, f"{prefix}{name}.")
        elif isinstance(target, griffe.Function):
            yield f"{prefix}{name}", f"{_signature(target)} -> {target.returns}"
        elif isinstance(target, griffe.Attribute):
            yield f"{prefix}{name}", _attribute(target)


def _attribute(attribute: griffe.Attribute) -> str:
    if attribute.annotation is None:
        return str(attribute.value)
    return f"{attribute.annotation}{'' if attribute.value is None else f' = {attribute.value}'}"


def _signature(function: griffe.Function) -> str:
    return function.signature(return_type=False).removeprefix(function.name)
