#include "data/text/normalizer.h"

#include <utility>

#include "data/text/pattern.h"

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

Normalizer build_nfc(const Component&) { return apply_nfc; }

constexpr Builder<Normalizer> kNormalizers[] = {
    {"Sequence", build_sequence},
    {"Prepend", build_prepend},
    {"Replace", build_replace},
    {"NFC", build_nfc},
};

}  // namespace

Normalizer build_normalizer(const Component& component) {
  if (component.value.is_null()) return nullptr;
  return build_from<Normalizer>(kNormalizers, component);
}

}  // namespace temper::data
