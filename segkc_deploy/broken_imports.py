"""Packages that are installed and cannot be imported: a missing system library, or wheels for another CUDA."""

import re

_LIBRARY = re.compile(r"(\S+?\.so[\d.]*): cannot open shared object file|DLL load failed while importing (\w+)")

#: What to do, by what the missing library's name begins with.
_FIXES = {
    ("libGL", "libgthread", "libglib", "libSM", "libXext", "libXrender", "libxcb"): (
        "OpenCV needs it for windows, which this package never opens: `pip uninstall -y opencv-python; pip install"
        " --force-reinstall opencv-python-headless`, or install the system packages libgl1 and libglib2.0-0"
    ),
    ("libcudart", "libcublas", "libcudnn", "libcufft", "libcurand", "libnvrtc"): (
        "an installed wheel is built for a CUDA that is not here; install the one that fits, or on a CPU `pip uninstall"
        " -y onnxruntime-gpu; pip install onnxruntime` (docs/install.md, GPUs)"
    ),
    ("libnvinfer",): "TensorRT's libraries are not here; `segkc-deploy doctor` says how to install them",
}


def explain(error: ImportError) -> str | None:
    """Return one line with the fix for a package whose system library is missing; None for any other ImportError."""
    found = _LIBRARY.search(str(error))
    if found is None:
        return None
    library = found[1] or found[2]
    for beginnings, fix in _FIXES.items():
        if library.startswith(beginnings):
            return f"{library} is missing: {fix}"
    return f"{library} is missing, which {error.name or 'an installed package'} needs: install it or the package again"
