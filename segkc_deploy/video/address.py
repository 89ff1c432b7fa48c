"""What `--source` says of a video: a file, a stream's URL, a camera, or stdin."""

import re
import sys
from pathlib import Path, PurePath
from typing import Any

_SCHEMES = ("rtsp://", "rtsps://", "rtmp://", "http://", "https://", "udp://", "srt://")

#: Name and password of a URL, up to the last `@` before the path.
_USER = re.compile(r"(?<=://)[^/?#]*@")


def is_url(source: str) -> bool:
    """Whether a stream is named, by its URL."""
    return source.startswith(_SCHEMES)


def camera_number(source: str) -> str | None:
    """Return the number of the camera that `camera`, `camera:1` or, as in OpenCV, `1` names; None for other sources."""
    number = source.removeprefix("camera").removeprefix(":") if source != "camera" else "0"
    return number if number.isdecimal() and not Path(source).exists() else None


def shown(source: str) -> str:
    """Return a source as messages and files name it: without the name and password of a URL."""
    return _USER.sub("***@", source) if is_url(source) else source


def place(source: str) -> tuple[Any, dict[str, Any]]:
    """Return what PyAV opens, and its options."""
    if source == "-":
        return sys.stdin.buffer, {}
    if (number := camera_number(source)) is not None:
        if sys.platform == "darwin":
            return number, {"format": "avfoundation", "options": {"framerate": "30"}}
        if sys.platform == "win32":
            return f"video={number}", {"format": "dshow"}
        return f"/dev/video{number}", {"format": "v4l2"}
    if source.startswith("rtsp"):
        return source, {"options": {"rtsp_transport": "tcp"}}
    return source, {}


def result_name(source: str) -> str:
    """Return the name under which the results of a source are written."""
    if source == "-":
        return "stdin"
    if (number := camera_number(source)) is not None:
        return f"camera-{number}"
    return "stream" if is_url(source) else PurePath(source).stem
