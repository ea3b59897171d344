#!/usr/bin/env python3
"""Tokenizer files of before tokenizer.json through `temper tokenize` and through transformers: ids and decoded texts must be equal.

    python tests/parity/check_old_tokenizers.py build-release/bin/temper [--seed N] [--texts N]

The files are made here: vocab.json with merges.txt and vocab.txt by tokenizers, tokenizer.model and spiece.model by sentencepiece, ranks
from a byte-level BPE. 10,000 fuzzed texts for each with TEMPER_LONG, else 300.
"""

import argparse
import base64
import io
import json
import os
import pathlib
import random
import tempfile

import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

import check_tokenizers
import make_tokenizer


def byte_level_model(corpus, specials):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    make_tokenizer.train(tokenizer, corpus, specials, 500, pre_tokenizers.ByteLevel.alphabet())
    return tokenizer


def write_merges(directory, corpus, specials):
    byte_level_model(corpus, specials).model.save(str(directory))


def write_word_list(directory, corpus, lower):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False))
    tokenizer.model.save(str(directory))


def write_sentencepiece(file, corpus, kind, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus), model_writer=model, model_type=kind, vocab_size=600,
                                             hard_vocab_limit=False, minloglevel=2, **options)
    file.write_bytes(model.getvalue())


def write_ranks(file, corpus):
    letters = {letter: byte for byte, letter in bytes_to_unicode().items()}
    vocabulary = sorted(byte_level_model(corpus, []).get_vocab().items(), key=lambda entry: entry[1])
    # Ranks are the bytes first, then what the merges make, in their order.
    tokens = [bytes(letters[letter] for letter in token) for token, _ in vocabulary]
    file.write_text("".join(f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)))


def forms(scratch, corpus):
    """Name, directory and the reference's tokenizer."""
    def directory(name, **config):
        path = scratch / name
        path.mkdir()
        if config:
            (path / "tokenizer_config.json").write_text(json.dumps(config))
        return path

    def loaded(path):
        return path, AutoTokenizer.from_pretrained(str(path)).backend_tokenizer

    for name, specials in (("GPT2Tokenizer", ["<|endoftext|>"]), ("Qwen2Tokenizer", ["<|endoftext|>"]),
                           ("RobertaTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])):
        path = directory(name, tokenizer_class=name)
        write_merges(path, corpus, specials)
        yield name, *loaded(path)
    for lower in (True, False):
        path = directory(f"BertTokenizer_{lower}", tokenizer_class="BertTokenizer", do_lower_case=lower)
        write_word_list(path, corpus, lower)
        yield f"BertTokenizer, do_lower_case {lower}", *loaded(path)
    path = directory("LlamaTokenizer", tokenizer_class="LlamaTokenizer", legacy=False, add_bos_token=True)
    write_sentencepiece(path / "tokenizer.model", corpus, "bpe", byte_fallback=True, normalization_rule_name="identity",
                        remove_extra_whitespaces=False)
    yield "LlamaTokenizer", *loaded(path)
    path = directory("GemmaTokenizer", tokenizer_class="GemmaTokenizer", add_bos_token=True)
    write_sentencepiece(path / "tokenizer.model", corpus, "bpe", byte_fallback=True, normalization_rule_name="identity",
                        remove_extra_whitespaces=False, add_dummy_prefix=False, user_defined_symbols=["<mask>"], pad_id=0, eos_id=1,
                        bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>")
    yield "GemmaTokenizer", *loaded(path)
    path = directory("T5Tokenizer", tokenizer_class="T5Tokenizer", extra_ids=10)
    write_sentencepiece(path / "spiece.model", corpus, "unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    yield "T5Tokenizer", *loaded(path)
    path = directory("ranks")
    write_ranks(path / "made.tiktoken", corpus)
    yield "tiktoken's ranks", path, TikTokenConverter(vocab_file=str(path / "made.tiktoken")).converted()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("TEMPER_SEED", 2)))
    parser.add_argument("--texts", type=int, default=10000 if os.environ.get("TEMPER_LONG") else 300)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    corpus = [" ".join(rng.choice(make_tokenizer.WORDS) for _ in range(12)) for _ in range(400)]
    with tempfile.TemporaryDirectory() as scratch:
        for name, directory, reference in forms(pathlib.Path(scratch), corpus):
            specials = [token.content for token in reference.get_added_tokens_decoder().values()][:60]
            texts = [check_tokenizers.fuzzed(rng, specials) for _ in range(arguments.texts)]
            check_tokenizers.compare(arguments.program, name, directory, texts, lambda text: reference.encode(text).ids,
                                     lambda ids, skip: reference.decode(ids, skip_special_tokens=skip))


if __name__ == "__main__":
    main()
