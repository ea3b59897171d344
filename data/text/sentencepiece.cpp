#include "data/text/sentencepiece.h"

#include <cstring>
#include <string_view>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

/// The fields of one message, in the order of the file.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : rest_(bytes), where_(where) {}

  struct Field {
    uint64_t number;
    uint64_t value;          // of a varint
    std::string_view bytes;  // of anything else
  };

  bool next(Field& field) {
    if (rest_.empty()) return false;
    const uint64_t key = varint();
    field = {.number = key >> 3, .value = 0, .bytes = {}};
    switch (key & 7) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.bytes = take(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.bytes = take(4);
        break;
      default:
        fail();
    }
    return true;
  }
  [[noreturn]] void fail() const {
    throw UserError(where_ + ": no SentencePiece model, or one that is cut short");
  }

 private:
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<uint8_t>(take(1)[0]);
      value |= uint64_t{byte & 0x7FU} << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }
  std::string_view take(uint64_t size) {
    if (size > rest_.size()) fail();
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
  const std::string& where_;
};

int64_t as_int(uint64_t varint) { return static_cast<int32_t>(varint); }

SentencePieceModel::Piece parse_piece(std::string_view bytes, const std::string& where) {
  Message message(bytes, where);
  SentencePieceModel::Piece piece;
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) {
      if (field.bytes.size() != sizeof piece.score) message.fail();
      std::memcpy(&piece.score, field.bytes.data(), sizeof piece.score);
    }
    if (field.number == 3) piece.type = static_cast<SentencePieceModel::Type>(field.value);
  }
  return piece;
}

void parse_trainer(std::string_view bytes, const std::string& where, SentencePieceModel& model) {
  Message message(bytes, where);
  for (Message::Field field; message.next(field);) {
    switch (field.number) {
      case 3:
        model.kind = static_cast<SentencePieceModel::Kind>(field.value);
        break;
      case 35:
        model.byte_fallback = field.value != 0;
        break;
      case 40:
        model.unknown_id = as_int(field.value);
        break;
      case 41:
        model.bos_id = as_int(field.value);
        break;
      case 42:
        model.eos_id = as_int(field.value);
        break;
      case 43:
        model.pad_id = as_int(field.value);
        break;
      default:
        break;
    }
  }
}

}  // namespace

std::string SentencePieceModel::text(int64_t id) const {
  const bool exists = id >= 0 && id < static_cast<int64_t>(pieces.size());
  return exists ? pieces[static_cast<size_t>(id)].text : "";
}

SentencePieceModel parse_sentencepiece(const std::string& bytes, const std::string& where) {
  Message message(bytes, where);
  SentencePieceModel model;
  for (Message::Field field; message.next(field);) {
    if (field.number == 1) model.pieces.push_back(parse_piece(field.bytes, where));
    if (field.number == 2) parse_trainer(field.bytes, where, model);
    if (field.number == 3) {
      Message normalizer(field.bytes, where);
      for (Message::Field rule; normalizer.next(rule);) {
        if (rule.number == 2) model.charsmap = rule.bytes;
      }
    }
  }
  if (model.pieces.empty()) message.fail();
  return model;
}

}  // namespace temper::data
