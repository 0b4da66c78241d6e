"""The prose is plain: the mechanical part of the house style, over the documentation and every docstring.

A sentence has at most 30 words, and contains none of the phrases in ``prose_banned.txt``. It does not begin as
:data:`BEGINNING` forbids, unless it is a question. Code, tables, headings and URLs are left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

markdown_it = pytest.importorskip("markdown_it", reason="it comes with the extra docs")
deflist = pytest.importorskip("mdit_py_plugins.deflist", reason="it comes with the extra docs")

ROOT = Path(__file__).resolve().parent.parent
BANNED_FILE = Path(__file__).with_name("prose_banned.txt")
MOST_WORDS = 30

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if not path.relative_to(ROOT).parts[1].startswith("_")),
]
MODULES = [path for folder in ("fsm", "persistence", "tests", "docs") for path in sorted((ROOT / folder).rglob("*.py"))]

CODE = "CODE"
"""Stands for a piece of code in a sentence: one word."""

MARKDOWN = markdown_it.MarkdownIt("commonmark").enable("table").use(deflist.deflist_plugin)


class Prose(NamedTuple):
    """A block of prose, or one sentence of it, with the number of its first line in the file."""

    line: int
    text: str


# Reading a page


def blocks_of_page(text: str) -> Iterator[Prose]:
    """Yield the paragraphs and list items of a page in Markdown; leave out headings, tables, code and HTML."""
    skipped = None
    for token in MARKDOWN.parse(text):
        if skipped is None and token.type in {"heading_open", "table_open", "dt_open"}:
            skipped = token.type.replace("open", "close")
        elif token.type == skipped:
            skipped = None
        elif skipped is None and token.type == "inline":
            yield Prose(token.map[0] + 1, words_of(token))
        elif token.type == "fence" and token.info == "{glossary}":
            definitions = re.sub(r"^\S.*", "", token.content, flags=re.MULTILINE)
            yield from (Prose(token.map[0] + 1 + block.line, block.text) for block in blocks_of_page(definitions))


def words_of(inline: object) -> str:
    """Return the words of a paragraph; a piece of code, with the role before it, becomes one word."""
    pieces = []
    for child in inline.children:  # type: ignore[attr-defined]
        if child.type == "code_inline":
            pieces.append(CODE)
        elif child.type == "text":
            pieces.append(child.content)
        elif child.type in {"softbreak", "hardbreak"}:
            pieces.append("\n")
    return re.sub(r"\{[\w:]+\}(?=CODE)", "", "".join(pieces))


# Reading a module

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note):$")
ITEM = re.compile(r"^[\w*`~.:(), ]{1,80}?: (?=\S)")
BULLET = re.compile(r"^([*-]|\d+\.) ")


def blocks_of_module(text: str) -> Iterator[Prose]:
    """Yield the paragraphs of every docstring of a module, those of attributes among them."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from blocks_of_docstring(node.value.value, node.lineno)


def blocks_of_docstring(docstring: str, first_line: int) -> Iterator[Prose]:
    """Yield the paragraphs, bullets and items of a docstring; leave out examples, literal blocks and tables."""
    lines: list[str] = []
    begun = indent_begun = literal_indent = 0
    item_indent = None
    is_skipped = is_literal = False
    for number, raw in enumerate([*docstring.splitlines(), ""], first_line):
        line, indent = raw.strip(), len(raw) - len(raw.lstrip())
        is_example = line.startswith(">>>") or re.fullmatch(r"={3,}[= ]*", line) is not None
        section = SECTION.match(line)
        is_item = item_indent == indent or BULLET.match(line)
        if lines and (not line or is_example or section or is_item):
            yield Prose(begun, "\n".join(lines))
            is_literal, literal_indent = lines[-1].endswith("::"), indent_begun
            lines = []
        is_skipped = bool(line) and (is_skipped or is_example)
        is_literal = is_literal and (not line or indent > literal_indent)
        if section:
            item_indent = indent + 4 if section[1] in {"Args", "Attributes", "Raises"} else None
        elif line and not is_skipped and not is_literal:
            if item_indent is not None and indent < item_indent:
                item_indent = None
            if not lines:
                begun, indent_begun = number, indent
                line = BULLET.sub("", ITEM.sub("", line, count=1) if item_indent == indent else line, count=1)
            lines.append(plain(line))


def plain(line: str) -> str:
    """Return a line of a docstring without markup: code becomes one word."""
    line = re.sub(r"``.+?``|(?::[\w:]+:)?`[^`]+`", CODE, line)
    return line.replace("*", "")


# Judging

ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|vs|cf)\.$")


def sentences_of(block: Prose) -> Iterator[Prose]:
    """Yield the sentences of a block; a URL is one word."""
    text = re.sub(r"https?://[^\s)>]+", CODE, block.text)
    start = 0
    for end in [*re.finditer(r"[.!?…][^\w\s]*(?=\s|$)", text), None]:
        stop = len(text) if end is None else end.end()
        if end is not None and ABBREVIATION.search(text[:stop]):
            continue
        piece = text[start:stop]
        if piece.strip():
            skipped = len(piece) - len(piece.lstrip())
            yield Prose(block.line + text.count("\n", 0, start + skipped), " ".join(piece.split()))
        start = stop


BANNED = [
    (re.compile(rf"(?<!\w)(?:{phrase})(?!\w)", re.IGNORECASE), advice)
    for phrase, _, advice in (line.partition(" → ") for line in BANNED_FILE.read_text(encoding="utf-8").splitlines())
    if advice
]
"""The phrases of the file, each as a pattern, and the words to write instead."""

BEGINNING = re.compile(r"\W*(What|Whoever|Those who|That which)\b")


def faults_of(sentence: str) -> Iterator[str]:
    """Yield the rules that a sentence breaks."""
    words = [word for word in sentence.split() if re.search(r"\w", word)]
    if len(words) > MOST_WORDS:
        yield f"it has {len(words)} words; write at most {MOST_WORDS}"
    begins = BEGINNING.match(sentence)
    if begins and not re.search(r"\?\W*$", sentence):
        yield f"it begins with {begins[1]!r}; begin with the thing itself"
    for pattern, advice in BANNED:
        found = pattern.search(sentence)
        if found:
            yield f"it contains {found[0]!r}; write: {advice}"


@pytest.mark.parametrize("path", [*PAGES, *MODULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_prose_of_a_file_is_plain(path: Path) -> None:
    read = blocks_of_page if path.suffix == ".md" else blocks_of_module
    complaints = [
        f"\n{path.relative_to(ROOT)}:{sentence.line}: {fault}\n    {sentence.text}"
        for block in sorted(read(path.read_text(encoding="utf-8")))
        for sentence in sentences_of(block)
        for fault in faults_of(sentence.text)
    ]
    assert not complaints, "".join(complaints)


# The rules find something, and only where they should


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("What is skipped says why.", "begins with 'What'"),
        ("Whoever leads others is held off by no cancellation: a group waits for its tasks.", "begins with 'Whoever'"),
        ("Those who wait go next.", "begins with 'Those who'"),
        ("That which is dead stays.", "begins with 'That which'"),
        ("It is resumed by whoever comes first.", "contains 'whoever'"),
        ("It has no such method of its own.", "contains 'of its own'"),
        ("What it may do besides?", "contains 'besides'"),
        ("The way of a step was written anew.", "contains 'anew'"),
        ("It resumes a dead session for ever.", "contains 'for ever'"),
        ("The commit runs to its end all the same.", "contains 'all the same'"),
        ("A message without blocks is no message.", "contains 'is no message'"),
        ("Ids that were buried stay so.", "contains 'buried'"),
        ("A neighbour commits it.", "contains 'neighbour'"),
        ("Nobody waits for company.", "contains 'company'"),
        ("A shorter history makes room.", "contains 'room'"),
        ("A ghost of the turn is left.", "contains 'ghost'"),
        ("It is refused at the door.", "contains 'at the door'"),
        ("A turn should cost what the database costs: " + "each number is a median, " * 5 + "so it varies.", "words"),
    ],
)
def test_a_rule_finds_its_fault(sentence: str, fault: str) -> None:
    assert any(fault in found for found in faults_of(sentence))


def test_every_banned_phrase_has_an_example_that_is_found() -> None:
    (examples,) = (mark.args[1] for mark in test_a_rule_finds_its_fault.pytestmark)
    unproven = [pattern.pattern for pattern, _ in BANNED if not any(pattern.search(text) for text, _ in examples)]
    assert not unproven


@pytest.mark.parametrize(
    "sentence",
    [
        "What happens to the old session?",
        "There is no clock and no randomness in there.",
        "A closed store is no longer usable.",
    ],
)
def test_a_plain_sentence_passes(sentence: str) -> None:
    assert not list(faults_of(sentence))


def test_only_the_prose_of_a_page_is_read() -> None:
    page = """# What is stored besides

| what | whoever |
|---|---|
| What is told | anew |

Read `whoever` and {py:class}`~fsm.Anew`, or https://example.org/anew.
It is
one page. A second sentence: e.g. this one.

```sh
whoever --anew
```

- a [link](anew.md) in an item

term
: what it means

```{glossary}
term
  It means this.
```
"""
    found = [sentence for block in blocks_of_page(page) for sentence in sentences_of(block)]
    assert found == [
        (7, "Read CODE and CODE, or CODE It is one page."),
        (9, "A second sentence: e.g. this one."),
        (15, "a link in an item"),
        (18, "what it means"),
        (22, "It means this."),
    ]


def test_only_the_prose_of_a_docstring_is_read() -> None:
    module = '''"""Read ``whoever`` and :class:`Anew`.

States are these::

    fresh    whoever

=====  ====
What   anew
=====  ====

* a *short* bullet
  of two lines

Args:
    key: the conversation. It
        is text.
    other, third: two of them.

Returns:
    A value.

>>> whoever
anew
"""

LIMIT = 1
"""A limit."""
'''
    found = [sentence for block in blocks_of_module(module) for sentence in sentences_of(block)]
    assert found == [
        (1, "Read CODE and CODE."),
        (3, "States are these::"),
        (11, "a short bullet of two lines"),
        (15, "the conversation."),
        (15, "It is text."),
        (17, "two of them."),
        (20, "A value."),
        (27, "A limit."),
    ]
