#include "data/text/decoder.h"

#include <algorithm>
#include <optional>
#include <string_view>
#include <utility>

#include "data/text/byte_level.h"
#include "data/text/pattern.h"
#include "data/text/unicode.h"

namespace temper::data {

namespace {

void fuse(std::vector<std::string>& tokens) {
  std::string text;
  for (const std::string& token : tokens) text += token;
  tokens = {std::move(text)};
}

Decoder build_sequence(const Component& component) {
  std::vector<Decoder> steps;
  for (const Component& child : component.children("decoders")) {
    steps.push_back(build_decoder(child));
  }
  return [steps = std::move(steps)](std::vector<std::string>& tokens) {
    for (const Decoder& step : steps) step(tokens);
  };
}

// A token with any letter outside the alphabet stands for itself.
std::string spelled_bytes(const std::string& token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const CodePoint c = decode_utf8(token, at);
    const std::optional<uint8_t> byte = letter_byte(c.value);
    if (!byte) return token;
    bytes.push_back(static_cast<char>(*byte));
    at += c.size;
  }
  return bytes;
}

Decoder build_byte_level(const Component&) {
  return [](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) token = spelled_bytes(token);
    fuse(tokens);
    if (!is_valid_utf8(tokens[0])) tokens[0] = repair_utf8(tokens[0]);
  };
}

// The byte of "<0xHH>"; like the package's number reader, a plus sign may stand for the first
// digit.
std::optional<char> fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return std::nullopt;
  const auto digit = [](char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]);
  const int low = digit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

Decoder build_byte_fallback(const Component&) {
  return [](std::vector<std::string>& tokens) {
    std::vector<std::string> result;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (is_valid_utf8(bytes)) {
        result.push_back(bytes);
      } else {
        result.insert(result.end(), bytes.size(), "\xEF\xBF\xBD");
      }
      bytes.clear();
    };
    for (std::string& token : tokens) {
      if (const auto byte = fallback_byte(token)) {
        bytes.push_back(*byte);
        continue;
      }
      flush();
      result.push_back(std::move(token));
    }
    flush();
    tokens = std::move(result);
  };
}

Decoder build_fuse(const Component&) { return fuse; }

// Up to `start` characters `content` from the front of each token, and `stop` from its end.
Decoder build_strip(const Component& component) {
  std::string content;
  append_utf8(content, component.character("content"));
  const int64_t start = component.integer("start");
  const int64_t stop = component.integer("stop");
  return [=](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) {
      size_t begin = 0;
      for (int64_t i = 0; i < start && token.compare(begin, content.size(), content) == 0; ++i) {
        begin += content.size();
      }
      token.erase(0, begin);
      for (int64_t i = 0; i < stop && token.ends_with(content); ++i) {
        token.resize(token.size() - content.size());
      }
    }
  };
}

Decoder build_replace(const Component& component) {
  return [pattern = Pattern::parse(component.field("pattern"), component.where),
          content = component.text("content")](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) token = pattern.replace_all(token, content);
  };
}

Decoder build_metaspace(const Component& component) {
  std::string mark;
  append_utf8(mark, component.character("replacement"));
  const bool prepends = component.value.contains("prepend_scheme")
                            ? component.text("prepend_scheme") != "never"
                            : component.flag("add_prefix_space", true);
  return [pattern = Pattern(mark), prepends](std::vector<std::string>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = pattern.replace_all(tokens[i], i == 0 && prepends ? "" : " ");
    }
  };
}

// Spaces that WordPiece put before punctuation and the parts of English contractions.
std::string clean_up(std::string text) {
  constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kRules) text = Pattern(std::string(from)).replace_all(text, to);
  return text;
}

Decoder build_wordpiece(const Component& component) {
  return [prefix = component.text("prefix"),
          cleanup = component.flag("cleanup")](std::vector<std::string>& tokens) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) {
        tokens[i] =
            tokens[i].starts_with(prefix) ? tokens[i].substr(prefix.size()) : " " + tokens[i];
      }
      if (cleanup) tokens[i] = clean_up(tokens[i]);
    }
  };
}

Decoder build_bpe(const Component& component) {
  return [suffix = Pattern(component.text("suffix"))](std::vector<std::string>& tokens) {
    for (std::string& token : tokens) {
      token = suffix.replace_all(token, &token == &tokens.back() ? "" : " ");
    }
  };
}

// Connectionist temporal classification: a run of one token is that token once, then the pads go.
Decoder build_ctc(const Component& component) {
  return [pad = Pattern(component.text("pad_token")),
          delimiter = Pattern(component.text("word_delimiter_token")),
          cleanup = component.flag("cleanup")](std::vector<std::string>& tokens) {
    tokens.erase(std::unique(tokens.begin(), tokens.end()), tokens.end());
    for (std::string& token : tokens) {
      token = pad.replace_all(token, "");
      if (cleanup) token = delimiter.replace_all(clean_up(token), " ");
    }
    std::erase(tokens, "");
  };
}

constexpr Builder<Decoder> kDecoders[] = {
    {"Sequence", build_sequence},
    {"ByteLevel", build_byte_level},
    {"ByteFallback", build_byte_fallback},
    {"Fuse", build_fuse},
    {"Strip", build_strip},
    {"Replace", build_replace},
    {"Metaspace", build_metaspace},
    {"WordPiece", build_wordpiece},
    {"BPEDecoder", build_bpe},
    {"CTC", build_ctc},
};

}  // namespace

Decoder build_decoder(const Component& component) {
  if (component.value.is_null()) return nullptr;
  return build_from<Decoder>(kDecoders, component);
}

}  // namespace temper::data
