"""What ``MODULE:NAME`` means: the application to serve, or a sentence that says why there is none."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any, cast

from strandline.cli.exits import REFUSED, USAGE, Failure
from strandline.errors import StrandlineError
from strandline.http.app import Strandline
from strandline.http.auth import refuse_public_bind
from strandline.settings import Settings

Asgi = Callable[..., Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Application:
    """An ASGI application and the Strandlines that its module has (to know the open mode and the grace)."""

    app: Asgi
    chats: tuple[Strandline, ...]

    def refuse_public(self, host: str) -> None:
        """Raise Misconfigured when one of them is in open mode and ``host`` is not loopback (DESIGN §11)."""
        for chat in self.chats:
            refuse_public_bind(chat.auth, host)

    @property
    def grace(self) -> float:
        """Seconds that runs may go on after the exit signal."""
        settings = [chat.settings for chat in self.chats] or [Settings.from_env()]
        return max(each.shutdown_grace for each in settings)


def load(target: str) -> Application:
    """The application that is called ``MODULE:NAME``. Raises Failure or StrandlineError."""
    module, module_name, found = named(target, "`chat = Strandline(...)`", "chat")
    chats = tuple(value for value in vars(module).values() if isinstance(value, Strandline))
    if isinstance(found, Strandline):
        return Application(found.app(), (found,))
    if not _is_asgi(found):
        raise Failure(
            f"{target} is {_kind(found)}, which cannot be served: name a Strandline, or a FastAPI or other ASGI"
            f" application{_instead(module, module_name)}.",
            USAGE,
        )
    return Application(cast(Asgi, found), chats)


def named(target: str, what: str, example: str) -> tuple[ModuleType, str, Any]:
    """Import ``MODULE:NAME`` with the working directory on the path: the module, what it is called, and what the name
    means. Raises Failure or StrandlineError. ``what`` is to be called ``example``, for people."""
    module_name, _, name = target.partition(":")
    if not name or not all(module_name.split(".")) or "/" in module_name:
        guess = os.path.basename(module_name).removesuffix(".py") or "main"
        raise Failure(
            f"{target!r} is not MODULE:NAME. For {what} in the file {guess}.py write {guess}:{example},"
            " in the directory of that file.",
            USAGE,
        )
    module = _module(module_name)
    return module, module_name, _named(module, module_name, name)


def _module(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            wrong = name.removesuffix(".py")
            hint = f" Write {wrong}:NAME, without .py." if wrong != name else ""
            raise Failure(
                f"There is no module {missing!r}, neither in {here} nor installed. Run the command in the directory of"
                f" your application.{hint}",
                USAGE,
            ) from error
        raise Failure(f"{name} cannot be imported: {error}. {_place(error)}Is it installed here?", REFUSED) from error
    except StrandlineError as error:
        raise Failure(f"{name} cannot be imported: {error.detail} {_place(error)}".rstrip(), REFUSED) from error
    except Exception as error:
        # The application's own defect: here its author needs the traceback, without the frames of the importer.
        said = traceback.TracebackException.from_exception(error.with_traceback(_own_frames(error)))
        raise Failure(f"{name} cannot be imported.\n{''.join(said.format()).rstrip()}", REFUSED) from error


def _named(module: ModuleType, module_name: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise Failure(f"{module_name} has no {name!r}{_instead(module, module_name)}.", USAGE) from error
    return found


def _instead(module: ModuleType, module_name: str) -> str:
    names = [name for name, value in vars(module).items() if not name.startswith("_") and _servable(value)]
    return f". It has {', '.join(f'{module_name}:{name}' for name in names)}" if names else ""


def _servable(value: Any) -> bool:
    return isinstance(value, Strandline) or (hasattr(value, "add_middleware") and _is_asgi(value))


def _is_asgi(value: Any) -> bool:
    """An async callable of (scope, receive, send)."""
    if inspect.isclass(value) or not callable(value):
        return False
    call = value if inspect.isroutine(value) else type(value).__call__
    if not inspect.iscoroutinefunction(call):
        return False
    try:
        inspect.signature(value).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True


def _kind(value: Any) -> str:
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__}"
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


def _own_frames(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and _of_importer(trace):
        trace = trace.tb_next
    return trace


def _of_importer(trace: TracebackType) -> bool:
    file = trace.tb_frame.f_code.co_filename
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


def _place(error: BaseException) -> str:
    """``(main.py, line 5) `` where the application's own code was when it happened."""
    trace = _own_frames(error)
    if trace is None:
        return ""
    return f"({os.path.relpath(trace.tb_frame.f_code.co_filename)}, line {trace.tb_lineno}) "
