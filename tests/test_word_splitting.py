"""How texts are split into words: by the rule, and as training data have it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modernbert.data.rows.table import Table
from modernbert.data.rows.tagged import TaggedColumns
from modernbert.errors import ConfigError
from modernbert.word_splitting import WordSplitting

TEXTS = (
    "Mr. Ada of the U.N. met Ben-Elissar 's aide , the U.S. envoy .",
    "Bob , of Acme Inc. , did n't come ; it 's late .",
    "They do n't pay C$ 5 -- says Acme Inc. .",
)
SENTENCES = [text.split() for text in TEXTS]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ben-Elissar don't, said A&T.", "Ben-Elissar|don't|,|said|A&T|."),
        ("The U.S.-led (U.N.) force.", "The|U.S.-led|(|U.N.|)|force|."),
        ("at 10:30, for 1,000.50$!", "at|10:30|,|for|1,000.50|$|!"),
        ("one--two; three...", "one|-|-|two|;|three|.|.|."),
        ('He said: "Yes".', 'He|said|:|"|Yes|"|.'),
        ("see https://a.org/b?c=1, please", "see|https://a.org/b?c=1|,|please"),
        ("e\u0301te\u0301 हिन्दी में।", "e\u0301te\u0301|हिन्दी|में|।"),
        ("東京へ行く", "東|京|へ|行|く"),
        ("iPhone\uff0ciPad、「Mac」", "iPhone|\uff0c|iPad|、|「|Mac|」"),
        ("ไป\u0e17\u0e35\u0e48", "ไ|ป|\u0e17\u0e35\u0e48"),
        ("hi❤\ufe0f 👩\u200d👧👍🏽 🇫🇷", "hi|❤\ufe0f|👩\u200d👧|👍🏽|🇫🇷"),
        ("  ", ""),
        ("", ""),
    ],
)
def test_the_rule(text: str, words: str) -> None:
    assert WordSplitting().words(text) == [word for word in words.split("|") if word]


def test_at_blanks() -> None:
    splitting = WordSplitting(at="blanks")
    assert splitting.words(" Paris,  (France) ") == ["Paris,", "(France)"]
    assert WordSplitting.learnt([["Paris,", "in", "(France)"], ["Rome!"]]) == splitting
    assert WordSplitting.learnt([["Paris", ","]], "blanks") == splitting


def test_learnt_from_words() -> None:
    splitting = WordSplitting.learnt(SENTENCES)
    assert splitting.at == "punctuation"
    assert set(splitting.endings) == {"'s", "n't"}
    assert {"Mr.", "Inc.", "C$", "--"} <= set(splitting.whole)
    natural = "Mr. Bob's aide doesn't like Acme Inc., a C$5 firm -- it's late."
    expected = "Mr. Bob 's aide does n't like Acme Inc. , a C$ 5 firm -- it 's late ."
    assert splitting.words(natural) == expected.split()
    for sentence in SENTENCES:
        assert splitting.words(" ".join(sentence)) == sentence


@pytest.mark.parametrize(
    ("sentences", "text", "words"),
    [
        ("Bob 's dog| it 's his", "Ada\u2019s, EUROPE'S", "Ada|\u2019s|,|EUROPE|'S"),
        ("it's his| it's hers| his 's| its 's", "it's Bob's", "it's|Bob's"),
        ("l' eau| l' Asie", "L\u2019Europe l'", "L\u2019|Europe|l'"),
        ("dit -il| dit -il", "répond-il", "répond|-il"),
        ("@ada #one hi @bob| @eve @joe", "@zoe, mail a@b", "@|zoe|,|mail|a@b"),
        ("@ada @bob| @eve @joe @tim @ 5", "@zoe, mail a@b", "@zoe|,|mail|a@b"),
        ("no !!! so ...| no !!! so ...", "oh!!!!! so...yes no..", "oh|!!!!!|so|...|yes|no|.|."),
        ("am 3. Mai| der 20. Mai und 17. Juni| die 2. Wahl", "am 14. Mai 12.", "am|14.|Mai|12|."),
        ("costs $5 and 7%| or $12 and 15%| not $80 and 20%", "for $23, 99%", "for|$23|,|99%"),
        ("see A. Ito| and B. Lee| and A. Lee", "Z. Day", "Z.|Day"),
    ],
)
def test_learnt_beyond_the_words_that_were_seen(sentences: str, text: str, words: str) -> None:
    learnt = WordSplitting.learnt([each.split() for each in sentences.split("|")])
    assert learnt.words(text) == words.split("|")


def test_a_mark_that_is_mostly_alone() -> None:
    sentences = [["New", "York", "-", "based"]] * 20 + [["e-mail"]] * 5 + [["a-b@c.org"]] * 9
    learnt = WordSplitting.learnt(sentences)
    assert learnt.words("Rome-based e-mail") == ["Rome", "-", "based", "e-mail"]


def test_words_of_one_character() -> None:
    splitting = WordSplitting.learnt([list("他去U.N.了"), list("在19年")])
    assert splitting == WordSplitting(at="characters")
    assert splitting.words("去 IBM 了") == list("去IBM了")


def test_marks_at_the_ends_of_spans() -> None:
    text = "The Rome-based Ben-Elissar."
    rows = [{"text": text, "entities": [[4, 8, "LOC"], [15, 26, "PER"]]}] * 2
    table = Table(source="rows", columns=("text", "entities"), rows=rows)
    columns = TaggedColumns.find(table, None, None)
    splitting = columns.splitting(table, "punctuation")
    assert splitting.apart == ("-",)
    words, tags = columns.read(table, splitting)[0]
    assert dict(zip(words, tags, strict=True))["Elissar"] == "I-PER"
    assert WordSplitting.learnt([words], apart=splitting.apart).words(text) == words


def test_what_mostly_stands_alone_is_split() -> None:
    sentences = [["Bob", "left", "."]] * 3 + [["Bob", "left."]]
    assert WordSplitting.learnt(sentences).words("He left.") == ["He", "left", "."]


def test_marks_that_stand_alone_in_the_data() -> None:
    sentences = [["New", "York", "-", "based", "10:30"]] * 20
    assert WordSplitting.learnt(sentences).words("Rome-based 9:15") == [
        "Rome",
        "-",
        "based",
        "9:15",
    ]
    assert WordSplitting.learnt(sentences[:5]).words("Rome-based") == ["Rome-based"]


def test_beginnings_and_a_script_without_blanks() -> None:
    french = WordSplitting.learnt([["l'", "Europe", "aujourd'hui"], ["l'", "eau"]])
    assert french.words("l'Asie, aujourd'hui") == ["l'", "Asie", ",", "aujourd'hui"]
    japanese = WordSplitting.learnt([["東京", "へ", "行く"]])
    assert japanese.words("東京へ行く。東へ") == ["東京", "へ", "行く", "。", "東", "へ"]


@given(
    st.lists(st.lists(st.text("ab.,'-$( é京", min_size=1, max_size=5), max_size=6), max_size=5),
    st.text("ab.,'-$( é京\u0301\n", max_size=30),
)
def test_words_of_any_text_are_in_order_and_hold_all_but_blanks(
    sentences: list[list[str]], text: str
) -> None:
    splitting = WordSplitting.learnt(sentences)
    end = 0
    for start, stop in splitting.spans(text):
        assert end <= start < stop
        assert not text[end:start].strip()
        assert text[start:stop].strip()
        end = stop
    assert not text[end:].strip()
    written = json.loads(json.dumps(splitting.published()))
    assert WordSplitting.from_published(written) == splitting


@pytest.mark.parametrize("published", [[], {"at": "commas"}, {"whole": ["a"]}, {"other": "a"}])
def test_what_a_config_may_not_say(published: Any) -> None:
    with pytest.raises(ConfigError, match=r"^word_splitting: "):
        WordSplitting.from_published(published)
