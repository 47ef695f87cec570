#include "worker/engine/scheduler.h"

#include <algorithm>
#include <utility>

#include "common/strings.h"

namespace caravan::worker {

bool Scheduler::WaitingOrder::operator()(const Sequence* a,
                                         const Sequence* b) const {
  const Rank rank_a = a->rank();
  const Rank rank_b = b->rank();
  if (rank_a.rank_class == rank_b.rank_class && a->parked != b->parked) {
    return a->parked;
  }
  return rank_a.Before(rank_b);
}

Scheduler::Scheduler(const EngineOptions& options)
    : options_(options), pool_(options.block_count), index_(&pool_) {}

void Scheduler::Add(GroupRequest request) {
  const GroupId id = request.id;
  auto group = std::make_unique<Group>();
  group->request = std::move(request);
  const int32_t size = group->prompt_size();
  group->output_limit =
      std::min(group->request.stop.max_tokens, options_.context_length - size);
  group->root = kv::HashRoot(
      {.weights_id = options_.weights_id,
       .numerics_class = options_.numerics_class,
       .fingerprint = options_.fingerprint,
       .tenant_salt = group->request.tenant_salt,
       .length_salt = kv::LengthSalt(size, options_.unscaled_context_length)});
  next_deadline_ = std::min(next_deadline_, group->request.deadline);
  for (ChoiceStart& start : group->request.choices) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = next_sequence_++;
    sequence->choice = start.index;
    sequence->group = group.get();
    sequence->output = std::move(start.output);
    sequence->work = {.group = id,
                      .choice = start.index,
                      .prompt = size,
                      .resumed = static_cast<int32_t>(sequence->output.size())};
    waiting_.insert(sequence.get());
    group->sequences.push_back(std::move(sequence));
    ExpectPrefill(*group->sequences.back());
  }
  Group& added = *groups_.emplace(id, std::move(group)).first->second;
  new_ids_.push_back(id);
  // A resumed choice may have nothing left to do. The last of them ends the
  // group, which then stays until EraseEnded.
  for (const auto& sequence : added.sequences) {
    if (!sequence->output.empty()) EndIfComplete(*sequence);
  }
  EraseEnded();
}

void Scheduler::Cancel(GroupId id) {
  if (const auto it = groups_.find(id); it != groups_.end()) {
    EndGroup(*it->second);
    EraseEnded();
  }
  const auto of_group = [id](const auto& event) { return event.group == id; };
  std::erase_if(report_.prompts, of_group);
  std::erase_if(report_.tokens, of_group);
  std::erase_if(report_.finishes, of_group);
  std::erase_if(report_.errors, of_group);
}

void Scheduler::CancelChoices(GroupId id, std::span<const int32_t> choices) {
  const auto cancelled = [choices](int32_t choice) {
    return std::ranges::find(choices, choice) != choices.end();
  };
  if (const auto it = groups_.find(id); it != groups_.end()) {
    Group& group = *it->second;
    for (const auto& sequence : group.sequences) {
      if (cancelled(sequence->choice)) EndSequence(*sequence);
    }
    EndGroupIfAllEnded(group);
    EraseEnded();
  }
  const auto of_choices = [id, &cancelled](const auto& event) {
    return event.group == id && cancelled(event.choice);
  };
  std::erase_if(report_.tokens, of_choices);
  std::erase_if(report_.finishes, of_choices);
}

void Scheduler::FailAll(const absl::Status& status) {
  launched_.clear();
  for (Sequence* sequence : std::exchange(leaving_, {})) {
    sequence->rows_in_flight = 0;
    if (sequence->state == SequenceState::kParking) StartWaiting(*sequence);
    GiveBack(*sequence);
  }
  for (Sequence* sequence : running_) sequence->rows_in_flight = 0;
  for (const auto& [id, group] : groups_) FailGroup(*group, status);
  EraseEnded();
}

// Ends the choice where its last token, or its length, says so.
void Scheduler::EndIfComplete(Sequence& sequence) {
  const GroupRequest& request = sequence.group->request;
  const auto count = static_cast<int32_t>(sequence.output.size());
  const TokenId last = sequence.output.back();
  if (count > request.stop.min_tokens &&
      std::ranges::find(request.end_ids, last) != request.end_ids.end()) {
    FinishChoice(sequence, ChoiceEnd::kStop, last);
  } else if (!sequence.WantsToken()) {
    FinishChoice(sequence, ChoiceEnd::kLength, std::nullopt);
  }
}

void Scheduler::FinishChoice(Sequence& sequence, ChoiceEnd end,
                             std::optional<TokenId> stop_token_id) {
  Group& group = *sequence.group;
  report_.finishes.push_back(
      {.group = group.request.id,
       .choice = sequence.choice,
       .end = end,
       .stop_token_id = stop_token_id,
       .output_token_count = static_cast<int32_t>(sequence.output.size())});
  EndSequence(sequence);
  EndGroupIfAllEnded(group);
}

void Scheduler::FailGroup(Group& group, const absl::Status& status) {
  if (group.ended) return;
  report_.errors.push_back({.group = group.request.id, .status = status});
  EndGroup(group);
}

void Scheduler::EndGroup(Group& group) {
  if (group.ended) return;
  group.ended = true;
  to_erase_.push_back(group.request.id);
  ended_ids_.push_back(group.request.id);
  for (const auto& sequence : group.sequences) EndSequence(*sequence);
}

void Scheduler::EndGroupIfAllEnded(Group& group) {
  const bool all = std::ranges::all_of(group.sequences, [](const auto& other) {
    return other->state == SequenceState::kEnded;
  });
  if (all) EndGroup(group);
}

void Scheduler::EndSequence(Sequence& sequence) {
  switch (sequence.state) {
    case SequenceState::kWaiting:
      waiting_.erase(&sequence);
      break;
    case SequenceState::kRunning:
      std::erase(running_, &sequence);
      break;
    case SequenceState::kParking:
      std::erase(leaving_, &sequence);
      break;
    case SequenceState::kEnded:
      return;
  }
  sequence.state = SequenceState::kEnded;
  report_.works.push_back(sequence.work);
  if (sequence.known_to_runner) dropped_.push_back(sequence.id);
  GiveBack(sequence);
}

// Takes a running sequence out of the running set. It waits from now on, or as
// soon as its rows in flight are collected.
void Scheduler::Park(Sequence& sequence) {
  std::erase(running_, &sequence);
  ++report_.counters.parked;
  ++sequence.work.parked;
  if (sequence.rows_in_flight > 0) {
    sequence.state = SequenceState::kParking;
  } else {
    StartWaiting(sequence);
  }
  GiveBack(sequence);
}

void Scheduler::StartWaiting(Sequence& sequence) {
  sequence.state = SequenceState::kWaiting;
  sequence.parked = true;
  waiting_.insert(&sequence);
}

// Gives the blocks of a sequence that is no longer running back, now or when
// its rows in flight are collected.
void Scheduler::GiveBack(Sequence& sequence) {
  if (sequence.rows_in_flight > 0) {
    leaving_.push_back(&sequence);
    return;
  }
  sequence.blocks.Reset();
  sequence.planned = sequence.committed = sequence.shared = 0;
  sequence.indexed = 0;
  sequence.sampling_in_flight = false;
}

void Scheduler::EraseEnded() {
  for (const GroupId id : std::exchange(to_erase_, {})) {
    const auto it = groups_.find(id);
    ended_groups_.push_back(std::move(it->second));
    groups_.erase(it);
  }
  std::erase_if(ended_groups_, [](const std::unique_ptr<Group>& group) {
    return std::ranges::all_of(group->sequences, [](const auto& sequence) {
      return sequence->rows_in_flight == 0;
    });
  });
}

// Leases blocks that available_blocks() counts, evicting cached ones. Dies,
// naming the numbers, when it does not: the books would be wrong.
BlockLease Scheduler::Lease(int32_t count) {
  while (pool_.free_count() < count && index_.EvictOldest()) {
  }
  return *pool_.Lease(count);
}

StepReport Scheduler::TakeReport() {
  PrefixIndexChanges changes = index_.TakeChanges();
  report_.kv_changes = {.stored = std::move(changes.stored),
                        .removed = std::move(changes.removed)};
  report_.load = Load();
  return std::exchange(report_, StepReport());
}

std::vector<GroupId> Scheduler::TakeEnded() {
  return std::exchange(ended_ids_, {});
}

int32_t Scheduler::queued_count() const {
  return static_cast<int32_t>(std::ranges::count_if(
      waiting_, [](const Sequence* s) { return !s->parked; }));
}

// For the load that routers see: the first choice computes what of the prompt
// is not cached, the others what they continue.
void Scheduler::ExpectPrefill(Sequence& sequence) {
  const Group& group = *sequence.group;
  sequence.expected_prefill = sequence.known() - group.prompt_size();
  if (group.sequences.size() > 1) return;
  const int32_t full =
      options_.prefix_cache ? sequence.known() / kv::kBlockTokens : 0;
  const size_t cached = index_
                            .Find(group.root, sequence.Hashes(full),
                                  sequence.Tokens(0, full * kv::kBlockTokens))
                            .size();
  sequence.expected_prefill = std::max(
      1, sequence.known() - static_cast<int32_t>(cached) * kv::kBlockTokens);
}

namespace {

void CountRunning(const Sequence& sequence, EngineLoad& load) {
  ++load.running_sequences;
  load.queued_prefill_tokens +=
      WaitFor(sequence.group->request,
              std::max(0, sequence.prefill_end - sequence.planned));
  if (!sequence.rank().rank_class.over_share) return;
  ++load.yielding.running_sequences;
  load.yielding.leased_blocks += sequence.blocks.size();  // shared ones too
}

void CountWaiting(const Sequence& sequence, EngineLoad& load) {
  const bool parked =
      sequence.parked || sequence.state == SequenceState::kParking;
  ++load.waiting_sequences;
  load.parked_sequences += parked ? 1 : 0;
  load.queued_prefill_tokens +=
      WaitFor(sequence.group->request,
              parked ? sequence.known() : sequence.expected_prefill);
  if (sequence.rank().rank_class.over_share) ++load.yielding.waiting_sequences;
}

}  // namespace

EngineLoad Scheduler::Load() const {
  EngineLoad load;
  for (const Sequence* sequence : running_) CountRunning(*sequence, load);
  for (const Sequence* sequence : waiting_) CountWaiting(*sequence, load);
  for (const Sequence* sequence : leaving_) {
    if (sequence->state == SequenceState::kParking) {
      CountWaiting(*sequence, load);
    }
  }
  load.leased_blocks = pool_.leased_count();
  load.yielding.leased_blocks =
      std::min(load.yielding.leased_blocks, load.leased_blocks);
  load.cached_blocks = pool_.cached_count();
  load.free_blocks = pool_.free_count();
  return load;
}

absl::Status Scheduler::Audit() const {
  absl::Status pool = pool_.Audit();
  if (!pool.ok()) return pool;
  absl::Status index = index_.Audit();
  if (!index.ok()) return index;
  std::vector<int32_t> references(pool_.capacity());
  const auto count = [&references](const auto& group) {
    for (const auto& sequence : group->sequences) {
      for (const BlockId block : sequence->blocks.blocks()) {
        ++references[block];
      }
    }
  };
  for (const auto& [id, group] : groups_) count(group);
  for (const auto& group : ended_groups_) count(group);
  for (BlockId block = 0; block < pool_.capacity(); ++block) {
    if (references[block] != pool_.reference_count(block)) {
      return absl::InternalError(
          StrCat("block ", block, " has ", pool_.reference_count(block),
                 " references; sequences hold ", references[block]));
    }
  }
  const bool sorted = std::ranges::is_sorted(
      running_, [](const Sequence* a, const Sequence* b) {
        return a->rank().Before(b->rank());
      });
  if (!sorted) return absl::InternalError("the running set is out of order");
  return absl::OkStatus();
}

}  // namespace caravan::worker
