#!/usr/bin/env python3
"""Trains small tokenizers with tokenizers 0.23.3 and writes what it answers, for tokenizer_test.cpp.

    python tests/parity/make_tokenizer.py --out tests/parity/golden [--seed N] [--texts N]

For each shape: tokenizer/NAME/tokenizer.json and tokenizer/NAME/cases.jsonl, a line a case: of a single text, a pair, a text or pair that
is cut, texts that are filled. Offsets are code points. Everything is compared exactly. Another seed gives other texts and other
vocabularies.
"""

import argparse
import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "data" / "text"))
from make_unicode_tables import charsmap

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
WORDS = ("the a of to and in is it you that he was for on are with as his they be at one have this from or had by hot "
         "word but what some we can out other were all there when up use your how said an each she which do their time "
         "if will way about many then them write would like so these her long make thing see him two has look more day "
         "der die und ist nicht ein Straße über für naïve café déjà señor año привет мир как дела это не "
         "你好 世界 这是 一个 测试 日本語 テスト です 안녕하세요 세계 שלום عالم नमस्ते สวัสดี don't we'll I'm it's THEY'RE").split()
ODD = ["🙂", "👩‍👩‍👧‍👦", "🇩🇪", "e\u0301", "q\u0307\u0323", "\u1100\u1161\u11a8", "\u212b", "\u0344", "<0x41>", "<0xE2>", "Ġ", "Ċ",
       "▁", "\u00a0", "\u3000", "\u200b", "\u180e", "\t", "\r\n", "\n\n", "    ", " \n ", "\x00", "\x1f", "\ufffd", "\U0001f6d8",
       "\u1c89", "\ua7da", "\U00010d40", "\U0001cc00", "123", "3.14", "2,000,000", "½", "٣٤", "!!!", "...", "—", "==>", "a_b",
       "<s>", "</s>", "<|end|>", "<|end|", "<tool>", " <tool> ", "<mask>", "  <mask>  ", "x<mask>y", "word", "swordfish", "\u017f",
       "'S", "'ſ", "\u1ac1", "\U000e0100", "\u3099", "か\u3099", "ﬁ", "Ǆ", "İ"]


def text(rng, length):
    pieces = []
    for _ in range(length):
        pieces.append(rng.choice(WORDS) if rng.random() < 0.7 else rng.choice(ODD))
        pieces.append(rng.choice([" ", " ", " ", " ", "", "", "\n", "  "]))
    return "".join(pieces)


def single(*specials):
    before = " ".join(name for name, _ in specials)
    return processors.TemplateProcessing(single=f"{before} $A", pair=f"{before} $A {before}:1 $B:1", special_tokens=list(specials))


def train(tokenizer, corpus, specials, size, alphabet=()):
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(specials), initial_alphabet=list(alphabet),
                                  limit_alphabet=120, show_progress=False)
    tokenizer.train_from_iterator(corpus, trainer)


def byte_level(corpus, pattern, normalizer, ignore_merges, post_processor):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False) if pattern is None else (
        pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, corpus, [], 400, pre_tokenizers.ByteLevel.alphabet())
    tokenizer.add_special_tokens([AddedToken("<s>", normalized=False), AddedToken("<|end|>", rstrip=True)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("<mask>", lstrip=True),
                          AddedToken("word", single_word=True), AddedToken("    ", normalized=False)])
    tokenizer.post_processor = post_processor(tokenizer)
    return tokenizer


def byte_fallback(corpus, metaspace):
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=True)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    lines = [word for line in corpus for word in line.split("\n")]
    train(tokenizer, lines, specials, 520)
    definition = json.loads(tokenizer.to_str())
    if not metaspace:  # merges across words are of no use to the test and cost it size
        definition["model"]["merges"] = definition["model"]["merges"][:150]
    definition["added_tokens"] = definition["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(definition))
    tokenizer.add_special_tokens([AddedToken("<|end|>", rstrip=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken("<mask>", lstrip=True, normalized=False),
                          AddedToken("word", single_word=True, normalized=False)])
    tokenizer.post_processor = single(("<s>", 1))
    return tokenizer


def with_pipeline(model, trainer, corpus, normalizer=None, pre_tokenizer=None, decoder=None, post_processor=None):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(corpus, trainer)
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("<|end|>", normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>"), AddedToken("<mask>", lstrip=True, normalized=False),
                          AddedToken("word", single_word=True)])
    if post_processor is not None:
        tokenizer.post_processor = post_processor(tokenizer)
    return tokenizer


def wordpiece(corpus, lowercase):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    return with_pipeline(
        models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12),
        trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False, limit_alphabet=90), corpus,
        normalizers.BertNormalizer(lowercase=lowercase, clean_text=lowercase, strip_accents=None if lowercase else True),
        pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=lowercase),
        lambda tokenizer: processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)))


def unigram(corpus, byte_fallback, normalizer, prepend_scheme):
    specials = ["<unk>", "<s>", "</s>"] + ([f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else [])
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    tokenizer = with_pipeline(
        models.Unigram(), trainers.UnigramTrainer(vocab_size=320 + len(specials), special_tokens=specials, unk_token="<unk>",
                                                  show_progress=False), corpus, normalizer, metaspace,
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend_scheme)]))
    definition = json.loads(tokenizer.to_str())
    definition["model"]["byte_fallback"] = byte_fallback
    return Tokenizer.from_str(json.dumps(definition))


def characters(corpus, normalizer, pre_tokenizer, decoder, suffix=None):
    options = dict(end_of_word_suffix=suffix) if suffix else {}
    return with_pipeline(
        models.BPE(unk_token="<unk>", fuse_unk=suffix is None, **options),
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], limit_alphabet=150, show_progress=False, **options), corpus,
        normalizer, pre_tokenizer, decoder)


def word_level(corpus, normalizer, pre_tokenizer, decoder=None):
    return with_pipeline(models.WordLevel(unk_token="<unk>"),
                         trainers.WordLevelTrainer(vocab_size=200, special_tokens=["<unk>", "<pad>"], show_progress=False),
                         corpus, normalizer, pre_tokenizer, decoder)


def shapes(corpus):
    template_with_bos = lambda tokenizer: processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), single(("<s>", tokenizer.token_to_id("<s>")))])
    untrimmed = lambda tokenizer: processors.ByteLevel(trim_offsets=False)
    yield "gpt2", byte_level(corpus, None, None, False, untrimmed)
    yield "llama3", byte_level(corpus, LLAMA3, None, True, template_with_bos)
    yield "qwen", byte_level(corpus, QWEN, normalizers.NFC(), False, untrimmed)
    yield "llama2", byte_fallback(corpus, metaspace=False)
    yield "metaspace", byte_fallback(corpus, metaspace=True)
    yield "bert", wordpiece(corpus, lowercase=True)
    yield "bert_cased", wordpiece(corpus, lowercase=False)
    yield "unigram", unigram(corpus, False, normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]), "always")
    rules = [("①", "1"), ("A", "a"), ("ﬁ", "fi"), ("\u00a0", " "), ("\u200b", ""), ("é", "e\u0301"), ("か\u3099", "が")]
    yield "precompiled", unigram(corpus, True, normalizers.Sequence([charsmap(*rule) for rule in rules]), "first")
    yield "word_level", word_level(corpus, normalizers.Sequence(
        [normalizers.Strip(), normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]), pre_tokenizers.Whitespace())
    letters = [" ".join(line.replace(" ", "|")) for line in corpus[:50]]
    yield "ctc", word_level(letters, normalizers.Replace(" ", "|"), pre_tokenizers.Split(Regex("."), "isolated"),
                            decoders.CTC(pad_token="<pad>", word_delimiter_token="|", cleanup=True))
    yield "scripts", characters(corpus, normalizers.NFKD(), pre_tokenizers.Sequence(
        [pre_tokenizers.UnicodeScripts(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.FixedLength(length=4)]),
        decoders.Fuse())
    yield "splits", characters(corpus, None, pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\d"), "merged_with_previous"), pre_tokenizers.Split("-", "merged_with_next"),
         pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.CharDelimiterSplit("a"), pre_tokenizers.WhitespaceSplit(),
         pre_tokenizers.Split(Regex("[e-g]+"), "removed")]), decoders.Strip("t", 1, 0))
    yield "clip", characters(corpus, normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]), pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]), decoders.BPEDecoder("</w>"), suffix="</w>")
    yield "bytes", characters(corpus, normalizers.ByteLevel(), None, decoders.ByteLevel())


def single_cases(tokenizer, texts):
    for content in texts:
        encoding = tokenizer.encode(content, add_special_tokens=False)
        special = tokenizer.encode(content).ids
        yield {"kind": "single", "text": content, "ids": encoding.ids, "tokens": encoding.tokens, "offsets": encoding.offsets,
               "ids_special": special, "decoded": tokenizer.decode(special, skip_special_tokens=False),
               "decoded_skip": tokenizer.decode(special, skip_special_tokens=True)}


def pair_cases(tokenizer, rng):
    for _ in range(8):
        first, second = text(rng, rng.randint(0, 8)), text(rng, rng.randint(0, 8))
        encoding = tokenizer.encode(first, second)
        yield {"kind": "pair", "text": first, "pair": second, "ids": encoding.ids, "type_ids": encoding.type_ids,
               "special_mask": encoding.special_tokens_mask, "offsets": encoding.offsets, "word_ids": encoding.word_ids}


def truncation_cases(tokenizer, rng):
    for number in range(12):
        first, second = text(rng, rng.randint(1, 8)), text(rng, rng.randint(1, 8)) if number % 2 else None
        setting = {"max_length": rng.choice([6, 8, 12]), "stride": 0 if second else rng.choice([0, 1, 2]),
                   "strategy": rng.choice(["longest_first", "only_first", "only_second"]) if second else "longest_first",
                   "direction": rng.choice(["left", "right"])}
        case = {"kind": "trunc", "text": first, "pair": second, "trunc": setting}
        tokenizer.enable_truncation(**setting)
        try:
            encoding = tokenizer.encode(first, second)
            yield {**case, "ids": encoding.ids, "type_ids": encoding.type_ids, "overflow": [part.ids for part in encoding.overflowing]}
        except Exception as error:
            yield {**case, "error": str(error)}
    tokenizer.no_truncation()


def padding_cases(tokenizer, rng):
    for _ in range(4):
        texts = [text(rng, rng.randint(0, 6)) for _ in range(3)]
        setting = {"length": rng.choice([None, 16]), "pad_to_multiple_of": rng.choice([None, 8]),
                   "direction": rng.choice(["left", "right"]), "pad_id": rng.randint(0, 3), "pad_type_id": rng.randint(0, 1)}
        tokenizer.enable_padding(**setting)
        batch = tokenizer.encode_batch(texts)
        yield {"kind": "pad", "texts": texts, "pad": setting, "ids": [encoding.ids for encoding in batch],
               "attention": [encoding.attention_mask for encoding in batch], "type_ids": [encoding.type_ids for encoding in batch]}
    tokenizer.no_padding()


def cases(tokenizer, texts, rng):
    yield from single_cases(tokenizer, texts)
    yield from pair_cases(tokenizer, rng)
    yield from truncation_cases(tokenizer, rng)
    yield from padding_cases(tokenizer, rng)


def write(out, seed, texts):
    rng = random.Random(seed)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(400)]
    for name, tokenizer in shapes(corpus):
        directory = out / "tokenizer" / name
        directory.mkdir(parents=True, exist_ok=True)
        contents = ["", " ", "  ", "a", " a"] + [text(rng, rng.randint(1, 14)) for _ in range(texts)]
        definition = json.loads(tokenizer.to_str())
        merges = definition["model"].get("merges", [])
        if all(" " not in token for merge in merges for token in merge):  # else pairs are the only form
            definition["model"].update({"merges": [" ".join(merge) for merge in merges]} if merges else {})
        dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        (directory / "tokenizer.json").write_text(dump(definition) + "\n")
        (directory / "cases.jsonl").write_text("".join(dump(case) + "\n"
                                                           for case in cases(tokenizer, contents, random.Random(f"{seed} {name}"))))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=int, default=25)
    arguments = parser.parse_args()
    write(arguments.out, arguments.seed, arguments.texts)


if __name__ == "__main__":
    main()
