#include "trainer/metrics/report.h"

#include <cmath>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/metrics/chart.h"

namespace temper::trainer {
namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Report, HasAChartForEveryMetricAndEvaluationsBesideWhatTheyEvaluate) {
  const Scratch scratch;
  write_all(scratch / "metrics.jsonl",
            "{\"step\":1,\"epoch\":0.5,\"loss\":3.0,\"grad_norm\":1.0,\"tokens_per_second\":100}\n"
            "{\"step\":2,\"epoch\":1,\"loss\":2.0,\"grad_norm\":\"NaN\",\"eval_loss\":2.5,\"tokens_"
            "per_second\":300,"
            "\"memory/peak_mib\":812}\n"
            "{\"step\":3,\"lo");
  write_report(scratch.path());
  const std::string page = read_all(scratch / "report.html");
  EXPECT_EQ(count(page, "<svg"),
            5u);  // epoch, loss with eval_loss, grad_norm, tokens_per_second, memory
  EXPECT_EQ(count(page, "</svg>"), 5u);
  EXPECT_NE(page.find("eval_loss</span>"), std::string::npos);
  EXPECT_NE(page.find("<b>812 MiB</b>"), std::string::npos);
  EXPECT_NE(page.find("[[[1,3],[2,2]],[[2,2.5]]]"), std::string::npos);
  EXPECT_NE(page.find("[[[1,1],[2,null]]]"), std::string::npos);
  EXPECT_EQ(page.find("http"), std::string::npos);  // nothing from elsewhere
  EXPECT_EQ(page.find("nan"), std::string::npos);
}

TEST(Report, EscapesWhatComesFromData) {
  const Scratch scratch;
  std::filesystem::create_directories(scratch / "samples");
  write_all(scratch / "samples/step-000010.jsonl",
            "{\"step\":10,\"prompt\":\"<script>alert('1')</script>\",\"completion\":\"a & "
            "b\",\"reward\":0.5}\n");
  write_all(scratch / "recipe.toml", "[run]\nname = \"<b>\"\n");
  write_report(scratch.path());
  const std::string page = read_all(scratch / "report.html");
  EXPECT_EQ(page.find("<script>alert"), std::string::npos);
  EXPECT_NE(page.find("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"), std::string::npos);
  EXPECT_NE(page.find("a &amp; b"), std::string::npos);
  EXPECT_NE(page.find("reward 0.5"), std::string::npos);
  EXPECT_NE(page.find("name = &quot;&lt;b&gt;&quot;"), std::string::npos);
}

TEST(Report, ShowsTheNewestSamples) {
  const Scratch scratch;
  std::filesystem::create_directories(scratch / "samples");
  for (const char* step : {"100", "200", "300", "400"}) {
    write_all(scratch / ("samples/step-000" + std::string(step) + ".jsonl"),
              "{\"completion\":\"text " + std::string(step) + "\"}\n");
  }
  write_report(scratch.path());
  const std::string page = read_all(scratch / "report.html");
  EXPECT_NE(page.find("text 400"), std::string::npos);
  EXPECT_EQ(page.find("text 100"), std::string::npos);
}

TEST(Report, AnEmptyRunHasAPageToo) {
  const Scratch scratch;
  write_report(scratch.path());
  EXPECT_NE(read_all(scratch / "report.html").find("No metrics yet"), std::string::npos);
}

TEST(Report, AnUnwritableDirectoryIsARunError) {
  EXPECT_THROW(write_report("/dev/null"), RunError);
}

TEST(Chart, LongSeriesAreThinnedAndKeepTheirPeaks) {
  Series series{.name = "loss", .points = {}};
  for (int step = 0; step < 100000; ++step)
    series.points.emplace_back(step, step == 54321 ? 99.5 : 1.0);
  const std::string html = chart_html("loss", {series});
  EXPECT_LT(html.size(), 60000u);
  EXPECT_NE(html.find("[54321,99.5]"), std::string::npos);
  EXPECT_NE(html.find("[99999,1]"), std::string::npos);
}

TEST(Chart, OnePointAndConstantsHaveAxes) {
  for (const double value : {0.0, 5.0, -1e-9, 1e300}) {
    const std::string html = chart_html("x", {{.name = "x", .points = {{1, value}}}});
    EXPECT_NE(html.find("<circle"), std::string::npos);
    EXPECT_EQ(html.find("nan"), std::string::npos) << html;
    EXPECT_EQ(html.find("inf"), std::string::npos) << html;
  }
}

TEST(Chart, ConstantsThatDifferByRoundingHaveAxes) {
  const double next = std::nextafter(0.1, 1);
  const std::string html = chart_html("x", {{.name = "x", .points = {{1, 0.1}, {2, next}}}});
  EXPECT_LT(html.size(), 10000u);
}

TEST(ShortNumber, HasFourDigitsAndAUnit) {
  EXPECT_EQ(short_number(0), "0");
  EXPECT_EQ(short_number(2.34567), "2.346");
  EXPECT_EQ(short_number(12345), "12.35k");
  EXPECT_EQ(short_number(81920000), "81.92M");
  EXPECT_EQ(short_number(2e-5), "2e-05");
  EXPECT_EQ(short_number(-1500), "-1500");
}

}  // namespace
}  // namespace temper::trainer
