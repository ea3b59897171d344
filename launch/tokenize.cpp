#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>

#include <unistd.h>

#include <simdjson.h>

#include "data/io/json.h"
#include "data/text/chat_template.h"
#include "data/text/padding.h"
#include "data/text/tokenizer.h"
#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"

namespace temper::launch {

namespace {

using data::Json;

/// Lines of standard input in large blocks. What was printed is flushed before each wait for more,
/// so that a program that writes a line and waits for its answer gets it.
class InputLines {
 public:
  /// The next line without its newline, valid until the next call; unset at the end.
  std::optional<std::string_view> next() {
    while (true) {
      const size_t newline = buffer_.find('\n', scanned_);
      if (newline != std::string::npos) {
        const std::string_view line(buffer_.data() + begin_, newline - begin_);
        begin_ = scanned_ = newline + 1;
        return line;
      }
      scanned_ = buffer_.size();
      if (!ended_) {
        read_more();
        continue;
      }
      if (begin_ == buffer_.size()) return std::nullopt;
      const std::string_view line(buffer_.data() + begin_, buffer_.size() - begin_);
      begin_ = buffer_.size();
      return line;
    }
  }

 private:
  void read_more() {
    buffer_.erase(0, begin_);
    scanned_ -= begin_;
    begin_ = 0;
    std::cout.flush();
    const size_t old_size = buffer_.size();
    buffer_.resize(old_size + kBlockBytes);
    ssize_t got;
    do {
      got = ::read(STDIN_FILENO, buffer_.data() + old_size, kBlockBytes);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
      throw RunError(std::string("standard input: cannot read: ") + std::strerror(errno));
    buffer_.resize(old_size + static_cast<size_t>(got));
    ended_ = got == 0;
  }

  static constexpr size_t kBlockBytes = 1 << 18;
  std::string buffer_;
  size_t begin_ = 0;    // of the next line
  size_t scanned_ = 0;  // no newline before this
  bool ended_ = false;
};

void print_ids(const std::vector<int32_t>& ids) {
  std::string line = "[";
  for (const int32_t id : ids) {
    if (line.size() > 1) line += ',';
    std::array<char, 12> digits;
    const auto end = std::to_chars(digits.begin(), digits.end(), id).ptr;
    line.append(digits.begin(), end);
  }
  line += "]\n";
  std::cout << line;
}

Json json_of(const data::Encoding& encoding) {
  Json words = Json::array();
  for (const int32_t word : encoding.words) {
    words.push_back(word == data::kNoWord ? Json() : Json(word));
  }
  Json overflowing = Json::array();
  for (const data::Encoding& window : encoding.overflowing) overflowing.push_back(json_of(window));
  return {{"ids", encoding.ids},
          {"tokens", encoding.tokens},
          {"offsets", encoding.offsets},
          {"word_ids", std::move(words)},
          {"type_ids", encoding.type_ids},
          {"special_tokens_mask", encoding.special_tokens_mask},
          {"attention_mask", encoding.attention_mask},
          {"overflowing", std::move(overflowing)}};
}

// Padding may be to the longest of a batch, which is all of the input.
void print_encodings(std::vector<data::Encoding>& batch, const data::Tokenizer& tokenizer) {
  if (tokenizer.padding()) data::pad(batch, *tokenizer.padding());
  for (const data::Encoding& encoding : batch) std::cout << json_of(encoding).dump() << "\n";
  batch.clear();
}

/// A text, or a pair of texts.
struct Texts {
  std::string first;
  std::optional<std::string> second;
};

Texts texts_of(Json value, const std::string& where) {
  if (value.is_string()) return {std::move(value.get_ref<std::string&>()), std::nullopt};
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return {value[0].get<std::string>(), value[1].get<std::string>()};
  }
  throw UserError(where + ": expected a JSON string, found " + value.type_name());
}

data::Encoding encode(const data::Tokenizer& tokenizer, const Texts& texts,
                      const std::optional<data::Truncation>& truncation, const std::string& where) {
  constexpr bool kAddSpecialTokens = true;
  try {
    return texts.second
               ? tokenizer.encode_pair(texts.first, *texts.second, kAddSpecialTokens, truncation)
               : tokenizer.encode_with_offsets(texts.first, kAddSpecialTokens, truncation);
  } catch (const UserError& error) {
    throw UserError(where + ": " + error.what());
  }
}

std::vector<int32_t> ids_of(const Json& value, const data::Tokenizer& tokenizer,
                            const std::string& where) {
  if (!value.is_array())
    throw UserError(where + ": expected a JSON array of token ids, found " + value.type_name());
  std::vector<int32_t> ids;
  for (const Json& id : value) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= tokenizer.size()) {
      throw UserError(where + ": " + id.dump() +
                      " is not a token id: must be an integer from 0 to " +
                      std::to_string(tokenizer.size() - 1));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

/// A list of messages, or an object with the arguments of apply_chat_template.
data::ChatInput chat_input(const Json& value, const std::string& where) {
  data::ChatInput input;
  if (value.is_array()) {
    input.messages = value;
    return input;
  }
  if (!value.is_object()) {
    throw UserError(where + ": expected a list of messages or an object with \"messages\", found " +
                    value.type_name());
  }
  static const std::vector<std::string> keys = {"messages", "tools", "add_generation_prompt",
                                                "chat_template_kwargs"};
  for (const auto& [key, item] : value.items()) {
    if (key == "messages" && item.is_array()) {
      input.messages = item;
    } else if (key == "tools" && (item.is_array() || item.is_null())) {
      input.tools = item;
    } else if (key == "add_generation_prompt" && item.is_boolean()) {
      input.add_generation_prompt = item.get<bool>();
    } else if (key == "chat_template_kwargs" && (item.is_object() || item.is_null())) {
      input.extra = item;
    } else if (std::find(keys.begin(), keys.end(), key) != keys.end()) {
      throw UserError(where + ": \"" + key + "\" must be " +
                      (key == "messages" || key == "tools" ? "a list"
                       : key == "chat_template_kwargs"     ? "an object"
                                                           : "true or false") +
                      ", found " + item.type_name());
    } else {
      const std::string nearest = nearest_name(key, keys);
      throw UserError(
          where + ": unknown key \"" + key + "\": " +
          (nearest.empty() ? "must be one of " + join(keys) : "did you mean \"" + nearest + "\"?"));
    }
  }
  if (input.messages.is_null()) throw UserError(where + ": \"messages\" is missing");
  return input;
}

data::ChatTemplate load_template(const std::filesystem::path& directory) {
  auto chat_template = data::ChatTemplate::load(directory);
  if (chat_template) return *chat_template;
  throw UserError(directory.string() +
                  ": no chat template: neither chat_template.jinja nor chat_template in "
                  "tokenizer_config.json");
}

void refuse_contradictions(const po::variables_map& given) {
  const auto needs = [&](const char* option, const char* other) {
    if (given.count(option) != 0 && given.count(other) == 0) {
      throw UserError(std::string("temper tokenize: --") + option + " needs --" + other);
    }
  };
  const auto excludes = [&](const char* option, const char* other) {
    if (given.count(option) != 0 && given.count(other) != 0) {
      throw UserError(std::string("temper tokenize: --") + option + " and --" + other +
                      " exclude each other");
    }
  };
  needs("text", "chat");
  needs("skip-special-tokens", "decode");
  excludes("chat", "decode");
  excludes("encoding", "chat");
  excludes("encoding", "decode");
}

}  // namespace

int tokenize(const std::vector<std::string>& arguments) {
  ArgumentParser parser("temper tokenize MODEL [options] < lines",
                        "Standard input to token ids, one JSON array a line, or back with "
                        "--decode. Ids include the special\n"
                        "tokens of the tokenizer's post-processor.",
                        "echo 'Hello world' | temper tokenize models/stories260K");
  parser.positional(
      "MODEL",
      "a directory with tokenizer.json, tokenizer.model, vocab.json and merges.txt, vocab.txt "
      "or a .tiktoken file (a model, run or checkpoint directory)");
  parser.options().add_options()("json",
                                 "a line of text is a JSON string (input; with --decode output), "
                                 "or a list of two: a pair of texts")(
      "encoding",
      "all that is known of each token as a JSON object a line, cut and padded as tokenizer.json's "
      "truncation and padding say; offsets are bytes")(
      "chat",
      "a line is a JSON list of messages, or an object with messages, tools, "
      "add_generation_prompt, "
      "chat_template_kwargs")(
      "text", "with --chat: print the rendered text as a JSON string instead of ids")(
      "decode", "JSON arrays of ids to text")("skip-special-tokens",
                                              "with --decode: leave special tokens out");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  refuse_contradictions(*given);
  const bool json = given->count("json") != 0, whole = given->count("encoding") != 0,
             chat = given->count("chat") != 0, text = given->count("text") != 0,
             decode = given->count("decode") != 0,
             skip_special = given->count("skip-special-tokens") != 0;

  const auto files = tokenizer_files((*given)["MODEL"].as<std::string>());
  std::optional<data::Tokenizer> tokenizer;  // --chat --text renders only
  if (!text) tokenizer = data::Tokenizer::load(files.directory, files.added_tokens);
  std::optional<data::ChatTemplate> chat_template;

  InputLines lines;
  std::vector<data::Encoding> batch;
  int64_t number = 0;
  while (const auto line = lines.next()) {
    const std::string where = "stdin:" + std::to_string(++number);
    if (chat) {
      const data::ChatInput input = chat_input(data::parse_json(*line, where), where);
      if (!chat_template) chat_template = load_template(files.directory);
      const std::string rendered = chat_template->render(input).text;
      if (text) {
        std::cout << Json(rendered).dump() << "\n";
      } else {
        print_ids(tokenizer->encode(rendered, /*add_special_tokens=*/false));
      }
    } else if (decode) {
      const auto ids = ids_of(data::parse_json(*line, where), *tokenizer, where);
      const std::string decoded = tokenizer->decode(ids, skip_special);
      std::cout << (json ? Json(decoded).dump() : decoded) << "\n";
    } else {
      if (!json && !simdjson::validate_utf8(line->data(), line->size()))
        throw UserError(where + ": not UTF-8");
      const Texts texts = json ? texts_of(data::parse_json(*line, where), where)
                               : Texts{std::string(*line), std::nullopt};
      if (whole) {
        batch.push_back(encode(*tokenizer, texts, tokenizer->truncation(), where));
        if (!tokenizer->padding()) print_encodings(batch, *tokenizer);
      } else if (texts.second) {
        print_ids(encode(*tokenizer, texts, std::nullopt, where).ids);
      } else {
        print_ids(tokenizer->encode(texts.first));
      }
    }
  }
  if (!batch.empty()) print_encodings(batch, *tokenizer);
  return kDone;
}

}  // namespace temper::launch
