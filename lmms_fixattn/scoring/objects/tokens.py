"""Split a lower-cased caption into the tokens that CHAIR counts, without NLTK.

The conventions are the Penn Treebank's, applied sentence by sentence: what `nltk.word_tokenize` does. They depend on
little more than one chunk between blanks, so chunks are split once and remembered. The only thing a chunk cannot know
alone is whether its last period ends a sentence (then it is a token of its own) or an abbreviation (then it stays).
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import zip_longest

# Abbreviations that end no sentence in Punkt's English model, as far as lower-cased captions can hold them.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        """
    a.a a.c a.d a.g a.h a.m a.m.e a.s a.t adm ala ariz aug ave b.f b.v bros c c.i.t c.o.m.b c.v calif chg cie co col
    colo conn corp cos ct d d.c d.h d.w dec dr e e.f e.h e.l e.m f f.g f.j feb fla fri ft g g.d g.f g.k ga gen h h.c
    h.f h.m i.m.s ill inc j.b j.c j.j j.k j.p j.r jan jr k kan ky l l.a l.f l.p lt ltd m m.b.a m.d.c m.j maj messrs mg
    mich minn mr mrs ms n n.c n.d n.h n.j n.m n.v n.y nev nov oct ok okla ore p p.a.m p.m pa ph.d prof r r.a r.h r.i
    r.j r.k r.t rep reps s s.a s.a.y s.c s.g s.p.a s.s sen sep sept sr st sw t t.j tenn tues u.k u.n u.s u.s.a u.s.s.r
    v va vs vt w w.c w.r w.va w.w wash wed wis yr
        """,
    )
)
_NUMBER_OR_INITIAL = re.compile(r"-?[.,]?\d[\d,.-]*|[^\W\d]")

# Tokens of their own wherever they stand. A comma or colon is one unless a digit follows (10:30, 1,000).
_SEPARATE = re.compile(
    r"""( \.{2,} | `+ | '' | -- | [,:](?!\d) | [;@#$%&?!*"\[\](){}<>] | [\u2012-\u2015«»“”„‘’] )""", re.VERBOSE
)
# Where a sentence may end: before a blank or one of these. A period before anything else ("etc.,", "a.b") ends none.
_SENTENCE_END = re.compile(r"""[.?!](?=[)\]}";:*@'({\[‘’“”«»?!]|\Z)""")
# The word that a period closes as Punkt sees it: back to one of its separators, of which quotes open a word.
_WORD_BEFORE = re.compile(r"""['‘’“”«»?!]?[^)\]}";:*@'({\[‘’“”«»?!]*\Z""")
_CLITIC = re.compile(r"(?<=[^'])('s|'m|'d|'ll|'re|'ve|n't|')\Z")
_OPENING_APOSTROPHE = re.compile(r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)")
_CONTRACTION = re.compile(
    r"\b(?:(can)(not)|(d)('ye)|(gim)(me)|(gon)(na)|(got)(ta)|(lem)(me)|(more)('n))\b|\b(wan)(na)\Z"
)


def tokenise(text: str) -> list[str]:
    """Return the tokens of a text, which must be lower-cased; an empty text has none."""
    chunks = text.split()
    tokens: list[str] = []
    for chunk, following in zip_longest(chunks, chunks[1:], fillvalue=""):
        # What follows matters to a period alone, and of that its first character: chunks stay few enough to remember.
        tokens += tokenise_chunk(chunk, following[:1]) if "." in chunk else tokenise_chunk(chunk, "x")
    return tokens


def _ends_sentence(before: str, after: str) -> bool:
    """Return whether a period between a text and a character (blanks left out) ends a sentence."""
    found = _WORD_BEFORE.search(before)
    word = found.group().lstrip("-,&#`") if found else ""
    if word in _ABBREVIATIONS or word.rpartition("-")[2] in _ABBREVIATIONS:
        return False
    # "5. the" is an item's number and "j. smith" an initial: a new sentence would have begun with a capital.
    return not (_NUMBER_OR_INITIAL.fullmatch(word) and (after.islower() or after in ";:,.!?"))


@lru_cache(maxsize=65536)
def tokenise_chunk(chunk: str, following: str) -> tuple[str, ...]:
    """Return the tokens of one chunk; following = the next chunk's first character, "" at the caption's end."""
    ends = [found.start() for found in _SENTENCE_END.finditer(chunk)]
    if not following and len(ends) > 1 and chunk[-1] in "?!":
        ends.pop()
    # Punkt looks at the last of a chunk's candidates only.
    end = ends[-1] if ends else 0
    if end > 0 and chunk[end] == "." and chunk[end - 1] != ".":
        after = chunk[end + 1 :]
        caption_ends = not following and not after.strip(")]}>\"'»”’")
        if caption_ends or _ends_sentence(chunk[:end], after[:1] or following):
            return (*_split_words(chunk[:end]), ".", *_split_words(after))
    return tuple(_split_words(chunk))


def _split_words(chunk: str) -> list[str]:
    """Return the tokens of a chunk, or of a part of one, whose periods belong to their words."""
    tokens: list[str] = []
    for index, piece in enumerate(_SEPARATE.split(chunk)):
        if index % 2:
            tokens.append(piece)
        else:
            piece = _OPENING_APOSTROPHE.sub("' ", piece)
            piece = _CLITIC.sub(r" \1", piece)
            tokens += _CONTRACTION.sub(lambda found: " " + " ".join(filter(None, found.groups())) + " ", piece).split()
    return tokens
