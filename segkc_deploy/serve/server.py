"""Listen on an address and serve until a signal ends it."""

import ipaddress
import os
import re
import socket
from collections.abc import Sequence

import uvicorn
from fastapi import FastAPI

from segkc_deploy.errors import ConfigError
from segkc_deploy.serve.limits import Limits
from segkc_deploy.serve.protocol import ImpatientProtocol

#: What comes before the port in the header `Host`; the first part may be any.
_HOST_NAME = re.compile(r"\*|(\*\.)?[\w-]+(\.[\w-]+)*|\[[0-9A-Fa-f:.]+\]", re.ASCII)
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; `port` 0 takes any free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol named, which `socket.create_server` leaves out: asyncio turns Nagle's algorithm off only for
        # sockets that say they are TCP, and with it every answer waits 40 ms for the client's acknowledgment.
        listening = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # elsewhere it would let two services share a port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(512)
        except OSError:
            listening.close()
            raise
    except UnicodeError:  # of the codec for host names, which an OSError is not
        raise ConfigError(f"--host {host}: no name of a host") from None
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: cannot listen there: {error.strerror}; choose another --host or --port"
        ) from None
    return listening


def is_local(host: str) -> bool:
    """Whether an address is this machine's own, which no other machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_names(host: str, allowed: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the names under which a service that listens on `host` may be addressed; `*` is any.

    Args:
        host: an address of this machine alone has a name of its own, any other one has all names.
        allowed: names that a proxy passes on; with them, these and those of this machine are all there are.

    Raises:
        ConfigError: one of `allowed` is no name of a host.
    """
    for name in allowed:
        if not _HOST_NAME.fullmatch(name):
            raise ConfigError(f"--allowed-host {name}: give a name as www.example.com or *.example.com, without a port")
    if not is_local(host) and not allowed:
        return ("*",)
    return (*_LOCAL_NAMES, f"[{host}]" if ":" in host else host, *allowed)


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if listening.family == socket.AF_INET6 else f"http://{host}:{port}"


def server_for(app: FastAPI, limits: Limits, stop_seconds: int = 30) -> uvicorn.Server:
    """Return a server to `run(sockets=[…])`. SIGTERM or Ctrl-C ends it after the requests that it works on.

    Args:
        app: the application.
        limits: what is accepted.
        stop_seconds: how long those requests may take.
    """
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=ImpatientProtocol,
            ws="none",
            # Its own configuration would close the handlers of every other library in the process.
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=stop_seconds,
        )
    )
