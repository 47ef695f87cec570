// Decides what each step runs, who waits and who parks, and commits what a
// step gave. Plan and Commit are where sequences change; Add only queues,
// Cancel and CancelChoices only end.
//
// Rules. Decode tokens come first, then prefill chunks in what is left of the
// step's tokens, by rank (priority, share, then arrival). Who runs and lacks a
// block parks those below it, the last first, or waits, keeping its own; so the
// first in rank always gets on. Who waits is admitted in rank order, resumed
// ones first, when its known tokens fit beside what those in front still need
// and a small reserve; a higher priority parks lower ones for that. Blocks of
// a sequence with rows in flight come back when these are collected.
#ifndef CARAVAN_WORKER_ENGINE_SCHEDULER_H_
#define CARAVAN_WORKER_ENGINE_SCHEDULER_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/batch_plan.h"
#include "worker/engine/engine.h"
#include "worker/engine/sequence.h"
#include "worker/engine/step_time_model.h"
#include "worker/engine/yield_ledger.h"
#include "worker/kv/block_pool.h"
#include "worker/kv/prefix_index.h"

namespace caravan::worker {

// A plan and what the runner must hear before it, in this order.
struct PlannedStep {
  std::vector<SequenceId> dropped;
  std::vector<SequenceSpec> added;
  BatchPlan plan;  // may be empty
  QueueNews news;  // for the sink, before it is launched
};

// Not thread-safe: owned by the engine thread.
class Scheduler {
 public:
  // `options` are valid.
  explicit Scheduler(const EngineOptions& options);

  // Queues a valid group with an id that is not in use.
  void Add(GroupRequest request);

  // Ends the group where it is alive and forgets its unreported events.
  void Cancel(GroupId id);

  // Ends these choices of the group, where they are alive, and forgets their
  // unreported events. The group is over when no choice of it is left.
  void CancelChoices(GroupId id, std::span<const int32_t> choices);

  // Ends every group with `status`; plans in flight are lost.
  void FailAll(const absl::Status& status);

  // What the next step runs. To be launched unless empty.
  PlannedStep Plan(absl::Time now);

  // Takes over the result of the oldest planned step. kInternal when it is not
  // that step's.
  absl::StatusOr<StepReport> Commit(StepResult result);

  // Events, counters and index changes since the last report.
  StepReport TakeReport();

  // Groups that ended, for whatever cause, since the last call.
  std::vector<GroupId> TakeEnded();

  EngineLoad Load() const;
  // Groups that have not ended.
  bool empty() const { return groups_.empty(); }
  // Sequences that wait for the first time.
  int32_t queued_count() const;
  std::vector<kv::BlockHash> CachedHashes() const { return index_.Hashes(); }

  // Recounts all books; kInternal when they do not balance. For tests.
  absl::Status Audit() const;

 private:
  struct WaitingOrder {
    bool operator()(const Sequence* a, const Sequence* b) const;
  };

  // A row of a launched plan.
  struct LaunchedRow {
    Sequence* sequence = nullptr;
    int32_t count = 0;  // of positions
    int32_t end = 0;
    bool decodes = false;
    bool sampled = false;
  };
  struct LaunchedPlan {
    int64_t step = 0;
    std::vector<LaunchedRow> rows;
    StepCounters counters;
  };

  // A plan in the making.
  struct Draft {
    PlannedStep planned;
    LaunchedPlan launched;
    int32_t tokens_left = 0;
    int32_t prefill_left = 0;      // of max_prefill_tokens
    int32_t decodes_left = 0;      // running sequences yet to get their token
    int32_t decode_rows_left = 0;  // of the share of a micro-batch
    std::optional<RankClass> yield_to;  // over-share sequences after it yield:
    bool closed = false;                // they have no rows, or
    bool after_them = false;            // others' prompts wait for theirs
    bool starved = false;               // a running sequence waits for blocks
    // Only classes before it are admitted: somebody of it lacked blocks.
    std::optional<RankClass> admission_floor;
    int32_t prefill_tokens_left() const {
      return std::min(prefill_left, tokens_left - decodes_left);
    }
  };

  // Where a sequence starts when it is admitted.
  struct Start {
    BlockLease shared;                   // from position 0
    std::optional<BlockId> copy_source;  // the block after them, to be copied
    int32_t position = 0;                // first to be computed
    int32_t standing = 0;                // positions that need not be written
    int32_t cached_tokens = 0;           // found in the index
    bool scoring = false;
  };

  // Room that somebody needs.
  struct Demand {
    int32_t blocks = 0;
    bool running_place = false;
    Rank rank;  // only those below it may be parked
  };

  // Plan, scheduler_plan.cc.
  void FailExpired(absl::Time now);
  void FillPlan(Draft& draft);
  void ReserveRunning(Draft& draft);
  void AdmitWaiting(Draft& draft, std::optional<RankClass> before);
  PlannedStep Finish(Draft draft);
  void TellQueued(QueueNews& news);
  std::optional<RankClass> FirstInShare() const;
  PlanWork YieldingWork() const;
  int32_t PrefillChunk() const;
  void DecideYielding(Draft& draft) const;
  static bool Yields(RankClass rank_class, const Draft& draft);
  static bool HeldBack(const Sequence& sequence, const Draft& draft);
  void NoteYielding(const Draft& draft);
  double TurnSeconds() const;
  int32_t DecodeRowsOfPlan() const;
  int32_t TokensFor(const Sequence& sequence, const Draft& draft) const;
  bool ReserveBlocks(Sequence& sequence, int32_t end, Draft& draft);
  bool ParkUntilFits(const Demand& demand);
  bool TryAdmit(Sequence& sequence, Draft& draft);
  void Admit(Sequence& sequence, Start start, Draft& draft);
  void CountAdmission(const Sequence& sequence, const Start& start,
                      Draft& draft);
  Start FindStart(Sequence& sequence);
  const Sequence* ForkSource(const Sequence& sequence) const;
  bool AwaitsSibling(const Sequence& sequence) const;
  int32_t Headroom(const Sequence& sequence) const;
  void AddRow(Sequence& sequence, int32_t count, Draft& draft);
  SequenceSpec SpecOf(const Sequence& sequence) const;

  // Commit, scheduler_commit.cc.
  void CommitRow(const LaunchedRow& row, RowResult result);
  void CommitResult(const LaunchedRow& row, RowResult result);
  absl::Status CheckRow(const LaunchedRow& row, const RowResult& result) const;
  void CommitBlocks(Sequence& sequence, int32_t end);
  void CommitPrompt(Sequence& sequence, RowResult& result);
  void CommitToken(Sequence& sequence, ScoredToken token);
  static void CountWork(const LaunchedRow& row);
  void Leave(Sequence& sequence);

  // Changes of state, scheduler.cc.
  void ExpectPrefill(Sequence& sequence);
  void EndIfComplete(Sequence& sequence);
  void FinishChoice(Sequence& sequence, ChoiceEnd end,
                    std::optional<TokenId> stop_token_id);
  void FailGroup(Group& group, const absl::Status& status);
  void EndGroup(Group& group);
  void EndGroupIfAllEnded(Group& group);
  void EndSequence(Sequence& sequence);
  void Park(Sequence& sequence);
  void GiveBack(Sequence& sequence);
  void StartWaiting(Sequence& sequence);
  void EraseEnded();
  int32_t available_blocks() const {
    return pool_.free_count() + pool_.cached_count();
  }
  BlockLease Lease(int32_t count);

  const EngineOptions options_;
  BlockPool pool_;
  PrefixIndex index_;

  absl::flat_hash_map<GroupId, std::unique_ptr<Group>> groups_;
  std::vector<GroupId> new_ids_;   // since the last plan
  std::vector<GroupId> to_erase_;  // ended, and still in groups_
  std::vector<std::unique_ptr<Group>> ended_groups_;  // with rows in flight
  std::vector<GroupId> ended_ids_;
  absl::Time next_deadline_ = absl::InfiniteFuture();
  SequenceId next_sequence_ = 1;

  std::vector<Sequence*> running_;  // by rank
  std::set<Sequence*, WaitingOrder> waiting_;
  std::vector<Sequence*> leaving_;  // kParking, or kEnded in flight

  StepTimeModel step_time_;
  YieldLedger yielding_;

  int64_t step_ = 0;  // the last one planned
  std::deque<LaunchedPlan> launched_;
  std::vector<SequenceId> dropped_;  // for the runner, with the next plan
  StepReport report_;                // what happened since the last one
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_SCHEDULER_H_
