#include "common/receipt/receipt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "tests/support/status_matchers.h"

namespace caravan::receipt {
namespace {

using ::testing::HasSubstr;

v1::Receipt SmallReceipt() {
  v1::Receipt receipt;
  receipt.set_build("0.1.0+abc");
  receipt.set_model("demo");
  receipt.mutable_identity()->set_weights_id(std::string(32, '\1'));
  receipt.mutable_identity()->set_numerics_class("class");
  receipt.mutable_identity()->set_fingerprint(std::string(32, '\2'));
  receipt.mutable_identity()->set_tokenizer_id(std::string(32, '\3'));
  receipt.mutable_sampling()->set_seed(42);
  receipt.mutable_stop()->set_max_tokens(16);
  receipt.set_prompt_token_count(3);
  const std::vector<int32_t> ids = {1, 2, 3};
  receipt.set_prompt_sha256(Sha256OfIds(ids));
  return receipt;
}

TEST(ReceiptTest, HashesEqualThoseOfAnotherImplementation) {
  EXPECT_EQ(absl::BytesToHexString(Sha256("")),
            "e3b0c44298fc1c149afbf4c8996fb924"
            "27ae41e4649b934ca495991b7852b855");
  const std::vector<int32_t> ids = {1, 2, 128255};
  EXPECT_EQ(absl::BytesToHexString(Sha256OfIds(ids)),
            "6f0ba14bb09c48c64b7b1cf1fb08b7a8"
            "2472fe04950b8d58f7c57eff0d36cca3");
  EXPECT_EQ(SystemFingerprint(SmallReceipt().identity(), "0.1.0+abc"),
            "fp_f02c206e74c5399f");
}

TEST(ReceiptTest, FingerprintDependsOnIdentityAndBuildAlone) {
  v1::ModelIdentity identity = SmallReceipt().identity();
  const std::string fingerprint = SystemFingerprint(identity, "a");
  EXPECT_NE(SystemFingerprint(identity, "b"), fingerprint);
  identity.set_numerics_class("other");
  EXPECT_NE(SystemFingerprint(identity, "a"), fingerprint);
}

TEST(ReceiptTest, ThereAndBack) {
  ASSERT_OK_AND_ASSIGN(const std::string bytes,
                       SerializeReceipt(SmallReceipt()));
  ASSERT_OK_AND_ASSIGN(const v1::Receipt receipt,
                       DecodeReceipt(EncodeReceipt(bytes)));
  EXPECT_EQ(receipt.schema(), kSchema);
  EXPECT_EQ(receipt.sampling().seed(), 42u);
  EXPECT_EQ(receipt.parameters_sha256(),
            ParametersSha256(receipt.sampling(), receipt.stop()));
  EXPECT_FALSE(receipt.parameters_incomplete());
  EXPECT_EQ(receipt.SerializeAsString(), bytes);
}

TEST(ReceiptTest, LongListsAreLeftOutAndSaidToBe) {
  v1::Receipt full = SmallReceipt();
  for (int i = 0; i < 1024; ++i) {
    v1::LogitBias* const bias = full.mutable_sampling()->add_logit_bias();
    bias->set_token_id(i);
    bias->set_bias(1);
  }
  full.mutable_stop()->add_stop(std::string(1024, 'x'));
  ASSERT_OK_AND_ASSIGN(const std::string bytes, SerializeReceipt(full));
  EXPECT_LE(bytes.size(), kMaxReceiptBytes);
  ASSERT_OK_AND_ASSIGN(const v1::Receipt receipt,
                       DecodeReceipt(EncodeReceipt(bytes)));
  EXPECT_TRUE(receipt.parameters_incomplete());
  EXPECT_EQ(receipt.parameters_sha256(),
            ParametersSha256(full.sampling(), full.stop()));
}

TEST(ReceiptTest, SixteenChoicesFit) {
  v1::Receipt receipt = SmallReceipt();
  for (int i = 0; i < 16; ++i) {
    v1::ReceiptChoice* const choice = receipt.add_choices();
    choice->set_index(i);
    choice->set_output_token_count(4096);
    choice->set_output_sha256(Sha256("x"));
    choice->set_finish_reason(v1::FINISH_REASON_STOP);
  }
  ASSERT_OK_AND_ASSIGN(const std::string bytes, SerializeReceipt(receipt));
  EXPECT_LE(bytes.size(), kMaxReceiptBytes);
}

TEST(ReceiptTest, WhatIsNoReceiptIsRefused) {
  EXPECT_THAT(DecodeReceipt("%%%"),
              testing::HasReason(Reason::kInvalidField, HasSubstr("base64")));
  EXPECT_THAT(DecodeReceipt(EncodeReceipt("\xff\xff\xff")),
              testing::HasReason(Reason::kInvalidField));
  EXPECT_THAT(DecodeReceipt(std::string(100'000, 'A')),
              testing::HasReason(Reason::kInvalidField, HasSubstr("2732")));
  v1::Receipt later = SmallReceipt();
  later.set_schema(2);
  EXPECT_THAT(DecodeReceipt(EncodeReceipt(later.SerializeAsString())),
              testing::HasReason(Reason::kInvalidField, HasSubstr("schema")));
}

TEST(ReceiptTest, AModelNameThatFillsItIsAnError) {
  v1::Receipt receipt = SmallReceipt();
  receipt.set_model(std::string(3000, 'm'));
  EXPECT_THAT(SerializeReceipt(receipt),
              testing::HasReason(Reason::kInternal, HasSubstr("2048")));
}

TEST(ReceiptTest, RegeneratedIdsAreComparedChoiceByChoice) {
  const std::vector<int32_t> prompt = {1, 2, 3};
  const std::vector<std::vector<int32_t>> outputs = {{4, 5}, {6}};
  v1::Receipt receipt;
  receipt.set_prompt_sha256(Sha256OfIds(prompt));
  for (int i = 0; i < 2; ++i) {
    v1::ReceiptChoice& choice = *receipt.add_choices();
    choice.set_index(i);
    choice.set_output_sha256(Sha256OfIds(outputs[static_cast<size_t>(i)]));
  }
  EXPECT_OK(CheckRegenerated(receipt, prompt, outputs));
  const std::vector<std::vector<int32_t>> changed = {{4, 5}, {7}};
  EXPECT_THAT(CheckRegenerated(receipt, prompt, changed),
              testing::HasReason(Reason::kIdentityMismatch,
                                 ::testing::HasSubstr("choice 1")));
  EXPECT_FALSE(CheckRegenerated(receipt, outputs[0], outputs).ok());
  EXPECT_FALSE(
      CheckRegenerated(receipt, prompt,
                       std::span<const std::vector<int32_t>>(outputs).first(1))
          .ok());
  receipt.add_inexact_resumes()->set_numerics_class("other/v1");
  EXPECT_THAT(CheckRegenerated(receipt, prompt, outputs),
              testing::HasReason(Reason::kInvalidField));
}

}  // namespace
}  // namespace caravan::receipt
