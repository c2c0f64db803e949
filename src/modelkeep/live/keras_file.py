"""A ``.keras`` file of Keras 3, brought to life by Keras after everything its config names has been looked at."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

from modelkeep.errors import (
    CannotLoad,
    IntegrityError,
    LimitExceeded,
    NotFound,
    StorageError,
    UnsafeContent,
    UsageError,
)
from modelkeep.live.allowlist import check_config, own_class, own_function
from modelkeep.live.configs import FUNCTION, VALUES, walk
from modelkeep.live.custom_objects import resolve
from modelkeep.manifest import CustomObject

CONFIG = "config.json"
MAX_CONFIG = 32 * 2**20  # bytes; ResNet50's has 176 kB


def load(path: Path, *, custom_objects: Any = None, trust: Sequence[str] = ()) -> keras.Model:
    """The model in a ``.keras`` file, compiled if it was.

    Only Keras' own classes and those given are ever looked up, and marshalled code is refused. Raises
    UsageError for another kind of file, IntegrityError for a damaged one, MissingCustomObjects,
    UnsafeContent, LimitExceeded, CannotLoad.
    """
    config = _config(path)
    objects, _ = resolve(list(_named(config)), custom_objects=custom_objects, trust=trust)
    check_config(config, objects)
    try:
        return keras.saving.load_model(path, custom_objects=objects, safe_mode=True)
    except Exception as error:
        raise CannotLoad(f"Keras cannot load {path.name} ({type(error).__name__}: {error})") from error


def _config(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            # Of two members of one name Keras would read one and we might check the other.
            if len({member.filename for member in members}) != len(members):
                raise UnsafeContent(f"{path.name} holds two members of one name")
            size = archive.getinfo(CONFIG).file_size
            if size > MAX_CONFIG:
                raise LimitExceeded(f"{CONFIG} in {path.name}", found=f"{size} bytes", expected=f"at most {MAX_CONFIG}")
            return json.loads(archive.read(CONFIG))
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}") from None
    except (zipfile.BadZipFile, KeyError):
        raise UsageError(
            f"{path.name} is no file that can be added", expected="a bundle (.zip) or a .keras file of Keras 3"
        ) from None
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{CONFIG} in {path.name} is not JSON ({error})") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}") from error


def _named(config: Any) -> Iterator[CustomObject]:
    """What the config names that is not Keras' own, by all that a file tells of it: the name and the module."""
    users: dict[tuple[str, str, str], list[str]] = {}
    for place in walk(config):
        if not place.is_object or place.value["class_name"] in VALUES:
            continue
        name, module = place.value["class_name"], str(place.value.get("module"))
        if name == FUNCTION:
            if isinstance(place.value["config"], str) and own_function(module, place.value["config"]) is None:
                users.setdefault((place.value["config"], module, FUNCTION), []).append(place.user)
        elif own_class(module, name) is None:
            users.setdefault((place.value.get("registered_name") or name, module, "object"), []).append(place.user)
    for (name, module, kind), used_by in users.items():
        bare = name.rpartition(">")[2]
        yield CustomObject(
            name=bare,
            kind=kind,
            module=module,
            qualname=bare,
            registered=name if name != bare else None,
            used_by=tuple(dict.fromkeys(filter(None, used_by))),
        )
