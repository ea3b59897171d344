#include "recipes/findings.h"

#include <algorithm>
#include <cctype>
#include <limits>
#include <tuple>
#include <utility>

#include "recipes/diagnostic.h"

namespace temper::recipes {

void Findings::wrote(const std::string& key, Place place) { places_[key] = std::move(place); }

const Place* Findings::place(const std::string& key) const {
  const auto found = places_.find(key);
  return found == places_.end() ? nullptr : &found->second;
}

void Findings::add(const std::string& key, const Place& place, const std::string& problem) {
  findings_.push_back({key, place, problem});
}

void Findings::add(const std::vector<std::string>& keys, const std::string& unwritten,
                   const std::string& problem) {
  for (const std::string& key : keys) {
    if (const Place* written = place(key)) return add(key, *written, problem);
  }
  // What was never written stands last.
  add(keys.front(), {file_, unwritten, std::numeric_limits<int>::max(), 0}, problem);
}

bool Findings::clean(const std::vector<std::string>& keys) const {
  return std::none_of(findings_.begin(), findings_.end(), [&](const Finding& finding) {
    return std::find(keys.begin(), keys.end(), finding.key) != keys.end();
  });
}

void Findings::drop_below(const std::string& prefix, const std::string& kept) {
  std::erase_if(findings_, [&](const Finding& finding) {
    return finding.key.starts_with(prefix) && finding.key != kept;
  });
}

void Findings::throw_if_any() const {
  if (findings_.empty()) return;
  std::vector<Finding> ordered = findings_;
  std::stable_sort(ordered.begin(), ordered.end(), [](const Finding& a, const Finding& b) {
    return std::tie(a.place.layer, a.place.line) < std::tie(b.place.layer, b.place.line);
  });
  std::vector<std::string> lines;
  for (const Finding& finding : ordered) {
    std::string line;
    for (const std::string& part : {finding.place.where, finding.place.subject, finding.problem}) {
      if (part.empty()) continue;
      if (!line.empty()) line += ": ";
      line += part;
    }
    // A finding is one line whatever was written in the recipe.
    std::replace_if(
        line.begin(), line.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, ' ');
    lines.push_back(std::move(line));
  }
  throw UserError(std::move(lines));
}

}  // namespace temper::recipes
