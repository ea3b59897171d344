#include "data/text/normalizer.h"

#include <utility>

#include "data/text/byte_level.h"
#include "data/text/pattern.h"
#include "data/text/unicode.h"

namespace temper::data {

namespace {

Normalizer build_sequence(const Component& component) {
  std::vector<Normalizer> steps;
  for (const Component& child : component.children("normalizers")) {
    steps.push_back(build_normalizer(child));
  }
  return [steps = std::move(steps)](Passage& passage) {
    for (const Normalizer& step : steps) step(passage);
  };
}

// Inserted letters come from where the first character came from.
Normalizer build_prepend(const Component& component) {
  return [prefix = component.text("prepend")](Passage& passage) {
    const auto size = static_cast<uint32_t>(passage.text().size());
    if (size == 0) return;
    Rewrite rewrite(passage);
    rewrite.put(prefix, 0);
    rewrite.keep({0, size});
    rewrite.finish();
  };
}

Normalizer build_replace(const Component& component) {
  return [pattern = Pattern::parse(component.field("pattern"), component.where),
          content = component.text("content")](Passage& passage) {
    thread_local std::vector<Span> matches;
    pattern.find_all(passage.text(), matches);
    if (matches.empty()) return;
    Rewrite rewrite(passage);
    uint32_t done = 0;
    for (const Span match : matches) {
      rewrite.keep({done, match.begin});
      rewrite.insert(content, match.end);
      done = match.end;
    }
    rewrite.keep({done, static_cast<uint32_t>(passage.text().size())});
    rewrite.finish();
  };
}

template <NormalForm form>
Normalizer build_normal_form(const Component&) {
  return [](Passage& passage) { apply_normal_form(form, passage); };
}

// Whitespace at the ends.
Normalizer build_strip(const Component& component) {
  return [left = component.flag("strip_left"),
          right = component.flag("strip_right")](Passage& passage) {
    const std::string& text = passage.text();
    size_t begin = 0;
    size_t end = text.size();
    while (left && begin < end) {
      const CodePoint c = decode_utf8(text, begin);
      if (!is_whitespace(c.value)) break;
      begin += c.size;
    }
    while (right && end > begin) {
      size_t last = end - 1;
      while (continues_character(text[last])) --last;
      if (!is_whitespace(decode_utf8(text, last).value)) break;
      end = last;
    }
    if (begin == 0 && end == text.size()) return;
    Rewrite rewrite(passage);
    rewrite.keep({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
    rewrite.finish();
  };
}

Normalizer build_byte_level(const Component&) {
  return [](Passage& passage) {
    Rewrite rewrite(passage);
    for (size_t at = 0; at < passage.text().size(); ++at) {
      rewrite.put(byte_letter(static_cast<uint8_t>(passage.text()[at])), at);
    }
    rewrite.finish();
  };
}

constexpr Builder<Normalizer> kNormalizers[] = {
    {"Sequence", build_sequence},
    {"Prepend", build_prepend},
    {"Replace", build_replace},
    {"NFC", build_normal_form<NormalForm::kNfc>},
    {"NFD", build_normal_form<NormalForm::kNfd>},
    {"NFKC", build_normal_form<NormalForm::kNfkc>},
    {"NFKD", build_normal_form<NormalForm::kNfkd>},
    {"Lowercase", build_lowercase},
    {"Strip", build_strip},
    {"StripAccents", build_strip_accents},
    {"BertNormalizer", build_bert},
    {"Precompiled", build_precompiled},
    {"ByteLevel", build_byte_level},
    {"Nmt", build_nmt},
};

}  // namespace

Normalizer build_normalizer(const Component& component) {
  if (component.value.is_null()) return nullptr;
  return build_from<Normalizer>(kNormalizers, component);
}

}  // namespace temper::data
