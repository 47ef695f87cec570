#include "services/cli/suite_log.h"

#include <charconv>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

constexpr int kPercentStep = 10;

// The word after the timestamp; empty when there is none.
std::string_view LevelOf(std::string_view line) {
  const size_t space = line.find(' ');
  if (space == line.npos) return "";
  line.remove_prefix(space + 1);
  const std::string_view level = line.substr(0, line.find(' '));
  const std::string_view rest = line.substr(level.size());
  return rest.substr(0, 9) == " process=" ? level : std::string_view();
}

}  // namespace

std::optional<int> LoadPercentOf(std::string_view line) {
  if (line.find(" event=load_progress ") == line.npos) return std::nullopt;
  constexpr std::string_view kKey = " percent=";
  const size_t at = line.find(kKey);
  if (at == line.npos) return std::nullopt;
  const std::string_view digits = line.substr(at + kKey.size());
  int percent = 0;
  const auto result =
      std::from_chars(digits.data(), digits.data() + digits.size(), percent);
  if (result.ec != std::errc()) return std::nullopt;
  return percent;
}

bool DeservesAttention(std::string_view line) {
  const std::string_view level = LevelOf(line);
  return level != "trace" && level != "debug" && level != "info";
}

absl::Status SuiteLog::Prepare() {
  if (directory_.empty()) return absl::OkStatus();
  std::error_code error;
  std::filesystem::create_directories(directory_, error);
  if (!error) return absl::OkStatus();
  return FieldError("--log-dir", "a directory that can be written",
                    StrCat(directory_, " (", error.message(), ")"));
}

void SuiteLog::Write(const std::string& service, const std::string& line) {
  if (const auto percent = LoadPercentOf(line)) ShowProgress(service, *percent);
  if (directory_.empty()) {
    if (DeservesAttention(line)) {
      std::cerr << "[" << service << "] " << line << "\n";
    }
    return;
  }
  std::ofstream& file = files_[service];
  if (!file.is_open()) {
    file.open(StrCat(directory_, "/", service, ".log"), std::ios::app);
  }
  file << line << "\n" << std::flush;
}

void SuiteLog::ShowProgress(const std::string& service, int percent) {
  const auto [it, first] = shown_percent_.emplace(service, -kPercentStep);
  if (percent < it->second) it->second = -kPercentStep;  // it loads again
  if (percent < it->second + kPercentStep) return;
  it->second = percent - percent % kPercentStep;
  std::cerr << service << ": loading " << it->second << " %\n";
}

}  // namespace caravan::cli
