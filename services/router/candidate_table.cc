#include "services/router/candidate_table.h"

#include <algorithm>
#include <limits>

namespace caravan::router {
namespace {

// Slower than any replica; keeps infinities out of the columns.
constexpr float kMostSecondsPerToken = 1e6f;

}  // namespace

CandidateTable::CandidateTable(std::span<const Candidate> rows) {
  for (const Candidate& row : rows) Append(row);
}

void CandidateTable::Append(const Candidate& candidate) {
  const size_t row = rows_.size();
  rows_.push_back(candidate);
  for (std::vector<float>* column :
       {&columns_.queued_tokens, &columns_.leased_blocks, &columns_.block_count,
        &columns_.free_places, &columns_.seconds_per_token,
        &columns_.matched_blocks, &columns_.away}) {
    column->push_back(0);
  }
  columns_.block_count[row] = static_cast<float>(candidate.block_count);
  FillLoad(row);
  SetMatchedBlocks(row, candidate.matched_blocks);
  SetAvailable(row, candidate.available);
}

void CandidateTable::FillLoad(size_t row) {
  const Candidate& c = rows_[row];
  columns_.queued_tokens[row] =
      static_cast<float>(c.load.queued_prefill_tokens) +
      static_cast<float>(c.credit.prefill_tokens);
  columns_.leased_blocks[row] = static_cast<float>(c.load.leased_blocks) +
                                static_cast<float>(c.credit.blocks);
  columns_.free_places[row] = static_cast<float>(c.max_running_count) -
                              static_cast<float>(c.sequence_count());
  const float speed = c.load.prefill_tokens_per_second;
  columns_.seconds_per_token[row] =
      speed > 0 ? std::min(1 / speed, kMostSecondsPerToken) : 0;
}

void CandidateTable::SetLoad(size_t row, const ReplicaLoad& load,
                             const Credit& credit) {
  rows_[row].load = load;
  rows_[row].credit = credit;
  FillLoad(row);
}

void CandidateTable::SetMatchedBlocks(size_t row, int32_t blocks) {
  rows_[row].matched_blocks = blocks;
  columns_.matched_blocks[row] = static_cast<float>(blocks);
}

void CandidateTable::SetAvailable(size_t row, bool available) {
  rows_[row].available = available;
  columns_.away[row] = available ? 0 : std::numeric_limits<float>::infinity();
}

}  // namespace caravan::router
