#!/usr/bin/env python3
"""Writes unicode_tables.cpp: what PyPI's tokenizers 0.23.3 does with every code point.

    python data/text/make_unicode_tables.py > data/text/unicode_tables.cpp

The package mixes Unicode versions (its regexes follow 16, its NFC an older one), so the tables are asked of it and not of
a Unicode release. The stand-ins also ask PCRE2, the library whose knowledge they complete: run this where the PCRE2 is
that is linked. Run it again when the pinned version of tokenizers moves.
"""

import ctypes
import struct
import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn").split()
EVERY = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, EVERY))
SIGN = "\u2603"  # that no character is made of
MONGOLIAN_VOWEL_SEPARATOR, ZERO_WIDTH_SPACE = 0x180E, 0x200B


def normalized(normalizer, text):
    return normalizer.normalize_str(text)


def ranges(values):
    result = []
    for value in sorted(values):
        if result and result[-1][1] == value - 1:
            result[-1][1] = value
        else:
            result.append([value, value])
    return result


def categories_of_package():
    found = {}
    for category in CATEGORIES:
        rest = set(normalized(normalizers.Replace(Regex(r"\p{%s}" % category), ""), TEXT))
        found.update((c, category) for c in EVERY if chr(c) not in rest)
    return found


def categories_of_pcre2():
    library = ctypes.CDLL("libpcre2-8.so.0")
    library.pcre2_compile_8.restype = ctypes.c_void_p
    utf, ucp, substitute_global = 0x00080000, 0x00020000, 0x00000100
    subject = TEXT.encode()
    found = {}
    for category in CATEGORIES:
        pattern = rb"\p{%s}" % category.encode()
        error, offset = ctypes.c_int(), ctypes.c_size_t()
        code = library.pcre2_compile_8(pattern, ctypes.c_size_t(len(pattern)), ctypes.c_uint32(utf | ucp),
                                       ctypes.byref(error), ctypes.byref(offset), None)
        output, size = ctypes.create_string_buffer(len(subject) + 1), ctypes.c_size_t(len(subject) + 1)
        done = library.pcre2_substitute_8(ctypes.c_void_p(code), subject, ctypes.c_size_t(len(subject)),
                                          ctypes.c_size_t(0), ctypes.c_uint32(substitute_global), None, None, b"",
                                          ctypes.c_size_t(0), output, ctypes.byref(size))
        assert done >= 0, done
        rest = set(output.raw[:size.value].decode())
        found.update((c, category) for c in EVERY if chr(c) not in rest)
    return found


def stand_ins():
    package, pcre2 = categories_of_package(), categories_of_pcre2()
    utf8_size = {c: len(chr(c).encode()) for c in EVERY}
    known = {}
    for c in EVERY:
        if package[c] == pcre2[c] and c != MONGOLIAN_VOWEL_SEPARATOR:
            known.setdefault((package[c], utf8_size[c]), c)
    pairs = {c: known[package[c], utf8_size[c]] for c in EVERY if package[c] != pcre2[c]}
    pairs[MONGOLIAN_VOWEL_SEPARATOR] = ZERO_WIDTH_SPACE
    result = []
    for c, stand_in in sorted(pairs.items()):
        if result and result[-1][1] == c - 1 and result[-1][2] == stand_in:
            result[-1][1] = c
        else:
            result.append([c, c, stand_in])
    return result


def split_from_letter(pre_tokenizer):
    """Code points that the pre-tokenizer cuts from a letter before them."""
    text = "".join("\na" + chr(c) for c in EVERY)
    starts = {begin for _, (begin, _) in pre_tokenizer.pre_tokenize_str(text)}
    return {c for i, c in enumerate(EVERY) if 3 * i + 2 in starts}


def combining_classes():
    nfd = normalizers.NFD()
    swapped = lambda a, b: normalized(nfd, chr(a) + chr(b)) == chr(b) + chr(a)
    iota_subscript = 0x345  # the only mark of class 240, the highest
    marks = [c for c in EVERY if len(normalized(nfd, chr(c))) == 1 and swapped(iota_subscript, c)] + [iota_subscript]
    # Sort the marks into classes by asking which pairs swap; Python's own table only names the classes.
    import unicodedata
    classes = {}
    for c in marks:
        value = unicodedata.combining(chr(c))
        assert value, hex(c)
        classes.setdefault(value, []).append(c)
    heads = sorted((value, members[0]) for value, members in classes.items())
    for value, members in classes.items():
        for c in members:
            for other, head in heads:
                assert c == head or swapped(c, head) == (other < value), (hex(c), value, other)
    result = []
    for c in sorted(marks):
        value = unicodedata.combining(chr(c))
        if result and result[-1][1] == c - 1 and result[-1][2] == value:
            result[-1][1] = c
        else:
            result.append([c, c, value])
    return result


def canonical_mappings():
    nfc, nfd = normalizers.NFC(), normalizers.NFD()
    decompositions, compositions = [], []
    for c in EVERY:
        if 0xAC00 <= c <= 0xD7A3:  # Hangul syllables go by arithmetic
            continue
        parts = normalized(nfd, chr(c))
        if parts == chr(c):
            continue
        assert len(parts) <= 4
        decompositions.append([c] + [ord(p) for p in parts] + [0] * (4 - len(parts)))
        if len(parts) > 1 and normalized(nfc, parts) == chr(c):
            left = normalized(nfc, parts[:-1])
            assert len(left) == 1 and normalized(nfc, left + parts[-1]) == chr(c), hex(c)
            compositions.append([ord(left), ord(parts[-1]), c])
    return decompositions, sorted(compositions)


def each(normalizer):
    """What the normalizer makes of every code point alone, asked in one text with a sign between that it leaves alone."""
    others = [c for c in EVERY if chr(c) != SIGN]
    answers = normalized(normalizer, SIGN.join(map(chr, others))).split(SIGN)
    assert len(answers) == len(others)
    return {**dict(zip(others, answers)), ord(SIGN): normalized(normalizer, SIGN)}


def mappings(normalizer, beside=None):
    """[code point, what the normalizer makes of it ...] where that is something else, and not what `beside` makes."""
    others = each(beside) if beside is not None else {}
    return [[c] + list(map(ord, parts)) for c, parts in sorted(each(normalizer).items())
            if parts != chr(c) and parts != others.get(c)]


def removed(normalizer, to=""):
    return {c for c, parts in each(normalizer).items() if parts == to != chr(c)}


def bert(**settings):
    return normalizers.BertNormalizer(**{**dict(clean_text=False, handle_chinese_chars=False, strip_accents=False,
                                                lowercase=False), **settings})


def charsmap(key, value):
    """A Precompiled normalizer with one rule: a double array of one string, then the pool of values."""
    letters = key.encode()
    words = [0] * (0x100 * (len(letters) + 2))
    words[0] = 0x100 << 10
    for i, letter in enumerate(letters):  # the children of the i-th node stand at 0x100 (i + 1) ^ letter
        position, children = 0x100 * (i + 1) ^ letter, 0x100 * (i + 2)
        words[position] = (position ^ children) << 10 | letter
    words[position] |= 1 << 8  # its child 0 is a leaf, whose value is the start of the pool
    words[children] = 1 << 31
    trie = struct.pack(f"<{len(words)}I", *words)
    data = struct.pack("<I", len(trie)) + trie + value.encode() + b"\0"
    return normalizers.Precompiled(data)


def clusters():
    """How characters join into grapheme clusters, seen through Precompiled, which looks up clusters below 6 bytes whole and the
    characters of longer ones alone: after a key, an accent is lost in the first case and stays in the second."""
    accent, other_accent, joiner, sign, letter, linker, last = "\u0301 \u0302 \u200d \u00a9 \u0915 \u094d \u0937".split()
    every = [c for c in EVERY if chr(c) not in "\n\r\0"]

    def answers(key, text, expected):
        lines = normalized(charsmap(key, "x"), "\n".join(text(chr(c)) for c in every)).split("\n")
        assert len(lines) == len(every)
        return {c for c, line in zip(every, lines) if expected(chr(c), line)}

    kept = lambda c, line: line.endswith("x" + accent)
    flags = [
        ("joins", answers("a", lambda c: "a" + c, lambda c, line: line == "x")),
        ("control", answers(accent, lambda c: c + accent + other_accent, lambda c, line: line.endswith("x")) | {0, 10, 13}),
        ("prepend", answers(sign, lambda c: c + sign + accent, kept)),
        ("pictographic", answers(sign, lambda c: c + joiner + sign + accent, kept)),
        ("extend", answers(sign, lambda c: sign + c + joiner + sign + accent, kept)),
        ("consonant", answers(last, lambda c: c + linker + last + accent, kept)),
        ("linker", answers(last, lambda c: letter + c + last + accent, kept)),
        ("conjunct", answers(last, lambda c: letter + c + linker + last + accent, kept)),
    ]
    of = dict.fromkeys(EVERY, 0)
    # What looks like a later answer for another reason.
    reasons = {"control": "joins", "extend": "pictographic", "linker": "prepend", "conjunct": "consonant"}
    for i, (name, members) in enumerate(flags):
        for c in members - dict(flags).get(reasons.get(name), set()):
            of[c] |= 1 << i
    result = []
    for c in EVERY:
        if of[c] == 0:
            continue
        if result and result[-1][1] == c - 1 and result[-1][2] == of[c]:
            result[-1][1] = c
        else:
            result.append([c, c, of[c]])
    return result


def scripts():
    """first, last, number: UnicodeScripts cuts between characters of two numbers, and drops others at the start."""
    pre_tokenizer = pre_tokenizers.UnicodeScripts()
    apart = lambda a, b: len(pre_tokenizer.pre_tokenize_str(chr(a) + chr(b))) == 2
    members = [c for c in EVERY if pre_tokenizer.pre_tokenize_str(chr(c))]
    runs = []
    for c in members:
        if runs and runs[-1][1] == c - 1 and not apart(c - 1, c):
            runs[-1][1] = c
        else:
            runs.append([c, c])
    heads, result = [], []
    for run in runs:
        first, final = run
        found = next((i for i, head in enumerate(heads) if not apart(head, first)), len(heads))
        if found == len(heads):
            heads.append(first)
        result.append([first, final, found])
    return result


def table(kind, name, rows, nested=False):
    def cell(row):
        if isinstance(row, int):
            return f"0x{row:X}"
        numbers = [f"0x{n:X}" if n > 9 else str(n) for n in row]
        if nested:
            numbers = [numbers[0], "{" + ", ".join(numbers[1:]) + "}"]
        return "{" + ", ".join(numbers) + "}"

    lines, line = [], "   "
    for row in rows:
        text = " " + cell(row) + ","
        if len(line) + len(text) > 100:
            lines.append(line)
            line = "   "
        line += text
    lines.append(line)
    return f"constexpr {kind} k{name}[] = {{\n" + "\n".join(lines) + "\n};\n"


def main():
    decompositions, compositions = canonical_mappings()
    bert_spaces = removed(bert(clean_text=True), " ")
    assert all(c in map(ord, "\t\n\r") or chr(c).isspace() for c in bert_spaces)
    chinese = {c for c, parts in each(bert(handle_chinese_chars=True)).items() if parts == f" {chr(c)} "}
    punctuation = split_from_letter(pre_tokenizers.Punctuation())
    assert punctuation == split_from_letter(pre_tokenizers.BertPreTokenizer()) - {c for c in EVERY if chr(c).isspace()}
    lowercase = mappings(normalizers.Lowercase())
    assert lowercase == mappings(bert(lowercase=True))
    compatible = mappings(normalizers.NFKD(), normalizers.NFD())
    pool = [part for row in compatible for part in row[1:]]
    starts = [sum(len(row) - 1 for row in compatible[:i]) for i in range(len(compatible))]
    ranges_of = lambda name, function, members: ("CodePointRange", name, function, ranges(members), False)
    tables = [
        ranges_of("NumericRanges", "numeric_ranges", split_from_letter(pre_tokenizers.Digits(individual_digits=True))),
        ranges_of("WordRanges", "word_ranges", set(EVERY) - split_from_letter(pre_tokenizers.Whitespace())
                  - {c for c in EVERY if chr(c).isspace()}),
        ranges_of("PunctuationRanges", "punctuation_ranges", punctuation),
        ranges_of("ChineseRanges", "chinese_ranges", chinese),
        ranges_of("AccentRanges", "accent_ranges", removed(normalizers.StripAccents())),
        ranges_of("BertAccentRanges", "bert_accent_ranges", removed(bert(strip_accents=True))),
        ranges_of("BertRemovedRanges", "bert_removed_ranges", removed(bert(clean_text=True))),
        ranges_of("BertSpaceRanges", "bert_space_ranges", bert_spaces | {32}),
        ranges_of("NmtRemovedRanges", "nmt_removed_ranges", removed(normalizers.Nmt())),
        ranges_of("NmtSpaceRanges", "nmt_space_ranges", removed(normalizers.Nmt(), " ")),
        ("StandIn", "RegexStandIns", "regex_stand_ins", stand_ins(), False),
        ("ClusterFlags", "ClusterFlags", "cluster_flags", clusters(), False),
        ("ScriptRange", "ScriptRanges", "script_ranges", scripts(), False),
        ("CombiningClass", "CombiningClasses", "combining_classes", combining_classes(), False),
        ("Decomposition", "CanonicalDecompositions", "canonical_decompositions", decompositions, True),
        ("CompatibleDecomposition", "CompatibleDecompositions", "compatible_decompositions",
         [[row[0], start, len(row) - 1] for row, start in zip(compatible, starts)], False),
        ("char32_t", "CompatibleParts", "compatible_parts", pool, False),
        ("Composition", "CanonicalCompositions", "canonical_compositions", compositions, False),
        ("LowercaseMapping", "LowercaseMappings", "lowercase_mappings",
         [row + [0] * (3 - len(row)) for row in lowercase], False),
    ]
    out = sys.stdout.write
    out(f"// Made by make_unicode_tables.py from tokenizers {tokenizers.__version__}. Do not edit.\n")
    out('#include "data/text/unicode_tables.h"\n\nnamespace temper::data {\n\nnamespace {\n\n// clang-format off\n')
    out("\n".join(table(kind, name, rows, nested) for kind, name, _, rows, nested in tables))
    out("// clang-format on\n\n}  // namespace\n\n")
    for kind, name, function, _, _ in tables:
        out(f"std::span<const {kind}> {function}() {{ return k{name}; }}\n")
    out("\n}  // namespace temper::data\n")


if __name__ == "__main__":
    main()
