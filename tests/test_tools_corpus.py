"""The opt-in corpus script: extraction on tiny inputs, selection, what it refuses. Nothing is downloaded."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

from mixplan.documents import CalibrationSpec, load
from mixplan.errors import InputError

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

import assemble_corpus as corpus  # noqa: E402
import corpus_text as text  # noqa: E402


def test_html_keeps_visible_text_and_preformatted_lines() -> None:
    page = (
        "<html><head><title>no</title><style>p {}</style></head><body><h1>A &amp; B</h1>\n"
        "<p>one\n  two <b>three</b></p><script>x()</script><pre>a\n  b</pre></body></html>"
    )
    assert text.html_text(page) == "A & B\n\none two three\n\na\n  b"


def test_roff_keeps_words_and_drops_requests() -> None:
    page = (
        '.\\" a comment\n.TH LS 1 "Sept"\n.SH NAME\nls \\- list \\fIdirectory\\fP contents\n.PP\n'
        '.BR \\-a ", " \\-\\-all\n.nf\nback\\e slash\\(aqs\n.br\nend \\" remark\n'
    )
    expected = "NAME\nls - list directory contents\n\n-a, --all\nback\\ slash's\nend"
    assert text.roff_text(page) == expected


def test_dictionary_entries_are_cut_by_the_index_once_each() -> None:
    data = "About.Änderung\n  a change\nzebra\n  an animal\n".encode()
    start, second = 6, data.index(b"zebra")
    index = f"00-database-info\tA\tG\nänderung\t{_digits(start)}\t{_digits(second - start)}\n" + (
        f"zebra\t{_digits(second)}\t{_digits(len(data) - second)}\nzebras\t{_digits(second)}\t"
        f"{_digits(len(data) - second)}\n"
    )
    assert list(text.dict_entries(data, index)) == ["Änderung\n  a change", "zebra\n  an animal"]
    with pytest.raises(ValueError, match="the data has"):
        list(text.dict_entries(data, "far\tA\tBAA\n"))


def test_metamath_statements_come_with_their_comment_and_proof() -> None:
    database = (
        "$c wff $.\n$( An axiom. $) ax-1 $a |- ph $.\n"
        "$( Identity. $)\n  id $p |- ( ph -> ph ) $=\n    ( wi ax-1 ) ABC $.\nidi $p |- ph $= ? $.\n"
    )
    assert list(text.metamath_statements(database)) == [
        "$( Identity. $)\n  id $p |- ( ph -> ph ) $=\n    ( wi ax-1 ) ABC $.",
        "idi $p |- ph $= ? $.",
    ]


def test_verses_become_chapters_without_references() -> None:
    lines = ["Ge1:1 In the beginning", "Ge1:2 And the earth", "", "Ge2:1 Thus", "1Ki1:1 Now king David"]
    assert list(text.verses_by_chapter(lines)) == [
        "In the beginning\nAnd the earth",
        "Thus",
        "Now king David",
    ]


def test_groups_hold_every_piece_once() -> None:
    pieces = ["aaaa", "bb", "cc", "dddddd", "e"]
    assert list(text.grouped(pieces, 4)) == ["aaaa", "bb\n\ncc", "dddddd", "e"]


def test_choice_depends_on_content_alone_and_keeps_the_cap() -> None:
    texts = [f"{n} " * 200 for n in range(30)]
    chosen = corpus.first_bytes(corpus.distinct_texts(texts), 5000)
    again = corpus.first_bytes(corpus.distinct_texts([*reversed(texts), texts[3], "a stub"]), 5000)
    assert chosen == again
    assert sum(map(len, chosen)) <= 5000 < sum(map(len, chosen)) + 800
    assert chosen == sorted(chosen, key=lambda t: hashlib.sha256(t).digest())


def test_domain_is_written_once_and_again_when_the_cap_changes(tmp_path: Path) -> None:
    calls = []

    def extract(_: Path) -> list[str]:
        calls.append(1)
        return [f"document {n} " * 40 for n in range(10)]

    def make(cap: int) -> dict:
        return corpus.make_domain(tmp_path, "toy", [], cap, extract, _Words())

    facts = make(10**6)
    files = sorted((tmp_path / "toy").glob("*.txt"))
    assert facts["files"] == len(files) == 10
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    assert facts["tokens"] == 10 * 80
    assert make(10**6) == facts and len(calls) == 1
    smaller = make(2000)
    assert len(calls) == 2 and smaller["files"] == len(list((tmp_path / "toy").glob("*.txt"))) < 10
    with pytest.raises(InputError, match="no text in"):
        make(100)


def test_refuses_the_repository_and_names_missing_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus.shutil, "which", lambda tool: None)
    with pytest.raises(InputError) as caught:
        corpus.check(TOOLS.parent / "corpus")
    assert len(caught.value.problems) == 2
    assert "lies in the repository" in caught.value.problems[0]
    assert "apt-get, apt-cache, dpkg not found" in caught.value.problems[1]


def test_a_failing_command_says_what_it_said() -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('no such package')"]
    with pytest.raises(InputError, match=r"failed with 1: no such package; try again"):
        corpus.run(failing, hint="try again")
    with pytest.raises(InputError, match="cannot be started"):
        corpus.run(["/nonexistent/apt-get"])


def test_wheel_and_licence_facts_are_read_from_the_packages(tmp_path: Path) -> None:
    wheel = tmp_path / "ai2_olmo-0.6.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("ai2_olmo-0.6.0.dist-info/METADATA", "Name: x\nLicense: Apache-2.0\n\nLicense: no")
    facts = corpus.wheel_facts(wheel)
    assert facts["licences_named"] == ["Apache-2.0"]
    assert facts["sha256"] == hashlib.sha256(wheel.read_bytes()).hexdigest()
    deb = tmp_path / "toy_1%3a2_all.deb"
    deb.write_bytes(b"deb")
    unpacked = tmp_path / "unpacked" / "usr" / "share" / "doc" / "toy"
    unpacked.mkdir(parents=True)
    (unpacked / "copyright").write_text("Files: *\nLicense: GPL-2\nLicense: CC0-1.0\nLicense: GPL-2\n")
    corpus.keep_licence(tmp_path / "unpacked", deb, tmp_path / "licences")
    told = corpus.deb_facts(deb, tmp_path / "licences")
    assert (told["version"], told["licences_named"]) == ("1:2", ["CC0-1.0", "GPL-2"])


def test_the_calibrations_are_valid_and_name_the_domains_that_are_made() -> None:
    for path in (TOOLS / "corpus_calibrations").glob("*.yaml"):
        spec = load(path, CalibrationSpec)
        used = [*spec.corpus.paths, *(p for source in spec.user_sources for p in source.data.paths)]
        assert sorted(used) == sorted(corpus.DOMAINS)
        assert {source.name for source in spec.user_sources} == {"formal", "kjv"}


class _Words:
    """A tokenizer of words."""

    def encode(self, text: str, add_special_tokens: bool) -> object:
        assert not add_special_tokens
        return type("Encoding", (), {"ids": re.findall(r"\S+", text)})


def _digits(value: int) -> str:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return (_digits(value // 64) if value >= 64 else "") + alphabet[value % 64]


def test_tokenizer_folder_has_what_the_loader_needs(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"a": 0, corpus.END_OF_DOCUMENT: 1}, unk_token="a"))
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(corpus.TOKENIZER_FILE, words.to_str())
    assert corpus.take_tokenizer(wheel, tmp_path / "dolma2").get_vocab_size() == 2
    from mixplan.calibrate.vocabulary import vocabulary
    from mixplan.documents.calibration_spec import Tokenizer as Described

    found = vocabulary(Described(kind="huggingface", path="dolma2"), tmp_path)
    assert (found.size, found.end_of_document_id) == (2, 1)
    named = json.loads((tmp_path / "dolma2" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert named["eos_token"] == corpus.END_OF_DOCUMENT
