#include "parallel/trace.h"

#include <thread>

#include <gtest/gtest.h>

#include "parallel/clock_offset.h"

namespace temper::parallel {

namespace {

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Trace, RecordsNothingUntilItStarts) {
  { const TraceSpan span("forward"); }
  { const TraceOperation operation("write"); }
  EXPECT_FALSE(tracing());
  EXPECT_EQ(take_trace(), "");
}

TEST(Trace, HandsOverWhatEndedSinceTheLastCall) {
  start_trace(3, steady_seconds());
  {
    const TraceSpan step("step", 7);
    { const TraceSpan forward("forward"); }
    const std::string first = take_trace();
    EXPECT_EQ(count(first, "\"ph\":\"X\""), 1) << first;
    EXPECT_NE(first.find("\"name\":\"forward\",\"pid\":3"), std::string::npos) << first;
  }
  const std::string second = take_trace();
  EXPECT_EQ(count(second, "\"ph\":"), 1) << second;
  EXPECT_NE(second.find("\"name\":\"step 7\""), std::string::npos) << second;
  stop_trace();
}

TEST(Trace, AnOperationOfAnyThreadHasABeginningAndAnEndWithOneNumber) {
  start_trace(0, steady_seconds());
  std::thread([] { const TraceOperation operation("write"); }).join();
  std::thread([] { const TraceOperation operation("write"); }).join();
  const std::string events = take_trace();
  for (const char* part : {"\"ph\":\"b\"", "\"ph\":\"e\""})
    EXPECT_EQ(count(events, part), 2) << events;
  for (const char* id : {"\"id\":\"0/1\"", "\"id\":\"0/2\""})
    EXPECT_EQ(count(events, id), 2) << events;
  stop_trace();
}

TEST(Trace, WhatEndsAfterItHasStoppedIsNotRecorded) {
  start_trace(0, steady_seconds());
  {
    const TraceSpan span("step");
    stop_trace();
  }
  EXPECT_EQ(take_trace(), "");
}

TEST(Trace, LabelsNestAndEnd) {
  start_trace(0, steady_seconds());
  const TraceLabel bucket("bucket", 1);
  {
    const TraceLabel inner("shard", 2);
    EXPECT_EQ(TraceLabel::current(), "shard 2");
  }
  EXPECT_EQ(TraceLabel::current(), "bucket 1");
  stop_trace();
}

}  // namespace

}  // namespace temper::parallel
