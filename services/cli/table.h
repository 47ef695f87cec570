// A table of text columns.
#ifndef CARAVAN_SERVICES_CLI_TABLE_H_
#define CARAVAN_SERVICES_CLI_TABLE_H_

#include <string>
#include <vector>

namespace caravan::cli {

// Columns are as wide as their widest cell, two spaces apart; cells that look
// like numbers stand to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  // Missing cells are empty; more cells than columns are left out.
  void AddRow(std::vector<std::string> cells);
  std::string ToString() const;

 private:
  std::vector<std::vector<std::string>> rows_;  // the header first
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_TABLE_H_
