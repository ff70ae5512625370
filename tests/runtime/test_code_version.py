import pytest

from runtime import code_version


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A small tree: stage.py imports maths.py; speed.py is not imported."""
    folder = tmp_path / "crop"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "config.py").write_text("LIMIT = 1\n")
    (folder / "stage.py").write_text(
        '"""Doc."""\nfrom crop import config\nfrom crop.maths import f\n\ny = f(1)\n'
    )
    (folder / "maths.py").write_text("def f(x):\n    return x\n")
    (folder / "speed.py").write_text("A = 1\n")
    monkeypatch.setattr(code_version, "ROOT", tmp_path)

    def digest():
        for cached in (code_version._tree, code_version._imports, code_version._tree_digest):
            cached.cache_clear()
        return code_version.code_digest("crop.stage")

    yield folder, digest
    for cached in (code_version._tree, code_version._imports, code_version._tree_digest):
        cached.cache_clear()


def test_code_changes_count_also_in_imported_modules(package):
    folder, digest = package
    before = digest()
    (folder / "maths.py").write_text("def f(x):\n    return x + 1\n")
    assert digest() != before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("maths.py", '# why\n"""Module."""\n\n\ndef f(x):\n    # comment\n    return x\n'),
        ("maths.py", 'def f(x):\n    """Return x."""\n    return x\n'),
        ("speed.py", "A = 2\n"),
        ("config.py", "LIMIT = 2\n"),
    ],
)
def test_comments_docstrings_and_other_modules_do_not_count(package, name, text):
    folder, digest = package
    before = digest()
    (folder / name).write_text(text)
    assert digest() == before


def test_unknown_module():
    with pytest.raises(ModuleNotFoundError):
        code_version.code_digest("crop.no_such_module")
