#include "services/router/wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "tests/support/status_matchers.h"

namespace caravan::router {
namespace {

using testing::HasReason;
using ::testing::HasSubstr;

TEST(WireTest, NumbersOutOfRangeAreRefusedByField) {
  v1::PlaceRequest request;
  request.set_prompt_token_count(-1);
  EXPECT_THAT(ToQuery(request), HasReason(Reason::kInvalidField,
                                          HasSubstr("prompt_token_count")));
  request.set_prompt_token_count(0);
  request.set_expected_output_token_count(-5);
  EXPECT_THAT(ToQuery(request),
              HasReason(Reason::kInvalidField,
                        HasSubstr("expected_output_token_count")));
  request.set_expected_output_token_count(0);
  request.set_priority(101);
  EXPECT_THAT(ToQuery(request),
              HasReason(Reason::kInvalidField, HasSubstr("[-100, 100]")));
}

TEST(WireTest, ListsHaveBounds) {
  v1::PlaceRequest request;
  const std::string worker = "w1";
  for (int i = 0; i <= kMaxExcluded; ++i)
    request.add_excluded_worker_ids(worker);
  EXPECT_THAT(ToQuery(request), HasReason(Reason::kInvalidField,
                                          HasSubstr("excluded_worker_ids")));
  request.clear_excluded_worker_ids();
  for (int i = 0; i <= kMaxChains; ++i) request.add_chains();
  EXPECT_THAT(ToQuery(request),
              HasReason(Reason::kInvalidField, HasSubstr("chains")));
}

TEST(WireTest, AHashHasSixteenBytes) {
  v1::PlaceRequest request;
  request.add_chains()->add_hashes(std::string(15, 'x'));
  EXPECT_THAT(ToQuery(request),
              HasReason(Reason::kInvalidField, HasSubstr("15 bytes")));
}

TEST(WireTest, AHostileLoadIsHarmless) {
  v1::Load load;
  load.set_running_sequence_count(-7);
  load.set_queued_prefill_token_count(std::numeric_limits<int64_t>::min());
  load.set_decode_tokens_per_second(std::numeric_limits<float>::quiet_NaN());
  load.set_prefill_tokens_per_second(std::numeric_limits<float>::infinity());
  const ReplicaLoad converted = ToReplicaLoad(load);
  EXPECT_EQ(converted.running_count, 0);
  EXPECT_EQ(converted.queued_prefill_tokens, 0);
  EXPECT_EQ(converted.decode_tokens_per_second, 0);
  EXPECT_EQ(converted.prefill_tokens_per_second, 0);
}

TEST(WireTest, EventsAreNumberedFromOneSnapshotsFromZero) {
  v1::KvEvents events;
  EXPECT_THAT(ToKvChange(events),
              HasReason(Reason::kInvalidField, HasSubstr("sequence_number")));
  events.set_snapshot(true);
  EXPECT_OK(ToKvChange(events));
  events.set_sequence_number(-1);
  EXPECT_THAT(ToKvChange(events), HasReason(Reason::kInvalidField));
}

TEST(WireTest, RevisionsMustOverlap) {
  v1::Hello hello;
  hello.set_least_revision(1);
  hello.set_greatest_revision(5);
  EXPECT_OK(CheckHello(hello));
  hello.set_least_revision(2);
  EXPECT_THAT(CheckHello(hello), HasReason(Reason::kProtocolMismatch));
}

TEST(WireTest, DurationsKeepTheirParts) {
  const google::protobuf::Duration duration = ToProto(absl::Milliseconds(1500));
  EXPECT_EQ(duration.seconds(), 1);
  EXPECT_EQ(duration.nanos(), 500'000'000);
}

}  // namespace
}  // namespace caravan::router
