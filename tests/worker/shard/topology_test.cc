#include "worker/shard/topology.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/status_matchers.h"
#include "tests/support/temporary_directory.h"

namespace caravan::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void WriteNode(const std::string& directory, int node,
               const std::string& cores) {
  const std::string path = directory + "/node" + std::to_string(node);
  std::filesystem::create_directories(path);
  std::ofstream(path + "/cpulist") << cores << "\n";
}

TEST(TopologyTest, ListsOfCoresAreRead) {
  EXPECT_THAT(*ParseCores("0-2,8,10-11"), ElementsAre(0, 1, 2, 8, 10, 11));
  EXPECT_THAT(*ParseCores(""), IsEmpty());
  for (const char* bad : {"3-1", "x", "1-", "-1", "1,,2", "99999"}) {
    EXPECT_THAT(ParseCores(bad),
                testing::HasReason(Reason::kInvalidField, HasSubstr(bad)));
  }
}

TEST(TopologyTest, NodesKeepOnlyCoresThatTheProcessMayUse) {
  const testing::TemporaryDirectory directory;
  std::ofstream(directory.path() + "/online") << "0-2\n";
  WriteNode(directory.path(), 0, "0-3");
  WriteNode(directory.path(), 1, "4-7");
  WriteNode(directory.path(), 2, "8-11");
  EXPECT_THAT(NumaNodes({1, 2, 8, 9}, directory.path()),
              ElementsAre(ElementsAre(1, 2), ElementsAre(8, 9)));
  EXPECT_THAT(NumaNodes({1, 2}, "/nowhere"), ElementsAre(ElementsAre(1, 2)));
}

TEST(TopologyTest, RanksAreDealtOutToNodesInOrder) {
  const std::vector<Cores> nodes = {{0, 1, 2, 3}, {4, 5, 6, 7}};
  EXPECT_THAT(CoresOfRanks(nodes, 2, /*pin=*/false),
              ElementsAre(nodes[0], nodes[1]));
  EXPECT_THAT(CoresOfRanks(nodes, 4, /*pin=*/true),
              ElementsAre(Cores{0, 1}, Cores{2, 3}, Cores{4, 5}, Cores{6, 7}));
}

TEST(TopologyTest, RanksOfOneNodeComputeAnywhereUnlessPinned) {
  EXPECT_THAT(CoresOfRanks({{0, 1, 2, 3}}, 2, /*pin=*/false),
              ElementsAre(IsEmpty(), IsEmpty()));
  EXPECT_THAT(CoresOfRanks({{0, 1}}, 4, /*pin=*/true),
              ElementsAre(Cores{0}, Cores{0}, Cores{1}, Cores{1}));
}

TEST(TopologyTest, MoreNodesThanRanksLeaveSomeUnused) {
  EXPECT_THAT(CoresOfRanks({{0}, {1}, {2}, {3}}, 2, /*pin=*/false),
              ElementsAre(Cores{0}, Cores{2}));
}

}  // namespace
}  // namespace caravan::worker
