// Numbers of a load test, for people and for programs.
#ifndef CARAVAN_SERVICES_CLI_LOAD_REPORT_H_
#define CARAVAN_SERVICES_CLI_LOAD_REPORT_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "services/cli/load_runner.h"

namespace caravan::cli {

// In milliseconds; all zero without samples.
struct Percentiles {
  double p50_ms = 0;
  double p90_ms = 0;
  double p99_ms = 0;
  double mean_ms = 0;
};

// By nearest rank.
Percentiles PercentilesOf(std::vector<absl::Duration> samples);

struct LoadReport {
  int64_t succeeded = 0;
  int64_t failed = 0;
  std::map<std::string, int64_t> failures;  // by reason
  int64_t prompt_tokens = 0;                // of what succeeded
  int64_t output_tokens = 0;
  double wall_s = 0;
  double output_tokens_per_second = 0;
  double requests_per_second = 0;
  Percentiles first_token;
  Percentiles inter_token;
  Percentiles total;
};

LoadReport MakeLoadReport(const LoadResult& result);

std::string ToText(const LoadReport& report);
// With each of `requests`, in their order.
std::string ToJson(const LoadReport& report,
                   std::span<const LoadOutcome> requests = {});

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_LOAD_REPORT_H_
