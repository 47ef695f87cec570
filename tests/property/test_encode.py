"""Ids of generated strings equal those of independent libraries.

Llama-2 against sentencepiece and tokenizers, Llama-3 against tiktoken and
tokenizers, each from both of our file formats. Where the libraries differ from
each other, the first one counts and the string is listed.
"""

import base64
import json
import os
import random
import shutil
import sys
import unicodedata

import pytest

import oracle
import texts

SEED = 20261123
QUICK, LONG = 2_000, 100_000
SHOWN = 10

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def plain_tokenizers(path):
    """The tokenizers library without its added tokens: names are text."""
    import tokenizers
    description = json.loads(path.read_text(encoding="utf-8"))
    description["added_tokens"] = []
    description["post_processor"] = None
    made = tokenizers.Tokenizer.from_str(json.dumps(description))
    return lambda batch: [e.ids for e in made.encode_batch(
        batch, add_special_tokens=False)]


def sentencepiece_of(path):
    import sentencepiece
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return lambda batch: [processor.encode(text) for text in batch]


def tiktoken_of(path, pattern):
    import tiktoken
    ranks = {}
    for line in path.read_text().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    encoding = tiktoken.Encoding("llama-3", pat_str=pattern,
                                 mergeable_ranks=ranks, special_tokens={})
    return lambda batch: [encoding.encode_ordinary(text) for text in batch]


class Vocabulary:
    """One published vocabulary: our formats, the libraries, its pieces."""

    def __init__(self, name, folder, scratch):
        self.name = name
        self.formats = {}
        for file in ("tokenizer.model", "tokenizer.json"):
            directory = scratch / f"{name}-{file}"
            directory.mkdir()
            shutil.copy(folder / file, directory / file)
            self.formats[f"{name} {file}"] = directory
        description = json.loads(
            (folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocab = description["model"]["vocab"]
        if name == "llama-2":
            self.pieces = [piece.replace("▁", " ") for piece in vocab]
            first = sentencepiece_of(folder / "tokenizer.model")
        else:
            self.pieces = pieces_of_ranks(folder / "tokenizer.model")
            special = json.loads((folder / "special_tokens.json").read_text())
            first = tiktoken_of(folder / "tokenizer.model",
                                special["pattern"])
        self.libraries = [first, plain_tokenizers(folder / "tokenizer.json")]


def pieces_of_ranks(path):
    pieces = []
    for line in path.read_text().splitlines():
        try:
            pieces.append(base64.b64decode(line.split()[0]).decode("utf-8"))
        except UnicodeDecodeError:
            pass
    return pieces


def compare(vocabulary, strings):
    """Asserts equal ids, and returns the strings the libraries differ on."""
    first, second = (library(strings) for library in vocabulary.libraries)
    disputed = [s for s, a, b in zip(strings, first, second) if a != b]
    for name, directory in vocabulary.formats.items():
        rows = [{"op": "tokenizer", "name": name, "path": str(directory)}]
        rows += [{"op": "encode", "tokenizer": name, "text": s}
                 for s in strings]
        ours = oracle.answers(rows)[1:]
        wrong = [(s, expected, answer)
                 for s, expected, answer in zip(strings, first, ours)
                 if answer.get("ids") != expected]
        for text, expected, answer in wrong[:SHOWN]:
            print(f"{name}: {text!a}\n  expected {expected}\n  got {answer}")
        assert not wrong, f"{name}: {len(wrong)} of {len(strings)} differ"
    for text in disputed[:SHOWN]:
        print(f"{vocabulary.name}: the libraries differ on {text!a}")
    return disputed


def later_characters():
    """Code points that were assigned after this Python's Unicode."""
    import regex
    assigned = regex.compile(r"\P{Cn}")
    return [code for code in range(sys.maxunicode + 1)
            if unicodedata.category(chr(code)) == "Cn"
            and assigned.match(chr(code))]


def as_ranges(codes):
    ranges = []
    for code in codes:
        if ranges and ranges[-1][1] + 1 == code:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return ", ".join(f"{a:X}" if a == b else f"{a:X}-{b:X}"
                     for a, b in ranges)


def run(name, count, data, scratch):
    vocabulary = Vocabulary(name, data / "tokenizers" / name, scratch)
    generator = texts.Texts(SEED, vocabulary.pieces)
    strings = [""] + [generator.next() for _ in range(count - 1)]
    disputed = compare(vocabulary, strings)
    characters = sum(map(len, strings))
    print(f"{name}: {count} strings, {characters} characters, equal ids from "
          f"{len(vocabulary.formats)} formats; the libraries differ from each "
          f"other on {len(disputed)}")


@pytest.mark.parametrize("name", ["llama-2", "llama-3"])
def test_ids_equal_those_of_the_libraries(name, data, tmp_path):
    run(name, QUICK, data, tmp_path)


@pytest.mark.parametrize("name", ["llama-2", "llama-3"])
def test_later_characters_are_cut_as_the_libraries_agree(name, data, tmp_path):
    vocabulary = Vocabulary(name, data / "tokenizers" / name, tmp_path)
    codes = later_characters()
    strings = {code: [f"a{chr(code)}b", f"1{chr(code)}2", f"x {chr(code)}'s",
                      f".{chr(code)}\n"] for code in codes}
    agreed, disputed = [], []
    for code in codes:
        first, second = (library(strings[code])
                         for library in vocabulary.libraries)
        (agreed if first == second else disputed).append(code)
    compare(vocabulary, [s for code in agreed for s in strings[code]])
    print(f"{name}: {len(agreed)} later characters are cut alike; the "
          f"libraries differ on {len(disputed)}: {as_ranges(disputed)}")


VISIBLE_SPACE = "\u2581"
PREPEND = {"type": "Prepend", "prepend": VISIBLE_SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "},
           "content": VISIBLE_SPACE}
LLAMA_2 = {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}


def metaspace(scheme):
    return {"type": "Metaspace", "replacement": VISIBLE_SPACE,
            "prepend_scheme": scheme, "split": False}


def with_added_tokens(normalizer, pre_tokenizer):
    """A tokenizer.json whose added tokens are of every kind."""
    pieces = ["<unk>", VISIBLE_SPACE, "a", "b", "c", "X", "<", ">", "n",
              VISIBLE_SPACE + "a", "ab", "\n", " ", "_"]
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized",
                           "special"], False)
    added = [{"id": 14, "content": "<n>", "normalized": True},
             {"id": 15, "content": "<r>"},
             {"id": 5, "content": "X", "normalized": True,
              "single_word": True},
             {"id": 16, "content": "X c", "normalized": True},
             {"id": 17, "content": "<l>", "normalized": True, "lstrip": True,
              "rstrip": True},
             {"id": 18, "content": "a<r>", "normalized": True}]
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{**flags, **token} for token in added],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
        "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>",
                  "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False,
                  "vocab": {piece: i for i, piece in enumerate(pieces)},
                  "merges": [f"{VISIBLE_SPACE} a", "a b"]}})


@pytest.mark.parametrize("pre_tokenizer", [None, "first", "always"])
@pytest.mark.parametrize("normalizer", [None, REPLACE, LLAMA_2],
                         ids=["none", "replace", "llama-2"])
def test_added_tokens_are_found_as_in_the_library(normalizer, pre_tokenizer,
                                                  tmp_path):
    import tokenizers
    description = with_added_tokens(
        normalizer, pre_tokenizer and metaspace(pre_tokenizer))
    (tmp_path / "tokenizer.json").write_text(description, encoding="utf-8")
    library = tokenizers.Tokenizer.from_str(description)
    chance = random.Random(SEED)
    parts = ["<n>", "<r>", "X", "X c", "<l>", "a<r>", "a", "b", "c", " ",
             "  ", "\n", "ab", VISIBLE_SPACE, "_", "."]
    strings = ["".join(chance.choices(parts, k=chance.randint(0, 9)))
               for _ in range(QUICK)]
    rows = [{"op": "tokenizer", "name": "added", "path": str(tmp_path)}]
    rows += [{"op": "encode", "tokenizer": "added", "text": s}
             for s in strings]
    ours = oracle.answers(rows)[1:]
    wrong = [(text, encoded.ids, answer) for text, encoded, answer in zip(
        strings, library.encode_batch(strings, add_special_tokens=False), ours)
        if answer.get("ids") != encoded.ids]
    assert not wrong, f"{len(wrong)} differ, as {wrong[:SHOWN]!a}"


@pytest.mark.long
@pytest.mark.parametrize("name", ["llama-2", "llama-3"])
def test_ids_equal_those_of_the_libraries_at_length(name, data, tmp_path):
    run(name, LONG, data, tmp_path)
