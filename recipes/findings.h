#pragma once

#include <map>
#include <string>
#include <vector>

/// Everything wrong with a recipe, collected before anything is said.
namespace temper::recipes {

/// Where a value was written.
struct Place {
  std::string where;    // "dpo.toml:14", or "command line"
  std::string subject;  // "objective.beta = -0.1", or "objective.beta=-0.1" as typed
  int layer = 0;        // order of reading: extended files first, the command line last
  int line = 0;
};

class Findings {
 public:
  /// `file`: named where a finding concerns nothing that was written; "" names nothing.
  explicit Findings(std::string file) : file_(std::move(file)) {}

  /// Remembers where `key` was last written.
  void wrote(const std::string& key, Place place);
  /// As if `key` had never been written.
  void forget(const std::string& key) { places_.erase(key); }
  const Place* place(const std::string& key) const;

  void add(const std::string& key, const Place& place, const std::string& problem);
  /// At the place of the first of `keys` that was written; if none was, `unwritten` is the subject.
  void add(const std::vector<std::string>& keys, const std::string& unwritten,
           const std::string& problem);

  /// No finding so far concerns any of these keys: a rule about them may be judged.
  bool clean(const std::vector<std::string>& keys) const;
  /// Takes back findings about keys that start with `prefix`, except about `kept`.
  void drop_below(const std::string& prefix, const std::string& kept);

  /// UserError with all lines, in order of reading, if there is any.
  void throw_if_any() const;

 private:
  struct Finding {
    std::string key;
    Place place;
    std::string problem;
  };
  std::string file_;
  std::map<std::string, Place> places_;
  std::vector<Finding> findings_;
};

}  // namespace temper::recipes
