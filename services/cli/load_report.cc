#include "services/cli/load_report.h"

#include <algorithm>
#include <cmath>
#include <iomanip>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/json.h"
#include "common/status/errors.h"

namespace caravan::cli {
namespace {

double Milliseconds(absl::Duration duration) {
  return absl::ToDoubleMilliseconds(duration);
}

nlohmann::json JsonOf(const Percentiles& p) {
  return {{"p50", p.p50_ms},
          {"p90", p.p90_ms},
          {"p99", p.p99_ms},
          {"mean", p.mean_ms}};
}

nlohmann::json JsonOf(const LoadOutcome& outcome) {
  nlohmann::json json = {{"output_tokens", outcome.output_tokens},
                         {"end_to_end_ms", Milliseconds(outcome.total)}};
  if (outcome.output_tokens > 0) {
    json["first_token_ms"] = Milliseconds(outcome.first_token);
  }
  if (!outcome.status.ok())
    json["failed"] = ReasonName(ReasonOf(outcome.status));
  return json;
}

void AppendLine(std::ostringstream& text, const char* name,
                const Percentiles& p) {
  text << std::left << std::setw(22) << name << std::right;
  for (const double value : {p.p50_ms, p.p90_ms, p.p99_ms, p.mean_ms}) {
    text << std::setw(10) << value;
  }
  text << "\n";
}

}  // namespace

Percentiles PercentilesOf(std::vector<absl::Duration> samples) {
  Percentiles result;
  if (samples.empty()) return result;
  std::sort(samples.begin(), samples.end());
  const auto rank = [&](double fraction) {
    const double n = std::ceil(fraction * static_cast<double>(samples.size()));
    return Milliseconds(samples[static_cast<size_t>(std::max(n, 1.0)) - 1]);
  };
  result.p50_ms = rank(0.5);
  result.p90_ms = rank(0.9);
  result.p99_ms = rank(0.99);
  absl::Duration sum;
  for (const absl::Duration sample : samples) sum += sample;
  result.mean_ms = Milliseconds(sum) / static_cast<double>(samples.size());
  return result;
}

LoadReport MakeLoadReport(const LoadResult& result) {
  LoadReport report;
  std::vector<absl::Duration> first, gaps, total;
  for (const LoadOutcome& outcome : result.outcomes) {
    if (!outcome.status.ok()) {
      ++report.failed;
      ++report.failures[std::string(ReasonName(ReasonOf(outcome.status)))];
      continue;
    }
    ++report.succeeded;
    report.prompt_tokens += outcome.prompt_tokens;
    report.output_tokens += outcome.output_tokens;
    if (outcome.output_tokens > 0) first.push_back(outcome.first_token);
    gaps.insert(gaps.end(), outcome.gaps.begin(), outcome.gaps.end());
    total.push_back(outcome.total);
  }
  report.wall_s = absl::ToDoubleSeconds(result.wall);
  if (report.wall_s > 0) {
    report.output_tokens_per_second =
        static_cast<double>(report.output_tokens) / report.wall_s;
    report.requests_per_second =
        static_cast<double>(report.succeeded) / report.wall_s;
  }
  report.first_token = PercentilesOf(std::move(first));
  report.inter_token = PercentilesOf(std::move(gaps));
  report.total = PercentilesOf(std::move(total));
  return report;
}

std::string ToText(const LoadReport& report) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(2);
  text << "requests              " << report.succeeded << " succeeded, "
       << report.failed << " failed in " << report.wall_s << " s ("
       << report.requests_per_second << "/s)\n";
  for (const auto& [reason, count] : report.failures) {
    text << "  failed with " << reason << ": " << count << "\n";
  }
  text << "tokens                " << report.prompt_tokens << " prompt, "
       << report.output_tokens << " output (" << report.output_tokens_per_second
       << " output/s)\n";
  text << "milliseconds                 p50       p90       p99      mean\n";
  AppendLine(text, "time to first token", report.first_token);
  AppendLine(text, "between tokens", report.inter_token);
  AppendLine(text, "end to end", report.total);
  return text.str();
}

std::string ToJson(const LoadReport& report,
                   std::span<const LoadOutcome> requests) {
  nlohmann::json json = {
      {"succeeded", report.succeeded},
      {"failed", report.failed},
      {"failures", report.failures},
      {"prompt_tokens", report.prompt_tokens},
      {"output_tokens", report.output_tokens},
      {"wall_s", report.wall_s},
      {"output_tokens_per_second", report.output_tokens_per_second},
      {"requests_per_second", report.requests_per_second},
      {"first_token_ms", JsonOf(report.first_token)},
      {"inter_token_ms", JsonOf(report.inter_token)},
      {"end_to_end_ms", JsonOf(report.total)}};
  for (const LoadOutcome& outcome : requests) {
    json["requests"].push_back(JsonOf(outcome));
  }
  return DumpJson(json, 2);
}

}  // namespace caravan::cli
