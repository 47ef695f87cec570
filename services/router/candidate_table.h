// The replicas that a policy chooses from: a row for each, and beside the
// rows columns of what a cost adds up, so that one pass over a thousand
// replicas reads a few kilobytes and takes several at a time.
//
// Not thread-safe.
//
// Invariant: the columns say what the rows say.
#ifndef CARAVAN_SERVICES_ROUTER_CANDIDATE_TABLE_H_
#define CARAVAN_SERVICES_ROUTER_CANDIDATE_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "services/router/replica.h"

namespace caravan::router {

// A replica that could serve a request.
struct Candidate {
  std::string_view worker_id;
  ReplicaLoad load;
  Credit credit;  // placed, not yet in the load
  int32_t block_size = 16;
  int32_t block_count = 0;
  int32_t max_running_count = 0;
  int32_t matched_blocks = 0;
  bool available = true;  // others are not ranked

  // Sequences that it has or is about to get.
  int64_t sequence_count() const {
    return int64_t{load.running_count} + load.waiting_count + credit.sequences;
  }
};

// By row. Floats: what replicas and clients tell may be any number.
struct CandidateColumns {
  std::vector<float> queued_tokens;  // prefill that waits or was placed
  std::vector<float> leased_blocks;  // placed ones included
  std::vector<float> block_count;
  std::vector<float> free_places;        // in the running set; may be negative
  std::vector<float> seconds_per_token;  // of prefill; 0: not known
  std::vector<float> matched_blocks;
  std::vector<float> away;  // 0 where available, else infinity
};

class CandidateTable {
 public:
  CandidateTable() = default;
  explicit CandidateTable(std::span<const Candidate> rows);

  size_t size() const { return rows_.size(); }
  const Candidate& operator[](size_t row) const { return rows_[row]; }
  bool available(size_t row) const { return columns_.away[row] == 0; }
  const std::vector<Candidate>& rows() const { return rows_; }
  const CandidateColumns& columns() const { return columns_; }

  void Append(const Candidate& candidate);
  // What the replica has to do, without what belongs to one placement.
  void SetLoad(size_t row, const ReplicaLoad& load, const Credit& credit);
  void SetMatchedBlocks(size_t row, int32_t blocks);
  void SetAvailable(size_t row, bool available);

 private:
  void FillLoad(size_t row);

  std::vector<Candidate> rows_;
  CandidateColumns columns_;
};

}  // namespace caravan::router

#endif  // CARAVAN_SERVICES_ROUTER_CANDIDATE_TABLE_H_
