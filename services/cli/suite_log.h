// Where the lines of the services go that `caravan up` runs.
#ifndef CARAVAN_SERVICES_CLI_SUITE_LOG_H_
#define CARAVAN_SERVICES_CLI_SUITE_LOG_H_

#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace caravan::cli {

// Percent of a worker's load_progress line, or nothing for other lines.
std::optional<int> LoadPercentOf(std::string_view line);

// Whether a line is a warning, an error, or not one of our log lines at all
// (a library's or the system's last words).
bool DeservesAttention(std::string_view line);

// With a directory, all lines of a service go to DIR/SERVICE.log; without,
// those that deserve attention go to standard error, prefixed by the service.
// Loading progress is shown in steps of 10 percent.
//
// Not thread-safe.
class SuiteLog {
 public:
  // Empty directory: standard error.
  explicit SuiteLog(std::string directory) : directory_(std::move(directory)) {}

  // Makes the directory.
  absl::Status Prepare();

  void Write(const std::string& service, const std::string& line);

 private:
  void ShowProgress(const std::string& service, int percent);

  std::string directory_;
  std::map<std::string, std::ofstream> files_;  // by service
  std::map<std::string, int> shown_percent_;    // by service
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_SUITE_LOG_H_
