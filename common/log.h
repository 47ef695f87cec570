// One-line events on standard error: time, level, event, key=value pairs.
//
//   LogInfo("worker_registered", {{"worker_id", id}, {"epoch", epoch}});
//
// INFO is lifecycle, WARNING degraded but serving, ERROR for a human. Nothing
// is logged per token; what others depend on is a metric.
//
// Thread-safe.
#ifndef CARAVAN_COMMON_LOG_H_
#define CARAVAN_COMMON_LOG_H_

#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "common/strings.h"

namespace caravan {

// One key=value pair. Values with spaces or quotes are quoted.
struct LogField {
  template <typename T>
  LogField(std::string_view k, const T& v) : key(k) {
    if constexpr (std::is_same_v<T, absl::Status>) {
      value = v.ToString(absl::StatusToStringMode::kWithNoExtraData);
    } else if constexpr (std::is_same_v<T, bool>) {
      value = v ? "true" : "false";
    } else {
      value = StrCat(v);
    }
  }
  std::string_view key;
  std::string value;
};

// Names the process in every line and sets the level ("debug", "info",
// "warning", "error"). Called once, from main.
void InitLog(std::string_view process, std::string_view level = "info");

// Whether LogDebug writes: for lines that are costly to make.
bool DebugIsLogged();

void LogDebug(std::string_view event, std::initializer_list<LogField> fields);
void LogInfo(std::string_view event, std::initializer_list<LogField> fields);
void LogWarning(std::string_view event, std::initializer_list<LogField> fields);
void LogError(std::string_view event, std::initializer_list<LogField> fields);

}  // namespace caravan

#endif  // CARAVAN_COMMON_LOG_H_
