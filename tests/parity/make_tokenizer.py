#!/usr/bin/env python3
"""Trains small tokenizers with tokenizers 0.23.3 and writes what it answers, for tokenizer_test.cpp.

    python tests/parity/make_tokenizer.py --out tests/parity/golden [--seed N] [--texts N]

For each shape: tokenizer/NAME/tokenizer.json and tokenizer/NAME/cases.jsonl, a line a text with ids, ids_special, offsets (code points),
decoded and decoded_skip. Everything is compared exactly. Another seed gives other texts and other vocabularies.
"""

import argparse
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

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
    return processors.TemplateProcessing(single=" ".join([*(name for name, _ in specials), "$A"]),
                                         special_tokens=list(specials))


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


def shapes(corpus):
    template_with_bos = lambda tokenizer: processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), single(("<s>", tokenizer.token_to_id("<s>")))])
    untrimmed = lambda tokenizer: processors.ByteLevel(trim_offsets=False)
    yield "gpt2", byte_level(corpus, None, None, False, untrimmed)
    yield "llama3", byte_level(corpus, LLAMA3, None, True, template_with_bos)
    yield "qwen", byte_level(corpus, QWEN, normalizers.NFC(), False, untrimmed)
    yield "llama2", byte_fallback(corpus, metaspace=False)
    yield "metaspace", byte_fallback(corpus, metaspace=True)


def cases(tokenizer, texts):
    for content in texts:
        encoding = tokenizer.encode(content, add_special_tokens=False)
        special = tokenizer.encode(content).ids
        yield {"text": content, "ids": encoding.ids, "offsets": encoding.offsets, "ids_special": special,
               "decoded": tokenizer.decode(special, skip_special_tokens=False),
               "decoded_skip": tokenizer.decode(special, skip_special_tokens=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--texts", type=int, default=40)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    corpus = [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(400)]
    for name, tokenizer in shapes(corpus):
        directory = arguments.out / "tokenizer" / name
        directory.mkdir(parents=True, exist_ok=True)
        texts = ["", " ", "  ", "a", " a"] + [text(rng, rng.randint(1, 14)) for _ in range(arguments.texts)]
        definition = json.loads(tokenizer.to_str())
        definition["model"]["merges"] = [" ".join(merge) for merge in definition["model"]["merges"]]
        dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        (directory / "tokenizer.json").write_text(dump(definition) + "\n")
        (directory / "cases.jsonl").write_text("".join(dump(case) + "\n" for case in cases(tokenizer, texts)))


main()
