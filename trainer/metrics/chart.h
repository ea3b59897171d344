#pragma once

#include <string>
#include <utility>
#include <vector>

/// Line charts as inline SVG, for report.html.
namespace temper::trainer {

struct Series {
  std::string name;
  std::vector<std::pair<double, double>>
      points;  // (step, value), by step; values that are not finite interrupt the line
};

/// <figure> with heading, legend (for more than one series), axes and one line a series; a series
/// of many thousand points is thinned so that its peaks stay. The points are attached as data for
/// the page's hover script.
std::string chart_html(const std::string& title, const std::vector<Series>& series);

/// "12.3k", "0.00021", "1.5e-07": four significant digits.
std::string short_number(double value);

std::string escape_html(const std::string& text);

}  // namespace temper::trainer
