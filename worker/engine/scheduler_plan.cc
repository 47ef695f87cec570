// Scheduler::Plan: who runs, who yields, who is admitted.
#include <algorithm>
#include <cstdint>
#include <iterator>
#include <set>
#include <span>
#include <utility>

#include "common/status/errors.h"
#include "worker/engine/scheduler.h"

namespace caravan::worker {
namespace {

// Counts the blocks that come back when some sequences give up theirs: those
// that nobody else refers to.
class ReturningBlocks {
 public:
  explicit ReturningBlocks(const BlockPool& pool) : pool_(pool) {}

  void Add(const Sequence& sequence) {
    for (const BlockId block : sequence.blocks.blocks()) {
      if (++seen_[block] == pool_.reference_count(block)) ++count_;
    }
  }
  int32_t count() const { return count_; }

 private:
  const BlockPool& pool_;
  absl::flat_hash_map<BlockId, int32_t> seen_;
  int32_t count_ = 0;
};

}  // namespace

PlannedStep Scheduler::Plan(absl::Time now) {
  FailExpired(now);
  Draft draft;
  draft.tokens_left = options_.max_step_tokens;
  draft.prefill_left = options_.max_prefill_tokens;
  draft.launched.step = step_ + 1;
  DecideYielding(draft);
  FillPlan(draft);
  // Where who is first cannot run, nobody yields to it.
  const bool stands = draft.launched.rows.empty() && launched_.empty();
  if (stands && (draft.closed || draft.after_them)) {
    draft.closed = draft.after_them = false;
    FillPlan(draft);
  }
  return Finish(std::move(draft));
}

void Scheduler::FillPlan(Draft& draft) {
  ReserveRunning(draft);
  AdmitWaiting(draft, std::nullopt);
}

void Scheduler::FailExpired(absl::Time now) {
  if (now < next_deadline_) return;
  next_deadline_ = absl::InfiniteFuture();
  for (const auto& [id, group] : groups_) {
    const absl::Time deadline = group->request.deadline;
    if (deadline <= now) {
      FailGroup(*group, MakeError(Reason::kDeadlineExceeded,
                                  "the request's time is over"));
    } else {
      next_deadline_ = std::min(next_deadline_, deadline);
    }
  }
  EraseEnded();
}

// Gives every running sequence its next row, as tokens and blocks allow.
void Scheduler::ReserveRunning(Draft& draft) {
  draft.decodes_left = static_cast<int32_t>(
      std::ranges::count_if(running_, [&draft](const Sequence* sequence) {
        return sequence->decoding() && sequence->planned < sequence->known() &&
               !sequence->sampling_in_flight && !HeldBack(*sequence, draft);
      }));
  draft.decode_rows_left = DecodeRowsOfPlan();
  draft.decodes_left =
      std::min({draft.decodes_left, draft.decode_rows_left, draft.tokens_left});
  // Parking takes sequences off the end of running_, never the current one.
  for (size_t i = 0; i < running_.size(); ++i) {
    if (i == 0 || running_[i - 1]->rank().rank_class.Before(
                      running_[i]->rank().rank_class)) {
      AdmitWaiting(draft, running_[i]->rank().rank_class);
      if (i >= running_.size()) break;
    }
    Sequence& sequence = *running_[i];
    if (sequence.last_step == step_ + 1) continue;  // admitted just now
    const int32_t count = TokensFor(sequence, draft);
    if (count <= 0) continue;
    if (sequence.decoding()) {
      draft.decodes_left = std::max(0, draft.decodes_left - 1);
    }
    if (!ReserveBlocks(sequence, sequence.planned + count, draft)) continue;
    if (sequence.decoding()) --draft.decode_rows_left;
    AddRow(sequence, count, draft);
  }
  draft.decodes_left = 0;
}

// The first class with a sequence in its share; what is over it and comes
// after yields.
std::optional<RankClass> Scheduler::FirstInShare() const {
  std::optional<RankClass> first;
  const auto consider = [&first](const Sequence* sequence) {
    const RankClass its = sequence->rank().rank_class;
    if (!its.over_share && (!first || its.Before(*first))) first = its;
  };
  // Both are in order of classes, but for those over their share in between.
  for (const Sequence* sequence : waiting_) {
    consider(sequence);
    if (first) break;
  }
  for (const Sequence* sequence : running_) {
    consider(sequence);
    if (!sequence->rank().rank_class.over_share) break;
  }
  return first;
}

// What those over their share would have in a plan.
PlanWork Scheduler::YieldingWork() const {
  PlanWork work;
  const auto wants = [](const Sequence* sequence) {
    return sequence->rank().rank_class.over_share;
  };
  bool prompt = std::ranges::any_of(waiting_, wants);
  for (const Sequence* sequence : running_) {
    if (!wants(sequence)) continue;
    if (sequence->decoding()) {
      ++work.decode_tokens;
    } else {
      prompt = true;
    }
  }
  if (prompt) work.prefill_tokens = PrefillChunk();
  return work;
}

// Of one prompt in a step, at most.
int32_t Scheduler::PrefillChunk() const {
  return std::min(options_.max_prefill_chunk, options_.max_prefill_tokens);
}

// What a step takes that others' prompts wait for because of one over its
// share.
double Scheduler::TurnSeconds() const {
  return step_time_.StepSeconds({.prefill_tokens = PrefillChunk()});
}

void Scheduler::DecideYielding(Draft& draft) const {
  draft.yield_to = FirstInShare();
  if (!draft.yield_to) return;
  const PlanWork work = YieldingWork();
  const double turn = TurnSeconds();
  draft.closed =
      !yielding_.Affords(std::min(step_time_.RowSeconds(work), turn));
  draft.after_them = work.prefill_tokens > 0 && yielding_.Affords(turn);
}

bool Scheduler::Yields(RankClass rank_class, const Draft& draft) {
  return rank_class.over_share && draft.yield_to &&
         draft.yield_to->Before(rank_class);
}

// Whether the sequence has no row in this plan for the sake of shares.
bool Scheduler::HeldBack(const Sequence& sequence, const Draft& draft) {
  const RankClass its = sequence.rank().rank_class;
  if (Yields(its, draft)) return draft.closed;
  const bool running = sequence.state == SequenceState::kRunning;
  return draft.after_them && !its.over_share &&
         !(running && sequence.decoding());
}

// What those over their share took of others' time.
void Scheduler::NoteYielding(const Draft& draft) {
  if (!draft.yield_to) return yielding_.Clear();
  PlanWork first;
  PlanWork yielding;
  for (const LaunchedRow& row : draft.launched.rows) {
    const bool yields = Yields(row.sequence->rank().rank_class, draft);
    PlanWork& work = yields ? yielding : first;
    (row.decodes ? work.decode_tokens : work.prefill_tokens) += row.count;
  }
  if (draft.after_them && yielding.prefill_tokens == 0) {
    return yielding_.Clear();  // it had its turn and no room
  }
  const bool alone = first.empty() || draft.after_them;
  yielding_.Note(first.empty() ? 0 : step_time_.StepSeconds(first),
                 alone ? step_time_.StepSeconds(yielding)
                       : step_time_.RowSeconds(yielding),
                 TurnSeconds());
}

// Sequences that may decode in one plan: an equal share of those that run
// where several plans are to be in flight. Whoever is left out is not in flight
// and comes first in the next plan but that of those who are. None where enough
// plans are in flight and fewer came back than a plan is to have: they wait for
// the next that come back. Else plans that once were more and smaller than the
// stages need would stay so for ever.
int32_t Scheduler::DecodeRowsOfPlan() const {
  const int32_t plans = std::min(options_.micro_batches, options_.depth);
  std::set<int64_t> in_flight;  // plans
  int32_t decoding = 0;
  int32_t available = 0;
  for (const Sequence* sequence : running_) {
    if (!sequence->decoding()) continue;
    ++decoding;
    if (sequence->sampling_in_flight) {
      in_flight.insert(sequence->last_step);
    } else {
      ++available;
    }
  }
  const int32_t share = (decoding + plans - 1) / plans;
  const bool enough = plans > 1 && std::ssize(in_flight) >= plans;
  return enough && available < share ? 0 : share;
}

// Tokens that the sequence's next row may have.
int32_t Scheduler::TokensFor(const Sequence& sequence,
                             const Draft& draft) const {
  if (sequence.sampling_in_flight) return 0;
  if (HeldBack(sequence, draft)) return 0;
  const int32_t left = sequence.known() - sequence.planned;
  if (sequence.decoding()) {
    return draft.decode_rows_left > 0 ? std::min(left, draft.tokens_left) : 0;
  }
  return std::min(
      {left, options_.max_prefill_chunk, draft.prefill_tokens_left()});
}

// Leases what the running sequence lacks for positions below `end`, parking
// sequences below it. When that is not enough it waits, keeping its blocks,
// and nobody below it may take blocks in this step.
bool Scheduler::ReserveBlocks(Sequence& sequence, int32_t end, Draft& draft) {
  const int32_t missing = BlocksFor(end) - sequence.blocks.size();
  if (missing <= 0) return true;
  if (missing > available_blocks() && !draft.admission_floor) {
    draft.admission_floor = sequence.rank().rank_class;
  }
  if (draft.starved ||
      !ParkUntilFits({.blocks = missing, .rank = sequence.rank()})) {
    draft.starved = true;
    return false;
  }
  sequence.blocks.Append(Lease(missing));
  return true;
}

// Parks the last running sequences below the demand's rank until it fits, or
// none when it would not fit then. Returns whether it fits now: blocks of
// sequences with rows in flight come back later.
bool Scheduler::ParkUntilFits(const Demand& demand) {
  ReturningBlocks returning(pool_);
  const auto fits = [&](size_t running) {
    return demand.blocks <= available_blocks() + returning.count() &&
           (!demand.running_place ||
            running < static_cast<size_t>(options_.max_running));
  };
  size_t kept = running_.size();
  if (demand.blocks <= available_blocks() && fits(kept)) return true;
  for (const Sequence* sequence : leaving_) returning.Add(*sequence);
  while (!fits(kept) && kept > 0 &&
         demand.rank.Before(running_[kept - 1]->rank())) {
    returning.Add(*running_[--kept]);
  }
  if (!fits(kept)) return false;
  while (running_.size() > kept) Park(*running_.back());
  return demand.blocks <= available_blocks();
}

// Admits waiting sequences in order until one does not fit.
void Scheduler::AdmitWaiting(Draft& draft, std::optional<RankClass> before) {
  auto it = waiting_.begin();
  while (it != waiting_.end() && draft.prefill_tokens_left() > 0) {
    Sequence& sequence = **it;
    if (before && !sequence.rank().rank_class.Before(*before)) return;
    if (draft.admission_floor &&
        !sequence.rank().rank_class.Before(*draft.admission_floor)) {
      return;
    }
    if (AwaitsSibling(sequence) || HeldBack(sequence, draft)) {
      ++it;
    } else if (TryAdmit(sequence, draft)) {
      it = waiting_.erase(it);
    } else {
      return;
    }
  }
}

bool Scheduler::TryAdmit(Sequence& sequence, Draft& draft) {
  Start start = FindStart(sequence);
  const int32_t missing = BlocksFor(sequence.known()) - start.shared.size();
  if (!ParkUntilFits({.blocks = missing + Headroom(sequence),
                      .running_place = true,
                      .rank = Rank::LastOf(sequence.rank().rank_class)})) {
    return false;
  }
  Admit(sequence, std::move(start), draft);
  return true;
}

// Blocks that sequences of this class or before still need for what they
// know, and a reserve of a block for each, up to 1/32 of all blocks: so that a
// new sequence does not make another one park at once.
int32_t Scheduler::Headroom(const Sequence& sequence) const {
  int32_t outstanding = 0;
  int32_t count = 0;
  for (const Sequence* other : running_) {
    if (sequence.rank().rank_class.Before(other->rank().rank_class)) break;
    outstanding +=
        std::max(0, BlocksFor(other->known()) - other->blocks.size());
    ++count;
  }
  return outstanding + std::min(count, std::max(1, options_.block_count / 32));
}

// Moves the sequence to the running set with its first row. The caller takes
// it out of the waiting set.
void Scheduler::Admit(Sequence& sequence, Start start, Draft& draft) {
  CountAdmission(sequence, start, draft);
  sequence.state = SequenceState::kRunning;
  sequence.scoring = start.scoring;
  sequence.planned = start.position;
  sequence.committed = start.standing;
  sequence.shared = start.standing;
  sequence.prefill_end = sequence.known();
  sequence.work.reused += start.position;
  const auto place =
      std::ranges::find_if(running_, [&sequence](const Sequence* other) {
        return sequence.rank().Before(other->rank());
      });
  running_.insert(place, &sequence);

  const int32_t count =
      std::min({sequence.known() - start.position, options_.max_prefill_chunk,
                draft.prefill_tokens_left()});
  BlockLease own =
      Lease(BlocksFor(start.position + count) - start.shared.size());
  if (start.copy_source) {
    draft.planned.plan.copies.push_back(
        {.source = *start.copy_source, .target = own.blocks().front()});
    ++draft.launched.counters.copied_blocks;
  }
  sequence.blocks = std::move(start.shared);
  sequence.blocks.Append(std::move(own));
  if (!sequence.known_to_runner) {
    draft.planned.added.push_back(SpecOf(sequence));
    sequence.known_to_runner = true;
  }
  AddRow(sequence, count, draft);
}

void Scheduler::CountAdmission(const Sequence& sequence, const Start& start,
                               Draft& draft) {
  StepCounters& counters = report_.counters;
  ++(sequence.parked ? counters.resumed : counters.admitted);
  counters.cached_tokens += start.cached_tokens;
  Group& group = *sequence.group;
  if (group.admitted) return;
  group.admitted = true;
  if (group.told_queued) {
    draft.planned.news.started.push_back(group.request.id);
  }
  group.cached_token_count = std::min(start.cached_tokens, group.prompt_size());
}

// The longest stretch of the sequence that stands already: in the index, or
// with a sibling that has computed the prompt. Holding it keeps it from being
// evicted, and from being counted as room.
Scheduler::Start Scheduler::FindStart(Sequence& sequence) {
  const Group& group = *sequence.group;
  const int32_t known = sequence.known();
  const Sequence* source = ForkSource(sequence);
  Start start;
  start.scoring = group.NeedsScores() && source == nullptr;
  if (options_.prefix_cache) {
    // The score of a position needs the logits of the one before it.
    const int32_t most = start.scoring ? group.scored : known;
    const int32_t full = most / kv::kBlockTokens;
    start.shared =
        pool_.Share(index_.Find(group.root, sequence.Hashes(full),
                                sequence.Tokens(0, full * kv::kBlockTokens)));
  }
  start.cached_tokens = start.shared.size() * kv::kBlockTokens;
  start.standing = start.cached_tokens;
  if (source != nullptr && start.standing < group.prompt_size()) {
    const int32_t full = group.prompt_size() / kv::kBlockTokens;
    const std::span<const BlockId> blocks = source->blocks.blocks();
    start.shared = pool_.Share(blocks.first(full));
    start.standing = group.prompt_size();
    start.cached_tokens = 0;
    if (start.standing % kv::kBlockTokens != 0) {
      start.copy_source = blocks[full];
    }
  }
  // Something must be computed to have logits.
  start.position = std::min(start.standing, known - 1);
  return start;
}

// A running sibling whose blocks hold the whole prompt before this step.
const Sequence* Scheduler::ForkSource(const Sequence& sequence) const {
  for (const auto& other : sequence.group->sequences) {
    if (other->state == SequenceState::kRunning &&
        other->PlannedBefore(step_ + 1) >= sequence.group->prompt_size()) {
      return other.get();
    }
  }
  return nullptr;
}

// Whether a sibling computes the prompt right now.
bool Scheduler::AwaitsSibling(const Sequence& sequence) const {
  if (ForkSource(sequence) != nullptr) return false;
  return std::ranges::any_of(sequence.group->sequences, [](const auto& other) {
    return other->state == SequenceState::kRunning;
  });
}

void Scheduler::AddRow(Sequence& sequence, int32_t count, Draft& draft) {
  const bool decoding = sequence.decoding();
  const int32_t first = sequence.planned;
  const int32_t end = first + count;
  const std::vector<BlockId>& blocks = sequence.blocks.blocks();
  PlanRow row{.sequence = sequence.id,
              .first_position = first,
              .tokens = sequence.Tokens(first, end),
              .blocks = {blocks.begin(), blocks.begin() + BlocksFor(end)},
              .first_stored_position = sequence.shared,
              .sample = end == sequence.known() && sequence.WantsToken(),
              .output_position = static_cast<int32_t>(sequence.output.size()),
              .score_prompt = sequence.scoring &&
                              first < sequence.group->prompt_size() - 1};
  draft.launched.rows.push_back({.sequence = &sequence,
                                 .count = count,
                                 .end = end,
                                 .decodes = decoding,
                                 .sampled = row.sample});
  sequence.planned_before_last = first;
  sequence.last_step = step_ + 1;
  sequence.planned = end;
  ++sequence.rows_in_flight;
  sequence.sampling_in_flight = row.sample;
  draft.tokens_left -= count;
  if (!decoding) draft.prefill_left -= count;
  StepCounters& counters = draft.launched.counters;
  ++counters.rows;
  (decoding ? counters.decode_tokens : counters.prefill_tokens) += count;
  if (!decoding) ++counters.prefill_rows;
  draft.planned.plan.rows.push_back(std::move(row));
}

SequenceSpec Scheduler::SpecOf(const Sequence& sequence) const {
  const GroupRequest& request = sequence.group->request;
  return {.id = sequence.id,
          .choice = sequence.choice,
          .prompt = request.prompt,
          .output = sequence.output,
          .sampling = request.sampling,
          .min_tokens = request.stop.min_tokens,
          .end_ids = request.end_ids};
}

// Numbers the plan and remembers its rows for Commit.
PlannedStep Scheduler::Finish(Draft draft) {
  draft.planned.dropped = std::exchange(dropped_, {});
  TellQueued(draft.planned.news);
  if (!draft.planned.plan.empty()) {
    NoteYielding(draft);
    draft.planned.plan.step = ++step_;
    launched_.push_back(std::move(draft.launched));
  }
  return std::move(draft.planned);
}

// New groups that this plan has left out.
void Scheduler::TellQueued(QueueNews& news) {
  for (const GroupId id : std::exchange(new_ids_, {})) {
    const auto found = groups_.find(id);
    if (found == groups_.end()) continue;
    Group& group = *found->second;
    if (group.admitted || group.ended) continue;
    group.told_queued = true;
    news.queued.push_back(id);
  }
}

}  // namespace caravan::worker
