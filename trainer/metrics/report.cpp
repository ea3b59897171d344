#include "trainer/metrics/report.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "data/io/atomic_file.h"
#include "data/io/json.h"
#include "trainer/metrics/chart.h"
#include "trainer/metrics/report_page.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

constexpr size_t kSampleFiles = 3;    // the newest
constexpr size_t kSamplesShown = 24;  // of each

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Lines that are no objects (half a line of a run that was killed) are left out.
std::vector<data::Json> read_lines(const fs::path& path) {
  std::vector<data::Json> objects;
  std::ifstream file(path, std::ios::binary);
  for (std::string line; std::getline(file, line);) {
    data::Json json = data::Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (json.is_object()) objects.push_back(std::move(json));
  }
  return objects;
}

/// The metrics in the order in which they first appear.
std::vector<Series> read_series(const fs::path& metrics) {
  std::vector<Series> all;
  for (const data::Json& line : read_lines(metrics)) {
    if (!line.contains("step") || !line["step"].is_number()) continue;
    for (const auto& [name, value] : line.items()) {
      if (name == "step") continue;
      auto series =
          std::find_if(all.begin(), all.end(), [&](const Series& one) { return one.name == name; });
      if (series == all.end()) series = all.insert(all.end(), Series{.name = name, .points = {}});
      series->points.emplace_back(line["step"].get<double>(),
                                  value.is_number() ? value.get<double>() : std::nan(""));
    }
  }
  return all;
}

const Series* find_series(const std::vector<Series>& all, const std::string& name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const Series& one) { return one.name == name; });
  return found == all.end() ? nullptr : &*found;
}

std::string tile(const std::string& label, const std::string& value) {
  return "<div class=\"tile\"><b>" + escape_html(value) + "</b><span>" + escape_html(label) +
         "</span></div>";
}

// Values that are numbers, with their steps.
std::vector<std::pair<double, double>> finite_points(const std::vector<Series>& all,
                                                     const std::string& name) {
  std::vector<std::pair<double, double>> points;
  if (const Series* series = find_series(all, name)) {
    std::copy_if(series->points.begin(), series->points.end(), std::back_inserter(points),
                 [](const auto& point) { return std::isfinite(point.second); });
  }
  return points;
}

std::string tiles_html(const std::vector<Series>& all) {
  double last_step = 0;
  for (const Series& series : all) last_step = std::max(last_step, series.points.back().first);
  std::string tiles = tile("steps", short_number(last_step));
  const auto by_value = [](const auto& a, const auto& b) { return a.second < b.second; };
  const auto add_last = [&](const char* name, const char* label, const char* unit) {
    const auto points = finite_points(all, name);
    if (!points.empty()) tiles += tile(label, short_number(points.back().second) + unit);
  };
  add_last("epoch", "epochs", "");
  add_last("num_tokens", "tokens", "");
  add_last("loss", "last loss", "");
  if (const auto points = finite_points(all, "eval_loss"); !points.empty()) {
    const auto best = *std::min_element(points.begin(), points.end(), by_value);
    tiles += tile("best eval loss, step " + short_number(best.first), short_number(best.second));
  }
  if (auto points = finite_points(all, "tokens_per_second"); !points.empty()) {
    const auto middle = points.begin() + std::ssize(points) / 2;
    std::nth_element(points.begin(), middle, points.end(), by_value);
    tiles += tile("tokens per second, median", short_number(middle->second));
  }
  add_last("memory/peak_mib", "peak memory of a rank", " MiB");
  add_last("memory/device_peak_mib", "peak memory of its device", " MiB");
  return "<div class=\"tiles\">" + tiles + "</div>\n";
}

std::string charts_html(const std::vector<Series>& all) {
  static const std::set<std::string> kMachine = {
      "tokens_per_second", "mfu",           "step_time",
      "exchange_time",     "eval_runtime",  "memory/peak_mib",
      "memory/device_peak_mib"};
  static const std::set<std::string> kPosition = {"epoch", "num_tokens", "eval_num_tokens",
                                                  "skipped_steps"};
  std::string learning, machine, position;
  for (const Series& series : all) {
    const bool evaluation = series.name.starts_with("eval_");
    if (evaluation && !kPosition.contains(series.name) && find_series(all, series.name.substr(5))) {
      continue;  // drawn with what it evaluates
    }
    std::vector<Series> drawn = {series};
    const Series* evaluated = find_series(all, "eval_" + series.name);
    if (evaluated && !kPosition.contains(evaluated->name)) drawn.push_back(*evaluated);
    std::string& section = kMachine.contains(series.name)    ? machine
                           : kPosition.contains(series.name) ? position
                                                             : learning;
    section += chart_html(series.name, drawn);
  }
  std::string html;
  const auto add = [&](const char* title, const std::string& charts) {
    if (!charts.empty())
      html += std::string("<h2>") + title + "</h2>\n<div class=\"charts\">\n" + charts + "</div>\n";
  };
  add("Learning", learning);
  add("Throughput and memory", machine);
  add("Where the run is", position);
  return html;
}

std::string sample_html(const data::Json& sample) {
  std::string html = "<div class=\"sample\">";
  std::string numbers;
  for (const auto& [name, value] : sample.items()) {
    if (value.is_string()) {
      html += "<h3>" + escape_html(name) + "</h3><pre>" + escape_html(value.get<std::string>()) +
              "</pre>";
    } else if (name != "step") {
      numbers += (numbers.empty() ? "" : ", ") + name + " " + value.dump();
    }
  }
  if (!numbers.empty()) html += "<span class=\"soft\">" + escape_html(numbers) + "</span>";
  return html + "</div>\n";
}

std::string samples_html(const fs::path& directory) {
  if (!fs::is_directory(directory)) return "";
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
  }
  std::sort(files.rbegin(), files.rend());
  if (files.size() > kSampleFiles) files.resize(kSampleFiles);
  std::string html;
  for (const fs::path& file : files) {
    std::string samples;
    const std::vector<data::Json> lines = read_lines(file);
    for (size_t i = 0; i < std::min(lines.size(), kSamplesShown); ++i)
      samples += sample_html(lines[i]);
    if (lines.size() > kSamplesShown) {
      samples += "<p class=\"soft\">" + std::to_string(lines.size() - kSamplesShown) +
                 " more in samples/" + escape_html(file.filename().string()) + "</p>";
    }
    if (samples.empty()) continue;
    html += std::string("<details") + (html.empty() ? " open" : "") + "><summary>" +
            escape_html(file.stem().string()) + "</summary>\n" + samples + "</details>\n";
  }
  return html.empty() ? "" : "<h2>Samples</h2>\n" + html;
}

std::string text_html(const std::string& title, const fs::path& file) {
  const std::string text = read_text(file);
  if (text.empty()) return "";
  return "<details><summary>" + escape_html(title) + "</summary><pre>" + escape_html(text) +
         "</pre></details>\n";
}

}  // namespace

void write_report(const fs::path& run_directory) {
  const std::string name =
      escape_html(fs::absolute(run_directory / "").parent_path().filename().string());
  const std::vector<Series> series = read_series(run_directory / "metrics.jsonl");
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>" +
      name + "</title>\n<style>" + kReportStyle +
      "</style></head>\n<body><main>\n"
      "<h1>" +
      name + "</h1>\n<div class=\"soft\">A run of temper</div>\n";
  if (series.empty()) {
    page += "<p>No metrics yet.</p>\n";
  } else {
    page += tiles_html(series) + charts_html(series);
  }
  page += samples_html(run_directory / "samples");
  page += "<h2>How it was made</h2>\n";
  page += text_html("recipe.toml", run_directory / "recipe.toml");
  page += text_html("environment.json", run_directory / "environment.json");
  page += std::string("</main>\n<script>") + kReportScript + "</script></body></html>\n";
  data::write_file_atomically(run_directory / "report.html", page);
}

}  // namespace temper::trainer
