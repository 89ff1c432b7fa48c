"""Which kind of file holds a video's sound as it is."""

import io
from typing import Any, Literal

#: Sound that players play in MP4. Not AC-3: with it, MP4's header is complete only after the first pictures, and a
#: video whose process was killed before could not be told from somebody else's file.
_MP4 = frozenset({"aac", "mp3", "opus", "flac", "alac"})


def codec_name(audio: Any) -> str:
    """Return the name of an audio stream's codec, whichever decoder reads it."""
    if audio.codec_context is None:
        return "an unknown codec"
    return str(audio.codec_context.codec.canonical_name)


def sound_container(audio: Any) -> Literal["mp4", "mkv"] | None:
    """Return which file the packets of an audio stream are copied into; None where neither holds them."""
    if audio.codec_context is None:
        return None
    name = codec_name(audio)
    # AAC of MPEG-TS has a header in each packet and none for the file, which MP4 needs; Matroska's writer makes it.
    is_adts = name == "aac" and not audio.codec_context.extradata
    if name in _MP4 and not is_adts and _holds("mp4", audio):
        return "mp4"
    return "mkv" if _holds("matroska", audio) else None


def _holds(container_format: str, audio: Any) -> bool:
    """Whether a file of this format can begin with the stream."""
    import av

    options = {"movflags": "empty_moov"} if container_format == "mp4" else {}
    try:
        with av.open(io.BytesIO(), "w", format=container_format, container_options=options) as container:
            container.add_stream_from_template(audio)
            container.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True
