// Wire contracts only grow: everything in descriptors.txt, which lists what
// peers of older builds rely on, is still there with its number and type.
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>

#include "common/strings.h"
#include "tests/support/reference_data.h"

namespace caravan {
namespace {

using google::protobuf::DescriptorProto;
using google::protobuf::EnumDescriptorProto;
using google::protobuf::FieldDescriptorProto;
using google::protobuf::FileDescriptorProto;
using google::protobuf::FileDescriptorSet;
using google::protobuf::ServiceDescriptorProto;
using ::testing::IsEmpty;

using Listing = std::set<std::string>;

std::string TypeOf(const FieldDescriptorProto& field) {
  std::string type =
      field.has_type_name()
          ? field.type_name().substr(1)
          : FieldDescriptorProto::Type_Name(field.type()).substr(5);
  if (field.label() == FieldDescriptorProto::LABEL_REPEATED) {
    type = "repeated " + type;
  }
  if (field.proto3_optional()) type = "optional " + type;
  return type;
}

void ListEnum(const std::string& scope, const EnumDescriptorProto& type,
              Listing& listing) {
  for (const auto& value : type.value()) {
    listing.insert(StrCat("value ", scope, ".", type.name(), ".", value.name(),
                          " = ", value.number()));
  }
}

void ListMessage(const std::string& scope, const DescriptorProto& message,
                 Listing& listing) {
  const std::string name = StrCat(scope, ".", message.name());
  for (const FieldDescriptorProto& field : message.field()) {
    listing.insert(StrCat("field ", name, ".", field.name(), " = ",
                          field.number(), " ", TypeOf(field)));
  }
  for (const auto& nested : message.nested_type()) {
    ListMessage(name, nested, listing);
  }
  for (const auto& type : message.enum_type()) ListEnum(name, type, listing);
}

void ListService(const std::string& scope,
                 const ServiceDescriptorProto& service, Listing& listing) {
  for (const auto& method : service.method()) {
    listing.insert(StrCat("method ", scope, ".", service.name(), ".",
                          method.name(), "(",
                          method.client_streaming() ? "stream " : "",
                          method.input_type().substr(1), ") -> ",
                          method.server_streaming() ? "stream " : "",
                          method.output_type().substr(1)));
  }
}

// One line for each field, enum value and method of our packages.
Listing CurrentListing() {
  FileDescriptorSet files;
  EXPECT_TRUE(files.ParseFromString(testing::ReadFile(CARAVAN_DESCRIPTORS)));
  Listing listing;
  for (const FileDescriptorProto& file : files.file()) {
    if (file.package() == "google.protobuf") continue;
    for (const auto& m : file.message_type()) {
      ListMessage(file.package(), m, listing);
    }
    for (const auto& e : file.enum_type()) ListEnum(file.package(), e, listing);
    for (const auto& s : file.service())
      ListService(file.package(), s, listing);
  }
  return listing;
}

Listing CommittedListing() {
  std::ifstream file(testing::RepositoryPath("tests/protos/descriptors.txt"));
  Listing listing;
  for (std::string line; std::getline(file, line);) listing.insert(line);
  return listing;
}

Listing Difference(const Listing& from, const Listing& what) {
  Listing left;
  for (const std::string& line : from) {
    if (!what.contains(line)) left.insert(line);
  }
  return left;
}

TEST(DescriptorsTest, NothingThatPeersRelyOnIsGone) {
  const Listing committed = CommittedListing();
  ASSERT_GT(committed.size(), 100u);
  EXPECT_THAT(Difference(committed, CurrentListing()), IsEmpty())
      << "Fields, values and methods are never removed, renumbered or given "
         "another type: restore these and mark them deprecated.";
}

TEST(DescriptorsTest, AdditionsAreListed) {
  const Listing current = CurrentListing();
  std::ofstream file(CARAVAN_LISTING);
  for (const std::string& line : current) file << line << '\n';
  EXPECT_THAT(Difference(current, CommittedListing()), IsEmpty())
      << "From now on peers rely on these: copy " << CARAVAN_LISTING
      << " to tests/protos/descriptors.txt.";
}

}  // namespace
}  // namespace caravan
