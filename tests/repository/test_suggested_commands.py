"""Commands that messages name can be typed as they are, whatever the paths in them are called."""

import ast
import re
import shlex
from pathlib import Path

from test_architecture import ROOT, modules

from segkc_deploy.invocation import suggested_command

#: A command of ours in an f-string, a value of which stands before the command's end.
_UNQUOTED = re.compile(r"segkc-deploy [a-z][a-z-]+ [^`\n]*\{\}")


def text_of(node: ast.JoinedStr) -> str:
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def test_words_come_back_as_they_were() -> None:
    words = ["predict", Path("my runs/it's $new.onnx"), "--source", "photos", "-o", "validation.window=[32, 32]"]
    assert shlex.split(suggested_command(*words)) == ["segkc-deploy", *map(str, words)]
    assert suggested_command("export", Path("runs/a"), "--batch", 4) == "segkc-deploy export runs/a --batch 4"


def test_no_message_writes_a_path_into_a_command_without_quoting_it() -> None:
    found = [
        f"{name} line {node.lineno}: {text_of(node)}"
        for name, path in modules(ROOT)
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.JoinedStr) and _UNQUOTED.search(text_of(node))
    ]
    assert found == [], "use suggested_command"
