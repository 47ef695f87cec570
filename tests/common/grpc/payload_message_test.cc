#include "common/grpc/payload_message.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "caravan/v1/stage.pb.h"
#include "tests/support/status_matchers.h"

namespace caravan {
namespace {

constexpr PayloadField kHidden = {.outer = v1::StageRequest::kPlanFieldNumber,
                                  .inner = v1::StagePlan::kHiddenFieldNumber};

v1::StageRequest PlanMessage() {
  v1::StageRequest request;
  request.mutable_plan()->set_step(7);
  request.mutable_plan()->set_epoch(77);
  request.mutable_plan()->set_dtype("fp32");
  request.mutable_plan()->add_rows()->set_token_count(3);
  request.mutable_plan()->set_hidden_crc32c(5);
  request.set_crc32c(9);
  return request;
}

std::span<const std::byte> BytesOf(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string StringOf(const ReceivedBytes& bytes) {
  std::string text(bytes.size(), '\0');
  bytes.CopyTo(reinterpret_cast<std::byte*>(text.data()));
  return text;
}

std::string WireOf(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(buffer.Dump(&slices).ok());
  std::string wire;
  for (const grpc::Slice& slice : slices) {
    wire.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return wire;
}

// The bytes in slices of `size`, as a transport may cut them.
grpc::ByteBuffer Cut(std::string_view wire, size_t size) {
  std::vector<grpc::Slice> slices;
  for (size_t begin = 0; begin < wire.size(); begin += size) {
    slices.emplace_back(std::string(wire.substr(begin, size)));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

TEST(PayloadMessageTest, ProtobufReadsWhatIsSent) {
  const std::string payload(100000, 'x');
  v1::StageRequest parsed;
  ASSERT_TRUE(parsed.ParseFromString(
      WireOf(ToByteBuffer(PlanMessage(), kHidden, BytesOf(payload)))));
  EXPECT_EQ(parsed.plan().hidden(), payload);
  parsed.mutable_plan()->clear_hidden();
  EXPECT_EQ(parsed.SerializeAsString(), PlanMessage().SerializeAsString());
}

TEST(PayloadMessageTest, WhatProtobufSendsIsReadHoweverItIsCut) {
  v1::StageRequest sent = PlanMessage();
  sent.mutable_plan()->set_hidden("a payload in the midst of its message");
  const std::string wire = sent.SerializeAsString();
  for (size_t size = 1; size <= wire.size(); ++size) {
    v1::StageRequest parsed;
    ASSERT_OK_AND_ASSIGN(const ReceivedBytes payload,
                         FromByteBuffer(Cut(wire, size), kHidden, &parsed));
    EXPECT_EQ(StringOf(payload), sent.plan().hidden());
    EXPECT_EQ(parsed.SerializeAsString(), PlanMessage().SerializeAsString());
  }
}

TEST(PayloadMessageTest, WhatIsSentIsReadHoweverItIsCut) {
  const std::string payload = "a payload behind its message";
  const std::string wire =
      WireOf(ToByteBuffer(PlanMessage(), kHidden, BytesOf(payload)));
  for (size_t size = 1; size <= wire.size(); ++size) {
    v1::StageRequest parsed;
    ASSERT_OK_AND_ASSIGN(const ReceivedBytes read,
                         FromByteBuffer(Cut(wire, size), kHidden, &parsed));
    EXPECT_EQ(StringOf(read), payload);
    EXPECT_EQ(parsed.plan().rows_size(), 1);
    EXPECT_EQ(parsed.crc32c(), 9u);
  }
}

TEST(PayloadMessageTest, MessagesWithoutAPayloadHaveNone) {
  v1::StageRequest add;
  add.mutable_add_sequence()->set_sequence_id(5);
  add.mutable_add_sequence()->mutable_sampling()->set_temperature(0.5f);
  v1::StageRequest parsed;
  ASSERT_OK_AND_ASSIGN(const ReceivedBytes none,
                       FromByteBuffer(ToByteBuffer(add), kHidden, &parsed));
  EXPECT_EQ(none.size(), 0u);
  EXPECT_EQ(parsed.SerializeAsString(), add.SerializeAsString());
  ASSERT_OK(FromByteBuffer(ToByteBuffer(add), &parsed));
  EXPECT_EQ(parsed.SerializeAsString(), add.SerializeAsString());
}

TEST(PayloadMessageTest, TruncatedMessagesAreRefusedOrShorter) {
  const std::string wire =
      WireOf(ToByteBuffer(PlanMessage(), kHidden, BytesOf("payload")));
  for (size_t size = 0; size < wire.size(); ++size) {
    v1::StageRequest parsed;
    const auto read =
        FromByteBuffer(Cut(wire.substr(0, size), 5), kHidden, &parsed);
    if (read.ok()) {
      EXPECT_EQ(read->size(), 0u) << size;
    }
  }
}

}  // namespace
}  // namespace caravan
