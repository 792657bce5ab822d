"""JSON with the same face as `YamlText`. It is written as sops writes it (tabs), so that nothing else changes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from reconciler.errors import InvalidInput, Position, Problem
from reconciler.sops.cipher import NULL, Path, Scalar, scalar
from reconciler.sops.yamltext import MAX_DEPTH, METADATA_KEY, Comment, Leaf


class JsonText:
    """One JSON object.

    Args:
        text: of the whole file.
        file: its name, for messages.

    Raises:
        InvalidInput: it is not a JSON object.
    """

    comments: tuple[Comment, ...] = ()

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text.removeprefix("\ufeff"), file
        try:
            data = json.loads(self.text or "{}", object_pairs_hook=self._unique)
        except json.JSONDecodeError as error:
            position = Position(file, error.lineno, error.colno)
            raise InvalidInput([Problem(f"is not JSON: {error.msg}.", position=position)]) from None
        except RecursionError:
            raise InvalidInput([Problem("is nested too deeply.", position=Position(file))]) from None
        if not isinstance(data, dict):
            raise InvalidInput([Problem("is not a JSON object.", "Write {...}.", position=Position(file))])
        self._data: dict[str, Any] = data
        level: list[Any] = [data]
        for _ in range(MAX_DEPTH + 1):
            level = [i for v in level if isinstance(v, dict | list) for i in (v.values() if isinstance(v, dict) else v)]
        if level:
            raise InvalidInput([Problem("is nested too deeply.", "Flatten it.", position=Position(file))])

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            problem = Problem(f'the key "{twice}" is there twice.', "Keep one of them.", position=Position(self.file))
            raise InvalidInput([problem])
        return out

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        """Every value outside the metadata, in the order of the file."""
        return tuple(Leaf(path, scalar(value)) for path, value in _leaves(self._data, ()) if path[0] != METADATA_KEY)

    @cached_property
    def written(self) -> Mapping[Path, Scalar]:
        """What is written outside the metadata, by path."""
        return {leaf.path: leaf.written for leaf in self.leaves}

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What stands under `sops`: plain values."""
        found = self._data.get(METADATA_KEY)
        return found if isinstance(found, dict) else None

    @property
    def has_metadata_key(self) -> bool:
        """Whether anything stands under `sops`."""
        return METADATA_KEY in self._data

    def keys(self, path: Path) -> list[str] | None:
        """The keys of the object or array (`0`, `1`, ...) at a path; None where there is none."""
        found = self._at(path)
        if isinstance(found, dict):
            return [k for k in found if path or k != METADATA_KEY]
        return [str(i) for i in range(len(found))] if isinstance(found, list) else None

    def is_map(self, path: Path) -> bool:
        """Whether an object stands at a path."""
        return isinstance(self._at(path), dict)

    def position(self, path: Path) -> Position:
        """The line of a key. JSON is read without places: the keys on the way are looked for one after the other."""
        at = 0
        for part in path:
            found = self.text.find(f"{json.dumps(part, ensure_ascii=False)}:", at) if isinstance(part, str) else -1
            at = found if found >= 0 else at
        before = self.text[:at]
        return Position(self.file, before.count("\n") + 1, len(before) - before.rfind("\n"))

    def _at(self, path: Path) -> Any:
        found: Any = self._data
        for part in path:
            if isinstance(part, str):
                found = found.get(part) if isinstance(found, dict) else None
            else:
                found = found[part] if isinstance(found, list) and part < len(found) else None
        return found

    def edited(
        self,
        values: Mapping[Path, Scalar],
        comments: Mapping[int, str] | None = None,
        metadata: Mapping[str, Any] | bool | None = True,
    ) -> str:
        """See `YamlText.edited`."""
        data = _replaced(self._data, (), values)
        if metadata is not True:
            data.pop(METADATA_KEY, None)
            if metadata:
                data[METADATA_KEY] = metadata
        return _text(data)

    def inserted(self, new: Mapping[Path, Scalar]) -> str:
        """See `YamlText.inserted`."""
        metadata = self.metadata
        data = _replaced({k: v for k, v in self._data.items() if k != METADATA_KEY}, (), {})
        for path, value in new.items():
            at = data
            for index, part in enumerate(path[:-1]):
                at = at.setdefault(part, {})
                if not isinstance(at, dict):
                    raise KeyError(path[: index + 1])
            if path[-1] in at:
                raise KeyError(path)
            at[path[-1]] = _python(value)
        return _text(data | ({METADATA_KEY: metadata} if metadata is not None else {}))


def _text(data: Any) -> str:
    return json.dumps(data, indent="\t", ensure_ascii=False) + "\n"


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _replaced(value: Any, path: Path, values: Mapping[Path, Scalar]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, (*path, key), values) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, (*path, index), values) for index, item in enumerate(value)]
    return _python(values[path]) if path in values and values[path] != scalar(value) else value


def _python(value: Scalar) -> Any:
    match value.type:
        case "null":
            return None if value == NULL else value.text
        case "bool":
            return value.text == "True"
        case "int" | "int64":
            return int(value.text)
        case "float":
            return float(value.text)
    return value.text
