#include "services/cli/load_plan.h"

#include <charconv>
#include <cmath>
#include <random>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::cli {
namespace {

constexpr int32_t kMaxLength = 1'000'000;

absl::StatusOr<int32_t> ParseLength(std::string_view flag,
                                    std::string_view text) {
  int32_t length = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), length);
  if (error != std::errc() || end != text.data() + text.size() || length < 1 ||
      length > kMaxLength) {
    return FieldError(
        flag, StrCat("N or LEAST:MOST, each in [1, ", kMaxLength, "]"), text);
  }
  return length;
}

// std::mt19937_64 gives the same numbers everywhere; the distributions of the
// standard library do not, so the few that are needed are here.
int32_t Uniform(std::mt19937_64& random, int32_t least, int32_t most) {
  const uint64_t width = static_cast<uint64_t>(most - least) + 1;
  return least + static_cast<int32_t>(random() % width);
}

double UnitInterval(std::mt19937_64& random) {
  return static_cast<double>(random() >> 11) * 0x1p-53;
}

int32_t DrawLength(std::mt19937_64& random, const LengthRange& range) {
  return Uniform(random, range.least, range.most);
}

}  // namespace

absl::StatusOr<LengthRange> ParseLengthRange(std::string_view flag,
                                             std::string_view text) {
  const size_t colon = text.find(':');
  LengthRange range;
  CARAVAN_ASSIGN_OR_RETURN(range.least,
                           ParseLength(flag, text.substr(0, colon)));
  range.most = range.least;
  if (colon != text.npos) {
    CARAVAN_ASSIGN_OR_RETURN(range.most,
                             ParseLength(flag, text.substr(colon + 1)));
  }
  if (range.most < range.least) {
    return FieldError(flag, "LEAST:MOST with LEAST <= MOST", text);
  }
  return range;
}

std::vector<PlannedRequest> MakeLoadPlan(const LoadPlanOptions& options) {
  std::mt19937_64 random(options.seed);
  std::vector<PlannedRequest> plan(static_cast<size_t>(options.request_count));
  double arrival_s = 0;
  for (PlannedRequest& request : plan) {
    if (options.rate > 0) {
      arrival_s += -std::log1p(-UnitInterval(random)) / options.rate;
    }
    request.arrival = absl::Seconds(arrival_s);
    request.prompt_tokens = DrawLength(random, options.prompt_tokens);
    request.output_tokens = DrawLength(random, options.output_tokens);
    request.seed = random();
  }
  return plan;
}

std::vector<int32_t> PromptOf(const LoadPlanOptions& options,
                              const PlannedRequest& request) {
  std::mt19937_64 shared(options.seed);
  std::mt19937_64 own(request.seed);
  std::vector<int32_t> ids(static_cast<size_t>(request.prompt_tokens));
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool in_prefix =
        i < static_cast<size_t>(options.shared_prefix_tokens);
    ids[i] = Uniform(in_prefix ? shared : own, 0, options.vocabulary - 1);
  }
  return ids;
}

}  // namespace caravan::cli
