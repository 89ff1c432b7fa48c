import os
import stat

import pytest

from segkc_deploy import atomic


def test_text_is_written_as_utf8_into_folders_that_are_made(tmp_path):
    target = tmp_path / "a" / "b" / "note.txt"
    atomic.write_text(target, "größe\n")
    assert target.read_bytes() == b"gr\xc3\xb6\xc3\x9fe\n"
    assert [path.name for path in target.parent.iterdir()] == ["note.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "weights.bin"
    atomic.write_bytes(target, b"old")
    with pytest.raises(RuntimeError, match="half way"), atomic.atomic_path(target) as temporary:
        temporary.write_bytes(b"ne")
        raise RuntimeError("half way")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_in_place_of_the_file_is_named(tmp_path):
    (tmp_path / "scores.json").mkdir()
    with pytest.raises(IsADirectoryError) as error:
        atomic.write_text(tmp_path / "scores.json", "{}")
    assert error.value.filename == str(tmp_path / "scores.json")


def test_the_target_is_untouched_until_the_end_and_the_suffix_is_kept(tmp_path):
    target = tmp_path / "image.png"
    atomic.write_bytes(target, b"old")
    with atomic.atomic_path(target) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".png"
        assert temporary.parent == target.parent
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_permissions_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        atomic.write_bytes(tmp_path / "file", b"")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
