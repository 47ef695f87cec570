// Which tokens of a text are scored, in which windows.
#ifndef CARAVAN_SERVICES_CLI_PERPLEXITY_H_
#define CARAVAN_SERVICES_CLI_PERPLEXITY_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace caravan::cli {

struct ScoreWindowOptions {
  int32_t window = 512;  // ids in a window
  // First index in a window that is scored, in [1, window). The published
  // figures for WikiText-2 use windows of 512 scored from 257.
  int32_t score_from = 257;
  bool whole = false;          // one window of all ids, scored from index 1
  std::optional<int32_t> bos;  // takes the place of each window's first id
};

struct ScoreWindow {
  std::vector<int32_t> ids;
  int32_t score_from = 1;
};

// Cuts ids into windows that do not overlap; an unfinished last window is left
// out. Fails when there is no window.
absl::StatusOr<std::vector<ScoreWindow>> MakeScoreWindows(
    const std::vector<int32_t>& ids, const ScoreWindowOptions& options);

// Sums of scored tokens.
class PerplexitySum {
 public:
  void Add(double logprob);
  int64_t count() const { return count_; }
  double mean_nll() const;        // nats per token
  double perplexity() const;      // exp(mean_nll)
  double standard_error() const;  // of mean_nll

 private:
  int64_t count_ = 0;
  double sum_ = 0;
  double sum_of_squares_ = 0;
};

// Ids as JSON array, or apart by white space or commas.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text);

}  // namespace caravan::cli

#endif  // CARAVAN_SERVICES_CLI_PERPLEXITY_H_
