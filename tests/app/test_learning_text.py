"""The text of the learning experiment: what is held out shares nothing with what is learned from."""

from __future__ import annotations

import numpy as np
import pytest

from socket_theory.evaluate.learning.text import ALPHABET, encode, split, standard_library

COPY = "a paragraph that two documents have in common, word for word"


def test_a_tenth_of_the_documents_is_held_out_by_name_alone() -> None:
    names = [f"document {n}" for n in range(300)]
    some = split(dict.fromkeys(names, "text"), "3")
    assert 15 <= len(some.held_out) <= 45
    fewer = split(dict.fromkeys(names[:200], "other"), "3")
    assert set(fewer.held_out) == set(some.held_out) & set(names[:200])


def test_the_order_of_the_documents_does_not_matter() -> None:
    documents = {f"document {n}": f"text {n}" for n in range(40)}
    assert split(documents, "3") == split(dict(reversed(documents.items())), "3")


def test_copies_of_what_is_held_out_are_not_learned_from() -> None:
    documents = {f"document {n}": f"first {n}\n\n    {COPY}\n\nlast {n}" for n in range(40)}
    made = split(documents, "3")
    assert made.held_out
    assert COPY in made.validation
    assert COPY not in made.training
    kept = [n for n in range(40) if f"document {n}" not in made.held_out]
    assert all(f"first {n}\n\nlast {n}" in made.training for n in kept)


def test_documents_without_one_held_out_are_refused() -> None:
    with pytest.raises(ValueError, match="1 of 1 documents are held out: pass more documents"):
        split({"document 1": "text"}, "3")


def test_pythons_own_text_is_long_and_its_parts_have_no_long_paragraph_in_common() -> None:
    made = standard_library()
    assert made == standard_library()
    assert len(made.training) > 4_000_000
    assert len(made.validation) > 100_000
    paragraphs = ({" ".join(part.split()) for part in text.split("\n\n")} for text in (made.training, made.validation))
    learned, judged = ({part for part in each if len(part) >= 40} for each in paragraphs)
    assert not learned & judged
    told = made.record()
    assert told["validation_characters"] == len(made.validation)
    assert len(str(told["training_sha256"])) == 64


def test_every_character_has_a_code_and_those_outside_the_alphabet_have_one_in_common() -> None:
    assert encode(ALPHABET).tolist() == list(range(len(ALPHABET)))
    assert (encode("\té\U0001f600\ud800") == len(ALPHABET)).all()
    assert encode("ab").dtype == np.uint8
