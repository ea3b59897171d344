#!/usr/bin/env python3
"""Writes unicode_tables.cpp: what PyPI's tokenizers 0.23.3 does with every code point.

    python data/text/make_unicode_tables.py > data/text/unicode_tables.cpp

The package mixes Unicode versions (its regexes follow 16, its NFC an older one), so the tables are asked of it and not of
a Unicode release. The stand-ins also ask PCRE2, the library whose knowledge they complete: run this where the PCRE2 is
that is linked. Run it again when the pinned version of tokenizers moves.
"""

import ctypes
import sys

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

CATEGORIES = ("Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co Cn").split()
EVERY = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
TEXT = "".join(map(chr, EVERY))
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


def table(kind, name, rows, nested=False):
    def cell(row):
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
    tables = [
        ("CodePointRange", "NumericRanges", "numeric_ranges",
         ranges(split_from_letter(pre_tokenizers.Digits(individual_digits=True))), False),
        ("CodePointRange", "WordRanges", "word_ranges",
         ranges(set(EVERY) - split_from_letter(pre_tokenizers.Whitespace())
                - {c for c in EVERY if chr(c).isspace()}), False),
        ("StandIn", "RegexStandIns", "regex_stand_ins", stand_ins(), False),
        ("CombiningClass", "CombiningClasses", "combining_classes", combining_classes(), False),
        ("Decomposition", "CanonicalDecompositions", "canonical_decompositions", decompositions, True),
        ("Composition", "CanonicalCompositions", "canonical_compositions", compositions, False),
    ]
    out = sys.stdout.write
    out(f"// Made by make_unicode_tables.py from tokenizers {tokenizers.__version__}. Do not edit.\n")
    out('#include "data/text/unicode_tables.h"\n\nnamespace temper::data {\n\nnamespace {\n\n// clang-format off\n')
    out("\n".join(table(kind, name, rows, nested) for kind, name, _, rows, nested in tables))
    out("// clang-format on\n\n}  // namespace\n\n")
    for kind, name, function, _, _ in tables:
        out(f"std::span<const {kind}> {function}() {{ return k{name}; }}\n")
    out("\n}  // namespace temper::data\n")


main()
