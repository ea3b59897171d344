#pragma once

#include <string>
#include <utility>

#include "data/io/json.h"
#include "data/text/sentencepiece.h"

/// The vocabularies and merges of old tokenizer files, as tokenizer.json spells them.
namespace temper::data {

/// A new key of a JSON object, without the search for one that is there already.
void append(Json& object, std::string key, Json value);

/// merges.txt: a pair a line.
Json read_merges_file(const std::string& text);
/// vocab.txt: a token a line, the line's number is its id.
Json read_word_list(const std::string& text);

/// SentencePiece keeps scores in place of merges: every way to cut a piece in two pieces is a
/// merge, best scores first.
Json merges_of_scores(const SentencePieceModel& model);

/// tiktoken's lines of "base64 of the token's bytes, rank": {vocab, merges}, in the letters of
/// byte_level.h. Throws UserError naming the line.
std::pair<Json, Json> vocabulary_of_ranks(const std::string& text, const std::string& where);
/// Whether a file begins with such a line.
bool looks_like_ranks(const std::string& text);

}  // namespace temper::data
