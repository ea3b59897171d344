#pragma once

#include <filesystem>
#include <string>

#include "data/text/old_form_parts.h"
#include "data/text/old_forms.h"

/// A reader for each old form of a tokenizer, in a file of its own. Each throws UserError for
/// damaged files and classes that are not supported.
namespace temper::data {

/// sentencepiece_form.cpp: the bytes of a SentencePiece model.
TokenizerDefinition from_sentencepiece(const std::filesystem::path& path, std::string bytes,
                                       const OldSettings& settings);
/// ranks_form.cpp: tiktoken's lines.
TokenizerDefinition from_ranks(const std::filesystem::path& path, std::string text);
/// merges_form.cpp: vocab.json and merges.txt.
TokenizerDefinition from_vocabulary_and_merges(const std::filesystem::path& directory,
                                               const OldSettings& settings);
/// word_list_form.cpp: vocab.txt.
TokenizerDefinition from_word_list(const std::filesystem::path& path, const OldSettings& settings);

}  // namespace temper::data
