#include "common/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

namespace caravan {
namespace {

std::shared_ptr<spdlog::logger> MakeLogger(std::string_view process) {
  auto logger = std::make_shared<spdlog::logger>(
      std::string(process), std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l process=%n %v",
                      spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  return logger;
}

std::shared_ptr<spdlog::logger>& Logger() {
  static auto* logger =
      new std::shared_ptr<spdlog::logger>(MakeLogger("caravan"));
  return *logger;
}

bool NeedsQuotes(std::string_view value) {
  return value.empty() || value.find_first_of(" \"\n\r\t=") != value.npos;
}

void AppendValue(std::string_view value, std::string& line) {
  if (!NeedsQuotes(value)) {
    line.append(value);
    return;
  }
  line.push_back('"');
  for (const char c : value) {
    if (c == '"' || c == '\\') line.push_back('\\');
    if (c == '\n' || c == '\r') {
      line.append(c == '\n' ? "\\n" : "\\r");
    } else {
      line.push_back(c);
    }
  }
  line.push_back('"');
}

void Write(spdlog::level::level_enum level, std::string_view event,
           std::initializer_list<LogField> fields) {
  spdlog::logger& logger = *Logger();
  if (!logger.should_log(level)) return;
  std::string line = StrCat("event=", event);
  for (const LogField& field : fields) {
    StrAppend(&line, " ", field.key, "=");
    AppendValue(field.value, line);
  }
  logger.log(level, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

void InitLog(std::string_view process, std::string_view level) {
  Logger() = MakeLogger(process);
  Logger()->set_level(spdlog::level::from_str(std::string(level)));
}

bool DebugIsLogged() { return Logger()->should_log(spdlog::level::debug); }

void LogDebug(std::string_view event, std::initializer_list<LogField> fields) {
  Write(spdlog::level::debug, event, fields);
}
void LogInfo(std::string_view event, std::initializer_list<LogField> fields) {
  Write(spdlog::level::info, event, fields);
}
void LogWarning(std::string_view event,
                std::initializer_list<LogField> fields) {
  Write(spdlog::level::warn, event, fields);
}
void LogError(std::string_view event, std::initializer_list<LogField> fields) {
  Write(spdlog::level::err, event, fields);
}

}  // namespace caravan
