#include "worker/bench/samples.h"

#include <gtest/gtest.h>

#include <vector>

namespace caravan::worker::bench {
namespace {

MomentCeilings Moment(double read, double operations = 1000) {
  return {.read_bytes_per_second = read, .operations_per_second = operations};
}

Work OneSecond(double bytes, double operations = 0) {
  return {.seconds = 1, .tokens = 10, .bytes = bytes, .operations = operations};
}

TEST(QuantileTest, InterpolatesBetweenNeighbours) {
  EXPECT_EQ(Quantile({}, 0.5), 0);
  EXPECT_EQ(Quantile({3}, 0.5), 3);
  EXPECT_EQ(Quantile({4, 1}, 0.5), 2.5);
  EXPECT_EQ(Quantile({5, 1, 3}, 0), 1);
  EXPECT_EQ(Quantile({5, 1, 3}, 1), 5);
  EXPECT_EQ(Median({9, 1, 2, 8, 3}), 3);
}

TEST(BracketedSamplesTest, ProbesThatDifferDropTheSample) {
  BracketedSamples samples({.wanted = 3, .most_attempts = 9});
  EXPECT_TRUE(samples.Add(Moment(100), OneSecond(50), Moment(108)));
  EXPECT_FALSE(samples.Add(Moment(100), OneSecond(50), Moment(108.5)));
  EXPECT_FALSE(samples.Add(Moment(109), OneSecond(50), Moment(100)));
  EXPECT_EQ(samples.kept_count(), 1);
  EXPECT_EQ(samples.dropped_count(), 2);
  EXPECT_TRUE(samples.wants_more());
}

TEST(BracketedSamplesTest, ProbesOfNothingDropTheSample) {
  BracketedSamples samples({});
  EXPECT_FALSE(samples.Add(Moment(0), OneSecond(50), Moment(0)));
  EXPECT_FALSE(samples.Add(Moment(100), Work{}, Moment(100)));
  EXPECT_EQ(samples.dropped_count(), 2);
}

TEST(BracketedSamplesTest, RatiosAreTakenInTheirOwnBracket) {
  BracketedSamples samples({.wanted = 3, .most_attempts = 9});
  // The machine's speed flips; the share that is reached does not.
  samples.Add(Moment(100), OneSecond(90), Moment(100));
  samples.Add(Moment(50), OneSecond(45), Moment(50));
  samples.Add(Moment(98), OneSecond(90), Moment(102));
  EXPECT_DOUBLE_EQ(samples.MedianOf(&Sample::read_share), 0.9);
  EXPECT_DOUBLE_EQ(samples.MedianOf(&Sample::bytes_per_second), 90);
  EXPECT_DOUBLE_EQ(samples.SpreadOf(&Sample::read_share), 0);
}

TEST(BracketedSamplesTest, ArithmeticIsComparedWithTheGreaterProbe) {
  BracketedSamples samples({});
  samples.Add(Moment(100, 400), OneSecond(1, 200), Moment(100, 500));
  EXPECT_DOUBLE_EQ(samples.MedianOf(&Sample::operations_share), 0.4);
}

TEST(BracketedSamplesTest, TheNearerBoundIsTheOneThatBinds) {
  BracketedSamples samples({});
  samples.Add(Moment(100, 400), OneSecond(30, 200), Moment(100, 400));
  EXPECT_DOUBLE_EQ(samples.MedianOf(&Sample::bound_share), 0.5);
  BracketedSamples reading({});
  reading.Add(Moment(100, 400), OneSecond(80, 200), Moment(100, 400));
  EXPECT_DOUBLE_EQ(reading.MedianOf(&Sample::bound_share), 0.8);
}

TEST(BracketedSamplesTest, AttemptsAreBounded) {
  BracketedSamples samples({.wanted = 2, .most_attempts = 4});
  samples.Add(Moment(100), OneSecond(90), Moment(100));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(samples.wants_more());
    samples.Add(Moment(100), OneSecond(90), Moment(50));
  }
  EXPECT_FALSE(samples.wants_more());
  EXPECT_FALSE(samples.complete());
}

TEST(BracketedSamplesTest, EnoughSamplesEndThePoint) {
  BracketedSamples samples({.wanted = 2, .most_attempts = 4});
  samples.Add(Moment(100), OneSecond(90), Moment(100));
  samples.Add(Moment(100), OneSecond(90), Moment(100));
  EXPECT_FALSE(samples.wants_more());
  EXPECT_TRUE(samples.complete());
}

TEST(FindCliffsTest, NamesEveryBatchThatYieldsLessThanASmallerOne) {
  const std::vector<Cliff> cliffs =
      FindCliffs({{.batch = 1, .tokens_per_second = 10},
                  {.batch = 3, .tokens_per_second = 15},
                  {.batch = 2, .tokens_per_second = 20},
                  {.batch = 4, .tokens_per_second = 21},
                  {.batch = 5, .tokens_per_second = 18.9}});
  ASSERT_EQ(cliffs.size(), 2u);
  EXPECT_EQ(cliffs[0].batch, 3);
  EXPECT_EQ(cliffs[0].than_batch, 2);
  EXPECT_DOUBLE_EQ(cliffs[0].loss, 0.25);
  EXPECT_EQ(cliffs[1].batch, 5);
  EXPECT_EQ(cliffs[1].than_batch, 4);
}

TEST(FindCliffsTest, WhatTheSpreadExplainsIsNoCliff) {
  EXPECT_TRUE(FindCliffs({{.batch = 1, .tokens_per_second = 10, .spread = 0.1},
                          {.batch = 2, .tokens_per_second = 9.5}})
                  .empty());
  EXPECT_TRUE(FindCliffs({{.batch = 1, .tokens_per_second = 10},
                          {.batch = 2, .tokens_per_second = 9.85}})
                  .empty());
  EXPECT_TRUE(FindCliffs({}).empty());
}

}  // namespace
}  // namespace caravan::worker::bench
