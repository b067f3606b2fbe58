"""Sentences of CoNLL files in their many shapes."""

from pathlib import Path

import pytest

from modernbert.data.rows.conll import is_conll
from modernbert.data.rows.tables import read_table
from modernbert.errors import DocumentError

EXPECTED = [
    {"tokens": ["EU", "rejects", "."], "tags": ["B-ORG", "O", "O"]},
    {"tokens": ["#", "Peter"], "tags": ["O", "B-PER"]},
]
FILES = {
    "blanks": "EU B-ORG\nrejects O\n. O\n\n# O\nPeter B-PER\n",
    "tabs": "EU\tB-ORG\nrejects\tO\n.\tO\n\n#\tO\nPeter\tB-PER",
    "several blanks": "EU  B-ORG\nrejects   O\n.  O \n\n\n#  O\nPeter  B-PER\n\n",
    "lines of tabs": "EU\tB-ORG\nrejects\tO\n.\tO\n\t\n#\tO\nPeter\tB-PER\n\t\t\n",
    "lines of blanks": "EU B-ORG\nrejects O\n. O\n  \n# O\nPeter B-PER\n",
    "documents": "-DOCSTART- -X-\n\nEU B-ORG\nrejects O\n. O\n\n-DOCSTART- O\n\n# O\nPeter B-PER\n",
    "a document alone": "-DOCSTART-\n\nEU B-ORG\nrejects O\n. O\n\n# O\nPeter B-PER\n",
    "comments": "# id = 5 a b\nEU B-ORG\nrejects O\n. O\n\n# a comment\n# O\nPeter B-PER\n",
    "line ends": "EU B-ORG\r\nrejects O\r\n. O\r\n\r\n# O\r\nPeter B-PER\r\n",
    "more columns": "EU NNP B-ORG\nrejects VBZ O\n. . O\n\n# NN O\nPeter NNP B-PER\n",
    "numbers": "1\tEU\tB-ORG\n2\trejects\tO\n3\t.\tO\n\n1\t#\tO\n2\tPeter\tB-PER\n",
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("name", ["a.conll", "a.txt", "a.bio", "a.tsv"])
def test_every_shape_gives_the_same_sentences(tmp_path: Path, case: str, name: str) -> None:
    (tmp_path / name).write_bytes(("\ufeff" + FILES[case]).encode())
    table = read_table(tmp_path / name)
    found = [{key: row[key] for key in ("tokens", "tags")} for row in table.rows]
    assert found == EXPECTED
    width = {"more columns": 3, "numbers": 3}.get(case, 2)
    words = 2 if case == "numbers" else 1
    told = f"{width} CoNLL columns, tokens in column {words} and tags in {width}"
    assert told in str(table)


def test_other_columns_are_named_by_number(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text(FILES["more columns"])
    assert read_table(tmp_path / "a.conll").values("2") == [["NNP", "VBZ", "."], ["NN", "NNP"]]


def test_conllu(tmp_path: Path) -> None:
    rows = [
        "# text = Vámonos ya",
        "1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\t_",
        "1\tVamos\tir\tVERB\t_\t_\t0\troot\t_\t_",
        "2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_",
        "2.1\tx\tx\tX\t_\t_\t_\t_\t_\t_",
        "3\tya\tya\tADV\t_\t_\t1\tadvmod\t_\t_",
    ]
    (tmp_path / "a.conllu").write_text("\n".join(rows) + "\n")
    (row,) = read_table(tmp_path / "a.conllu").rows
    assert row["tokens"] == ["Vamos", "nos", "ya"]
    assert row["tags"] == ["VERB", "PRON", "ADV"]
    assert row["deprel"] == ["root", "obj", "advmod"]


def test_a_word_without_a_tag_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("EU B-ORG\nrejects\n. O\n")
    with pytest.raises(DocumentError, match=r"a\.conll, line 2: .*got 1, expected 2"):
        read_table(tmp_path / "a.conll")


def test_names_in_brackets_are_refused(tmp_path: Path) -> None:
    rows = "#begin document (a); part 000\na 0 0 We PRP * (PERSON) -\na 0 1 go VBP * * -\n"
    (tmp_path / "a.conll").write_text(rows)
    with pytest.raises(DocumentError, match=r"line 1: CoNLL-2012 .*a word and its tag a line"):
        read_table(tmp_path / "a.conll")


@pytest.mark.parametrize("text", ["a fine day\n", "text\tlabel\nx\tO\n", "", "word\n\nword\n"])
def test_what_is_not_conll(text: str) -> None:
    assert not is_conll(text)
