// The data of server-sent events, out of pieces of any size.
#ifndef CARAVAN_SERVICES_CLI_SSE_READER_H_
#define CARAVAN_SERVICES_CLI_SSE_READER_H_

#include <string>
#include <string_view>

namespace caravan::cli {

// Not thread-safe.
class SseReader {
 public:
  // Calls `on_data` with the text of each complete "data:" line.
  template <typename OnData>
  void Add(std::string_view piece, OnData on_data) {
    rest_.append(piece);
    size_t start = 0;
    for (size_t end; (end = rest_.find('\n', start)) != rest_.npos;
         start = end + 1) {
      const std::string_view data =
          DataOf(std::string_view(rest_).substr(start, end - start));
      if (!data.empty()) on_data(data);
    }
    rest_.erase(0, start);
  }

 private:
  static std::string_view DataOf(std::string_view line) {
    constexpr std::string_view kPrefix = "data:";
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    if (line.substr(0, kPrefix.size()) != kPrefix) return "";
    line.remove_prefix(kPrefix.size());
    if (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    return line;
  }

  std::string rest_;  // of a line that is not complete
};

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_SSE_READER_H_
