#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

/// SentencePiece's model file (a protocol buffer): the parts that decide ids.
namespace temper::data {

struct SentencePieceModel {
  enum class Kind { kUnigram = 1, kBpe = 2, kWord = 3, kCharacter = 4 };
  enum class Type { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };

  Kind kind = Kind::kUnigram;
  std::vector<Piece> pieces;  // by id
  bool byte_fallback = false;
  int64_t unknown_id = 0;
  int64_t bos_id = 1;
  int64_t eos_id = 2;
  int64_t pad_id = -1;
  std::string charsmap;  // compiled normalization rules; "" for none

  /// The piece's text, "" for an id that there is not.
  std::string text(int64_t id) const;
};

/// Throws UserError for a file that is cut short or no such model.
SentencePieceModel parse_sentencepiece(const std::string& bytes, const std::string& where);

}  // namespace temper::data
