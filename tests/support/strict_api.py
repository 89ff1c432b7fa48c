"""Classes that have exactly the names of one version of NVIDIA's bindings, and refuse everything else.

`Api(tests/support/trt_api/<name>.json)` makes them; what a method does is registered with `behaves`. As with the real
bindings a wrong name is an AttributeError, wrong arguments are a TypeError, an integer is no enum member, and an object
that only the library makes cannot be constructed.
"""

import enum
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "trt_api"

Behavior = Callable[..., Any]
_BEHAVIORS: dict[str, Behavior] = {}


def behaves(*names: str) -> Callable[[Behavior], Behavior]:
    """Register what `Class.method` does, or what `Class.property` reads, in every version that has it."""

    def register(function: Behavior) -> Behavior:
        for name in names:
            assert name not in _BEHAVIORS, name
            _BEHAVIORS[name] = function
        return function

    return register


class StrictObject:
    """Base of every class that is no enum. `state` is the stand-in's own; the code under test has no business there."""

    strict_api: "Api"
    strict_properties: dict[str, tuple[str, bool]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        owner = next(kind for kind in type(self).__mro__ if kind.__dict__.get("strict_own"))
        overloads = self.strict_api.description(owner.__name__)["init"]
        if not overloads:
            raise TypeError(f"{owner.__name__}: No constructor defined!")
        values = self.strict_api.bind(f"{owner.__name__}.__init__", overloads, args, kwargs)
        object.__setattr__(self, "state", {})
        if begin := _BEHAVIORS.get(f"{owner.__name__}.__init__"):
            begin(self, **values)

    def __setattr__(self, name: str, value: Any) -> None:
        kind, settable = self.strict_properties.get(name, ("", None))
        if settable is None:
            if not type(self).__dict__.get("strict_own"):  # a Python subclass has attributes of its own
                object.__setattr__(self, name, value)
                return
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if not settable:
            raise AttributeError(f"property {name!r} of {type(self).__name__!r} object has no setter")
        if value is not None and not self.strict_api.fits(kind, value):
            raise TypeError(f"{type(self).__name__}.{name} takes {kind}, not {value!r}")
        self.state[name] = value


class Api:
    """One version's classes, functions and values.

    Args:
        name: a file in `trt_api` without its suffix: `trt-10.13`.
        module_name: what the classes say they come from.
        behavior: handed on to what is registered with `behaves`.
    """

    def __init__(self, name: str, module_name: str, behavior: Any = None) -> None:
        self.behavior = behavior
        self._description = json.loads((FOLDER / f"{name}.json").read_text())
        self.version: str = self._description["version"]
        self.module_name = module_name
        self.classes: dict[str, Any] = {}
        for class_name, description in self._description["classes"].items():
            if class_name not in self.classes:
                self._add(class_name, description)
        self.values = {name: self.classes["DataType"][member] for name, member in self._description["values"].items()}
        self.functions = {name: self._function(name, sig) for name, sig in self._description["functions"].items()}

    def description(self, class_name: str) -> dict[str, Any]:
        found: dict[str, Any] = self._description["classes"][class_name]
        return found

    def make(self, class_name: str, **state: Any) -> Any:
        """Return an object that only the library itself can make."""
        made = object.__new__(self.classes[class_name])
        object.__setattr__(made, "state", state)
        return made

    def bind(
        self, where: str, overloads: list[list[list[Any]]], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments by name, for the first overload that they fit.

        Raises:
            TypeError: they fit none.
        """
        for parameters in overloads:
            names = [name for name, _, _ in parameters]
            if len(args) > len(names) or not set(kwargs) <= set(names[len(args) :]):
                continue
            values = dict(zip(names, args, strict=False)) | kwargs
            missing = [name for name, _, default in parameters if name not in values and not default]
            kinds = {name: kind for name, kind, _ in parameters}
            if not missing and all(self.fits(kinds[name], value) for name, value in values.items()):
                return values
        raise TypeError(f"{where}(): incompatible function arguments {args} {kwargs}; it takes {overloads}")

    def fits(self, kind: str, value: Any) -> bool:
        """Say whether the bindings would take `value` where they want a `kind`."""
        if kind in self.classes or kind == "Severity":
            wanted = self.classes["ILogger"].Severity if kind == "Severity" else self.classes[kind]
            if kind == "Dims" and isinstance(value, tuple | list):
                return all(isinstance(entry, int) for entry in value)
            # A Python subclass that did not call the base's constructor holds no object of the library.
            return isinstance(value, wanted) and (isinstance(value, enum.Enum) or "state" in vars(value))
        if kind == "Buffer":
            return isinstance(value, bytes | bytearray | memoryview) or hasattr(value, "__buffer_bytes__")
        if kind.startswith(("Sequence[", "List[", "list[")):
            return isinstance(value, list | tuple)
        plain = {"int": int, "str": str, "bool": bool, "float": (int, float), "tuple": tuple, "list": list}
        if kind in plain:
            return isinstance(value, plain[kind])
        return True

    def _add(self, name: str, description: dict[str, Any]) -> None:
        if "enum" in description:
            self.classes[name] = enum.Enum(name, description["enum"], module=self.module_name, type=_Member)
            return
        for base in description.get("bases", ()):
            if base not in self.classes:
                self._add(base, self.description(base))
        bases = tuple(self.classes[base] for base in description.get("bases", ())) or (StrictObject,)
        properties = {key: (kind, settable) for key, (kind, settable) in description["properties"].items()}
        members: dict[str, Any] = {
            "strict_api": self,
            "strict_own": True,
            "strict_properties": properties,
            "__module__": self.module_name,
        }
        members |= {key: self._method(name, key, sigs) for key, sigs in description["methods"].items()}
        members |= {key: self._property(name, key) for key in properties}
        members |= {
            key.partition(".")[2]: function
            for key, function in _BEHAVIORS.items()
            if key.startswith(f"{name}.__") and not key.endswith(".__init__")
        }
        if "severity" in description and not description.get("bases"):
            severity = enum.Enum("Severity", description["severity"], module=self.module_name, type=_Member)
            members |= {"Severity": severity, **{member.name: member for member in severity}}
        self.classes[name] = type(name, bases, members)

    def _method(self, class_name: str, name: str, overloads: list[list[list[Any]]]) -> Behavior:
        where = f"{class_name}.{name}"

        def call(this: StrictObject, *args: Any, **kwargs: Any) -> Any:
            values = self.bind(where, overloads, args, kwargs)
            if where not in _BEHAVIORS:
                raise NotImplementedError(f"the stand-in knows {where}, but not what it does; add it with `behaves`")
            return _BEHAVIORS[where](this, **values)

        call.__name__ = name
        return call

    def _property(self, class_name: str, name: str) -> property:
        where = f"{class_name}.{name}"

        def read(this: StrictObject) -> Any:
            if name in this.state:
                return this.state[name]
            if where not in _BEHAVIORS:
                raise NotImplementedError(f"the stand-in knows {where}, but not its value; add it with `behaves`")
            return _BEHAVIORS[where](this)

        def write(this: StrictObject, value: Any) -> None:
            StrictObject.__setattr__(this, name, value)

        return property(read, write)

    def _function(self, name: str, overloads: list[list[list[Any]]]) -> Behavior:
        def call(*args: Any, **kwargs: Any) -> Any:
            values = self.bind(name, overloads, args, kwargs)
            if name not in _BEHAVIORS:
                raise NotImplementedError(f"the stand-in knows {name}, but not what it does; add it with `behaves`")
            return _BEHAVIORS[name](self, **values)

        return call


class _Member:
    """What an enum member of the bindings can do beyond Python's: `int()` and ordering among its own kind."""

    value: int

    def __int__(self) -> int:
        return self.value

    __index__ = __int__
