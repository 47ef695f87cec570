#include "worker/model/pickle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <span>
#include <string>

#include "common/strings.h"
#include "tests/support/status_matchers.h"
#include "tests/support/torch_file_writer.h"

namespace caravan::worker {
namespace {

using ::testing::AllOf;
using testing::HasReason;
using ::testing::HasSubstr;
using testing::PickleWriter;
using std::string_literals::operator""s;

absl::StatusOr<Pickle> Parse(const std::string& bytes) {
  return ParsePickle(std::as_bytes(std::span(bytes)), "m.pth", 100);
}

TEST(PickleTest, ConstantsHaveTheirValues) {
  const std::string bytes =
      "\x80\x02(K\x07M\x01\x02J\xff\xff\xff\xff\x8a\x00"
      "\x8a\x02\x00\xff\x88\x89NG\0\0\0\0\0\0\0\0"
      "X\x02\x00\x00\x00hit."s;
  ASSERT_OK_AND_ASSIGN(const Pickle pickle, Parse(bytes));
  const PickleValue& root = pickle[pickle.root];
  ASSERT_EQ(root.kind, PickleKind::kTuple);
  ASSERT_EQ(root.items.size(), 10u);
  const int64_t numbers[] = {7, 513, -1, 0, -256, 1, 0};
  for (size_t i = 0; i < std::size(numbers); ++i) {
    EXPECT_EQ(pickle[root.items[i]].number, numbers[i]) << i;
  }
  EXPECT_EQ(pickle[root.items[7]].kind, PickleKind::kNone);
  EXPECT_EQ(pickle[root.items[8]].kind, PickleKind::kFloat);
  EXPECT_EQ(pickle[root.items[9]].text, "hi");
  EXPECT_EQ(pickle.bytes, bytes.size());
}

TEST(PickleTest, ListsDictsAndTheMemoWork) {
  // {"k": [1, 2, 3]} in both styles, the key taken from the memo.
  ASSERT_OK_AND_ASSIGN(
      const Pickle pickle,
      Parse("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01k\x94"
            "]\x94(K\x01K\x02"
            "eK\x03"
            "as(h\x01Nu."s));
  const PickleValue& root = pickle[pickle.root];
  ASSERT_EQ(root.kind, PickleKind::kDict);
  ASSERT_EQ(root.items.size(), 4u);
  EXPECT_EQ(root.items[0], root.items[2]);
  EXPECT_EQ(pickle[root.items[1]].items.size(), 3u);
}

TEST(PickleTest, OnlyWhatTensorsNeedIsCalled) {
  PickleWriter tensor;
  tensor.Global("torch._utils", "_rebuild_tensor_v2").Raw("((");
  tensor.Text("storage").Global("torch", "HalfStorage").Text("0").Text("cpu");
  tensor.Int(6).Raw("tQ").Int(0).Ints({2, 3}).Ints({3, 1}).Raw("\x89NtR");
  ASSERT_OK_AND_ASSIGN(const Pickle pickle, Parse(tensor.text() + "."));
  const PickleValue& root = pickle[pickle.root];
  ASSERT_EQ(root.kind, PickleKind::kTensor);
  EXPECT_EQ(pickle[root.items[0]].kind, PickleKind::kStorage);
  EXPECT_EQ(pickle[pickle[root.items[0]].items[0]].text, "torch.HalfStorage");
  EXPECT_EQ(pickle[pickle[root.items[2]].items[1]].number, 3);
}

TEST(PickleTest, GlobalsOutsideTheListAreRefusedByNameAndNeverRun) {
  PickleWriter by_line;
  by_line.Global("os", "system").Raw("(").Text("touch /tmp/owned").Raw("tR.");
  PickleWriter by_stack;
  by_stack.Text("builtins").Text("eval").Raw("\x93(").Text("1").Raw("tR.");
  EXPECT_THAT(Parse(by_line.text()),
              HasReason(Reason::kModelFileInvalid,
                        AllOf(HasSubstr("m.pth"), HasSubstr("offset 102"),
                              HasSubstr("os.system"))));
  EXPECT_THAT(Parse(by_stack.text()),
              HasReason(Reason::kModelFileInvalid, HasSubstr("builtins.eval")));
}

TEST(PickleTest, HostilePicklesAreRefusedNamingWhatIsWrong) {
  struct Case {
    std::string bytes;
    const char* message;
  };
  const Case cases[] = {
      {"", "STOP before the end"},
      {"N", "STOP before the end"},
      {".", "empty"},
      {"cos\nsystem\n(S'x'\ntR.", "os.system"},
      {"(i__builtin__\neval\n.", "INST"},
      {"(o.", "OBJ"},
      {"N\x81.", "NEWOBJ"},
      {"N\x92.", "NEWOBJ_EX"},
      {"\x82\x01.", "EXT1"},
      {"P0\n.", "PERSID"},
      {"\x97.", "NEXT_BUFFER"},
      {"I1\n.", "INT"},
      {"S'a'\n.", "STRING"},
      {"\xfe.", "opcode 254"},
      {"NNR.", "arguments must be tuple"},
      {"N)R.", "callable must be global"},
      {"ctorch\nHalfStorage\n)R.", "torch.HalfStorage"},
      {"ccollections\nOrderedDict\n(K\x01tR.", "OrderedDict"},
      {"ctorch._utils\n_rebuild_tensor_v2\n)R.", "arguments of a tensor"},
      {"ctorch._utils\n_rebuild_parameter\n)R.", "arguments of a parameter"},
      {"NQ.", "persistent id must be tuple"},
      {")Q.", "persistent id"},
      {"NNb.", "target of BUILD"},
      {"NNa.", "target of items"},
      {"}(Nu.", "pairs"},
      {"t.", "a mark"},
      {"N(\x85.", "1 values; got 0"},
      {"(N(u.", "target of items"},
      {"h\x05.", "a slot that was set; got 5"},
      {"X\xff\xff\xff\xffhi.", "4294967295 bytes"},
      {"J\x01", "cut off"},
      {"\x8a\x0a\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a.", "LONG1"},
      {"ctorch", "line"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(Parse(c.bytes),
                HasReason(Reason::kModelFileInvalid,
                          AllOf(HasSubstr("m.pth"), HasSubstr(c.message))))
        << c.message;
  }
}

TEST(PickleTest, NamesInMessagesAreShortAndPrintable) {
  const std::string name(1000, '\x01');
  const auto pickle = Parse(StrCat("c", name, "\nx\n."));
  EXPECT_THAT(pickle, HasReason(Reason::kModelFileInvalid, HasSubstr("???")));
  EXPECT_LT(pickle.status().message().size(), 300u);
}

TEST(PickleTest, WhatOneMayBuildIsBounded) {
  EXPECT_THAT(Parse(std::string(kMostPickleValues + 1, 'N') + "."),
              HasReason(Reason::kModelFileInvalid, HasSubstr("values")));
  EXPECT_THAT(Parse(std::string(kMostPickleBytes + 1, '(') + "."),
              HasReason(Reason::kModelFileInvalid, HasSubstr("at most")));
  // A list that holds itself is harmless: nobody goes that deep.
  ASSERT_OK_AND_ASSIGN(const Pickle pickle, Parse("]q\x01h\x01"
                                                  "a."));
  EXPECT_EQ(pickle[pickle.root].items[0], pickle.root);
}

}  // namespace
}  // namespace caravan::worker
