#include "trainer/metrics/chart.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace temper::trainer {

namespace {

constexpr double kWidth = 640, kHeight = 250;
constexpr double kLeft = 62, kRight = 14, kTop = 12, kBottom = 28;
constexpr size_t kPoints = 800;  // of a series, about one a pixel

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    if (!std::isfinite(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  /// Not empty and not a point.
  void widen() {
    if (low > high) low = 0, high = 1;
    // Values that differ by rounding alone are one value: ticks between them would be no numbers.
    const double size = std::max(std::abs(low), std::abs(high));
    if (high - low <= 1e-9 * size) {
      const double margin = size == 0 ? 1 : size * 0.1;
      low -= margin;
      high += margin;
    }
  }
};

// 1, 2 or 5 times a power of ten, some `count` of them in the range.
std::vector<double> ticks(const Range& range, int count) {
  const double rough = (range.high - range.low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double share = rough / power;
  const double step = power * (share < 1.5 ? 1 : share < 3.5 ? 2 : share < 7.5 ? 5 : 10);
  std::vector<double> values;
  for (double i = std::ceil(range.low / step - 1e-9); i * step <= range.high + 1e-9 * step; ++i) {
    values.push_back(i * step);
  }
  return values;
}

std::string fixed(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string digits(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::isfinite(value) ? text : "null";
}

// The lowest and the highest point of each stretch stay.
std::vector<std::pair<double, double>> thinned(
    const std::vector<std::pair<double, double>>& points) {
  if (points.size() <= kPoints) return points;
  std::vector<std::pair<double, double>> kept;
  const size_t stretch = (points.size() * 2 + kPoints - 1) / kPoints;
  for (size_t begin = 0; begin < points.size(); begin += stretch) {
    const auto first = points.begin() + static_cast<std::ptrdiff_t>(begin);
    const auto last =
        points.begin() + static_cast<std::ptrdiff_t>(std::min(begin + stretch, points.size()));
    auto [low, high] = std::minmax_element(
        first, last, [](const auto& a, const auto& b) { return a.second < b.second; });
    if (high < low) std::swap(low, high);
    kept.push_back(*low);
    if (high != low) kept.push_back(*high);
  }
  if (kept.back() != points.back()) kept.push_back(points.back());
  return kept;
}

struct Frame {
  Range x, y;
  double across(double value) const {
    return kLeft + (value - x.low) / (x.high - x.low) * (kWidth - kLeft - kRight);
  }
  double down(double value) const {
    return kHeight - kBottom - (value - y.low) / (y.high - y.low) * (kHeight - kTop - kBottom);
  }
};

std::string axes_svg(const Frame& frame) {
  std::string svg;
  for (const double value : ticks(frame.y, 4)) {
    const std::string y = fixed(frame.down(value));
    svg += "<line class=\"grid\" x1=\"" + fixed(kLeft) + "\" x2=\"" + fixed(kWidth - kRight) +
           "\" y1=\"" + y + "\" y2=\"" + y + "\"/><text x=\"" + fixed(kLeft - 8) + "\" y=\"" + y +
           "\" dy=\"0.32em\" text-anchor=\"end\">" + short_number(value) + "</text>";
  }
  for (const double value : ticks(frame.x, 6)) {
    svg += "<text x=\"" + fixed(frame.across(value)) + "\" y=\"" + fixed(kHeight - 8) +
           "\" text-anchor=\"middle\">" + short_number(value) + "</text>";
  }
  return svg;
}

std::string line_svg(const Frame& frame, const std::vector<std::pair<double, double>>& points,
                     size_t number) {
  std::string path;
  bool interrupted = true;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(y)) {
      interrupted = true;
      continue;
    }
    path += (interrupted ? "M" : "L") + fixed(frame.across(x)) + " " + fixed(frame.down(y));
    interrupted = false;
  }
  const std::string style = "class=\"s" + std::to_string(number % 4) + "\"";
  std::string svg = "<path " + style + " d=\"" + path + "\"/>";
  if (points.size() > 40) return svg;
  for (const auto& [x, y] : points) {
    if (!std::isfinite(y)) continue;
    svg += "<circle " + style + " cx=\"" + fixed(frame.across(x)) + "\" cy=\"" +
           fixed(frame.down(y)) + "\" r=\"2.5\"/>";
  }
  return svg;
}

}  // namespace

std::string chart_html(const std::string& title, const std::vector<Series>& series) {
  Frame frame;
  for (const Series& one : series) {
    for (const auto& [x, y] : one.points) {
      frame.x.add(x);
      frame.y.add(y);
    }
  }
  frame.x.widen();
  frame.y.widen();
  const double margin = (frame.y.high - frame.y.low) * 0.04;
  frame.y.low -= margin;
  frame.y.high += margin;

  std::string lines, legend, data = "[";
  for (size_t i = 0; i < series.size(); ++i) {
    const auto points = thinned(series[i].points);
    lines += line_svg(frame, points, i);
    if (series.size() > 1) {
      legend += "<span class=\"key\"><i class=\"b" + std::to_string(i % 4) + "\"></i>" +
                escape_html(series[i].name) + "</span>";
    }
    data += i > 0 ? ",[" : "[";
    for (size_t p = 0; p < points.size(); ++p) {
      data += (p > 0 ? ",[" : "[") + digits(points[p].first) + "," + digits(points[p].second) + "]";
    }
    data += "]";
  }
  data += "]";
  const std::string area = digits(frame.x.low) + " " + digits(frame.x.high) + " " +
                           digits(frame.y.low) + " " + digits(frame.y.high);
  return "<figure><figcaption>" + escape_html(title) + legend + "</figcaption><svg viewBox=\"0 0 " +
         digits(kWidth) + " " + digits(kHeight) + "\" role=\"img\" aria-label=\"" +
         escape_html(title) + " by step\" data-area=\"" + area + "\" data-points=\"" + data +
         "\">" + axes_svg(frame) + lines + "<line class=\"cursor\" y1=\"" + fixed(kTop) +
         "\" y2=\"" + fixed(kHeight - kBottom) + "\"/></svg></figure>\n";
}

std::string short_number(double value) {
  char text[32];
  const double size = std::abs(value);
  if (size >= 1e12 || (size < 1e-4 && size > 0) || !std::isfinite(value)) {
    std::snprintf(text, sizeof text, "%.4g", value);
  } else if (size >= 1e9) {
    std::snprintf(text, sizeof text, "%.4gG", value / 1e9);
  } else if (size >= 1e6) {
    std::snprintf(text, sizeof text, "%.4gM", value / 1e6);
  } else if (size >= 1e4) {
    std::snprintf(text, sizeof text, "%.4gk", value / 1e3);
  } else {
    std::snprintf(text, sizeof text, "%.4g", size < 1e-15 ? 0.0 : value);
  }
  return text;
}

std::string escape_html(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace temper::trainer
