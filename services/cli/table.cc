#include "services/cli/table.h"

#include <algorithm>
#include <cctype>
#include <utility>

namespace caravan::cli {
namespace {

bool LooksLikeNumber(const std::string& cell) {
  return !cell.empty() &&
         (std::isdigit(static_cast<unsigned char>(cell.front())) ||
          cell.front() == '-') &&
         cell.find(':') == cell.npos;
}

// Spaces at the end of a line help nobody.
void TrimRight(std::string& line) {
  line.erase(line.find_last_not_of(' ') + 1);
}

}  // namespace

Table::Table(std::vector<std::string> header) : rows_({std::move(header)}) {}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(rows_.front().size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<size_t> widths(rows_.front().size());
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      line += LooksLikeNumber(row[i]) ? pad + row[i] : row[i] + pad;
      line += "  ";
    }
    TrimRight(line);
    text += line + "\n";
  }
  return text;
}

}  // namespace caravan::cli
