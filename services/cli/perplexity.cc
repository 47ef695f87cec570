#include "services/cli/perplexity.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/status/errors.h"
#include "common/strings.h"

namespace caravan::cli {

absl::StatusOr<std::vector<ScoreWindow>> MakeScoreWindows(
    const std::vector<int32_t>& ids, const ScoreWindowOptions& options) {
  const int32_t all = static_cast<int32_t>(ids.size());
  const int32_t window = options.whole ? all : options.window;
  const int32_t from = options.whole ? 1 : options.score_from;
  if (all < 2) {
    return FieldError("FILE", "a text of at least 2 tokens", StrCat(all));
  }
  if (from < 1 || from >= window) {
    return FieldError("--score-from", StrCat("in [1, ", window, ")"),
                      StrCat(from));
  }
  if (window > all) {
    return FieldError("--window",
                      StrCat("at most the text's ", all, " tokens, or --whole"),
                      StrCat(window));
  }
  std::vector<ScoreWindow> windows;
  for (int32_t start = 0; start + window <= all; start += window) {
    ScoreWindow& w = windows.emplace_back();
    w.ids.assign(ids.begin() + start, ids.begin() + start + window);
    w.score_from = from;
    if (options.bos) w.ids.front() = *options.bos;
  }
  return windows;
}

void PerplexitySum::Add(double logprob) {
  ++count_;
  sum_ -= logprob;
  sum_of_squares_ += logprob * logprob;
}

double PerplexitySum::mean_nll() const {
  return count_ == 0 ? 0 : sum_ / static_cast<double>(count_);
}

double PerplexitySum::perplexity() const { return std::exp(mean_nll()); }

double PerplexitySum::standard_error() const {
  if (count_ < 2) return 0;
  const double n = static_cast<double>(count_);
  const double variance =
      std::max(0.0, sum_of_squares_ / n - mean_nll() * mean_nll());
  return std::sqrt(variance / (n - 1));
}

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(std::string_view text) {
  constexpr std::string_view kBetween = " \t\r\n,[]";
  std::vector<int32_t> ids;
  size_t at = text.find_first_not_of(kBetween);
  while (at != text.npos) {
    const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
    const std::string_view word = text.substr(at, end - at);
    int32_t id = 0;
    const auto result =
        std::from_chars(word.data(), word.data() + word.size(), id);
    if (result.ec != std::errc() || result.ptr != word.data() + word.size() ||
        id < 0) {
      return FieldError("--ids", "a list of token ids", word.substr(0, 32));
    }
    ids.push_back(id);
    at = text.find_first_not_of(kBetween, end);
  }
  return ids;
}

}  // namespace caravan::cli
