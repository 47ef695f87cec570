#include "worker/ops/cuda/device_sampler.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "common/status/status_macros.h"
#include "worker/ops/cuda/geometry.h"
#include "worker/ops/sample.h"

namespace caravan::worker::cuda {
namespace {

static_assert(kSegmentIds == kLogprobSegmentIds);
static_assert(kMaxCandidates == sampling::kMaxLogprobCount);

// Arrays one after the other in one memory, each on a border of 16 bytes.
class Carver {
 public:
  explicit Carver(void* memory) : memory_(static_cast<std::byte*>(memory)) {}

  template <typename T>
  T* Take(int64_t count) {
    T* const array =
        memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += static_cast<size_t>(
        RoundUp(count * static_cast<int64_t>(sizeof(T)), 16));
    return array;
  }
  size_t bytes() const { return bytes_; }

 private:
  std::byte* const memory_;
  size_t bytes_ = 0;
};

// Lays the scratch out. Returns its bytes.
size_t CarveScratch(int64_t rows, int64_t vocabulary, void* memory,
                    SampleTables& tables) {
  const int64_t segments = CeilDiv(vocabulary, kSegmentIds);
  Carver carver(memory);
  tables.bucket_sums = carver.Take<uint64_t>(rows * kWeightBuckets);
  tables.bucket_counts = carver.Take<uint32_t>(rows * kWeightBuckets);
  tables.stats = carver.Take<SegmentStats>(rows * segments);
  tables.draws = carver.Take<DrawState>(rows);
  tables.shares = carver.Take<WeightShare>(rows * segments);
  tables.greater = carver.Take<int32_t>(rows * segments);
  tables.segment_candidates =
      carver.Take<Best>(rows * segments * kMaxCandidates);
  // Together: what comes back.
  tables.records = carver.Take<SampleRecord>(rows);
  tables.candidate_logprobs = carver.Take<Best>(rows * kMaxCandidates);
  return carver.bytes();
}

// What a row does to single ids, in ascending id.
std::map<int32_t, LogitEdit> EditsOf(const SampleRow& row, int64_t vocabulary) {
  std::map<int32_t, LogitEdit> edits;
  const SamplingState& state = *row.state;
  for (const auto& [id, seen] : state.seen()) {
    edits[id].seen = 1;
    edits[id].output_count = seen.output_count;
  }
  for (const sampling::LogitBias& entry : state.params().logit_bias) {
    ++edits[entry.token_id].biases_end;  // a count until they are placed
  }
  // A vocabulary of nothing but end ids keeps them.
  if (row.output_position < state.min_tokens() &&
      std::ssize(state.end_ids()) < vocabulary) {
    for (const int32_t id : state.end_ids()) edits[id].masked = 1;
  }
  for (auto& [id, edit] : edits) edit.id = id;
  return edits;
}

void AddEdits(const SampleRow& row, int64_t vocabulary, SampleBatch& batch) {
  std::map<int32_t, LogitEdit> edits = EditsOf(row, vocabulary);
  for (auto& [id, edit] : edits) {
    const int32_t count = edit.biases_end;
    edit.biases_begin = static_cast<int32_t>(batch.biases.size());
    edit.biases_end = edit.biases_begin;
    batch.biases.resize(batch.biases.size() + count);
  }
  for (const sampling::LogitBias& entry : row.state->params().logit_bias) {
    batch.biases[edits[entry.token_id].biases_end++] = entry.bias;
  }
  for (const auto& [id, edit] : edits) batch.edits.push_back(edit);
}

void AddSample(const SampleRow& row, int64_t vocabulary, SampleBatch& batch) {
  const sampling::SamplingParams& params = row.state->params();
  SampleTask task = {};
  task.logits_row = row.logits_row;
  task.given_id = -1;
  task.candidate_count = params.logprob_count.value_or(-1);
  task.output_position = row.output_position;
  task.choice = row.state->choice();
  task.top_k = params.top_k;
  task.temperature = params.temperature;
  task.repetition = params.repetition_penalty;
  task.frequency = params.frequency_penalty;
  task.presence = params.presence_penalty;
  task.seed = params.seed;
  task.top_p = params.top_p < 1 ? Fixed32(params.top_p) : kWholeShare;
  task.least_weight = LeastWeight(params.min_p);
  task.edits_begin = static_cast<int32_t>(batch.edits.size());
  AddEdits(row, vocabulary, batch);
  task.edits_end = static_cast<int32_t>(batch.edits.size());
  if (task.temperature > 0) {
    batch.any_drawn = true;
    batch.any_top_k |= task.top_k > 0;
    batch.any_top_p |= task.top_p < kWholeShare;
  }
  batch.tasks.push_back(task);
}

void AddScore(const ScoreRow& row, SampleBatch& batch) {
  SampleTask task = {};
  task.logits_row = row.logits_row;
  task.given_id = row.token_id;
  task.candidate_count = row.candidate_count;
  task.edits_begin = task.edits_end = static_cast<int32_t>(batch.edits.size());
  batch.tasks.push_back(task);
}

template <typename T>
void Append(const std::vector<T>& list, std::vector<std::byte>& bytes) {
  const size_t at = bytes.size();
  const size_t size = list.size() * sizeof(T);
  bytes.resize(at + RoundUp(static_cast<int64_t>(size), 16));
  if (size > 0) std::memcpy(bytes.data() + at, list.data(), size);
}

}  // namespace

SampleBatch MakeSampleBatch(const SampleArgs& args) {
  SampleBatch batch;
  for (const SampleRow& row : args.samples) {
    AddSample(row, args.logits.cols, batch);
  }
  for (const ScoreRow& row : args.scores) AddScore(row, batch);
  for (const SampleTask& task : batch.tasks) {
    batch.any_scored |= task.candidate_count >= 0;
    batch.candidates = std::max(batch.candidates, task.candidate_count);
  }
  return batch;
}

size_t DeviceSampler::ScratchBytes(int32_t rows, int64_t vocabulary) {
  SampleTables tables = {};
  return CarveScratch(rows, vocabulary, nullptr, tables);
}

absl::Status DeviceSampler::Reserve(int32_t rows, int64_t vocabulary) {
  return scratch_.Get(ScratchBytes(rows, vocabulary)).status();
}

absl::Status DeviceSampler::Place(const SampleBatch& batch,
                                  const View<float>& logits,
                                  SampleTables& tables) {
  const int64_t rows = std::ssize(batch.tasks);
  CARAVAN_ASSIGN_OR_RETURN(
      void* const scratch,
      scratch_.Get(ScratchBytes(static_cast<int32_t>(rows), logits.cols)));
  CarveScratch(rows, logits.cols, scratch, tables);
  tables.logits = logits.data;
  tables.stride = logits.stride;
  tables.vocabulary = static_cast<int32_t>(logits.cols);
  tables.segments = static_cast<int32_t>(CeilDiv(logits.cols, kSegmentIds));
  tables.candidates = batch.candidates;

  std::vector<std::byte> lists;
  Append(batch.tasks, lists);
  Append(batch.edits, lists);
  Append(batch.biases, lists);
  Carver sizes(nullptr);
  sizes.Take<float>(std::ssize(batch.edits));
  CARAVAN_ASSIGN_OR_RETURN(void* const memory,
                           tables_.Get(lists.size() + sizes.bytes()));
  Carver carver(memory);
  tables.tasks = carver.Take<SampleTask>(rows);
  tables.edits = carver.Take<LogitEdit>(std::ssize(batch.edits));
  tables.biases = carver.Take<float>(std::ssize(batch.biases));
  tables.originals = carver.Take<float>(std::ssize(batch.edits));
  return device_.Upload(memory, lists.data(), lists.size());
}

absl::Status DeviceSampler::LaunchSearch(int64_t tasks,
                                         const SampleTables& tables, Cut cut) {
  for (int pass = 0; pass < kDigits; ++pass) {
    const WeightBucketsKernel::Args args = {tables, cut, pass};
    CARAVAN_RETURN_IF_ERROR(device_.Launch<WeightBucketsKernel>(
        {.x = tables.segments,
         .y = tasks,
         .threads = WeightBucketsKernel::kThreads,
         .shared_bytes = WeightBucketsKernel::kSharedBytes},
        args));
    CARAVAN_RETURN_IF_ERROR(device_.Launch<NarrowKernel>(
        {.x = tasks,
         .threads = NarrowKernel::kThreads,
         .shared_bytes = NarrowKernel::kSharedBytes},
        args));
  }
  return absl::OkStatus();
}

absl::Status DeviceSampler::LaunchDraw(const SampleBatch& batch,
                                       const SampleTables& tables) {
  const int64_t tasks = std::ssize(batch.tasks);
  if (batch.any_top_k) {
    CARAVAN_RETURN_IF_ERROR(LaunchSearch(tasks, tables, Cut::kTopK));
  }
  if (batch.any_top_p) {
    CARAVAN_RETURN_IF_ERROR(LaunchSearch(tasks, tables, Cut::kTopP));
  }
  CARAVAN_RETURN_IF_ERROR(device_.Launch<WeightSharesKernel>(
      {.x = tables.segments,
       .y = tasks,
       .threads = WeightSharesKernel::kThreads,
       .shared_bytes = WeightSharesKernel::kSharedBytes},
      {tables}));
  return device_.Launch<PickTokenKernel>(
      {.x = tasks,
       .threads = PickTokenKernel::kThreads,
       .shared_bytes = PickTokenKernel::kSharedBytes},
      {tables});
}

absl::Status DeviceSampler::Launch(const SampleBatch& batch,
                                   const SampleTables& tables) {
  const int64_t tasks = std::ssize(batch.tasks);
  const LaunchShape stats = {.x = tables.segments,
                             .y = tasks,
                             .threads = LogitStatsKernel::kThreads,
                             .shared_bytes = LogitStatsKernel::kSharedBytes};
  const LaunchShape edit = {.x = batch.edits.empty() ? 0 : tasks,
                            .threads = EditLogitsKernel::kThreads};
  CARAVAN_RETURN_IF_ERROR(
      device_.Launch<LogitStatsKernel>(stats, {tables, /*edited=*/0}));
  CARAVAN_RETURN_IF_ERROR(
      device_.Launch<EditLogitsKernel>(edit, {tables, /*restore=*/0}));
  if (!batch.edits.empty()) {
    CARAVAN_RETURN_IF_ERROR(
        device_.Launch<LogitStatsKernel>(stats, {tables, /*edited=*/1}));
  }
  CARAVAN_RETURN_IF_ERROR(device_.Launch<BeginDrawKernel>(
      {.x = tasks, .threads = BeginDrawKernel::kThreads}, {tables}));
  if (batch.any_drawn) CARAVAN_RETURN_IF_ERROR(LaunchDraw(batch, tables));
  CARAVAN_RETURN_IF_ERROR(
      device_.Launch<EditLogitsKernel>(edit, {tables, /*restore=*/1}));
  if (!batch.any_scored) return absl::OkStatus();
  CARAVAN_RETURN_IF_ERROR(
      device_.Launch<RankKernel>({.x = tables.segments,
                                  .y = tasks,
                                  .threads = RankKernel::kThreads,
                                  .shared_bytes = RankKernel::kSharedBytes},
                                 {tables}));
  return device_.Launch<FinishScoresKernel>(
      {.x = tasks,
       .threads = FinishScoresKernel::kThreads,
       .shared_bytes = FinishScoresKernel::kSharedBytes},
      {tables});
}

absl::Status DeviceSampler::Fetch(const SampleBatch& batch,
                                  const SampleTables& tables,
                                  const SampleArgs& args) {
  const size_t rows = batch.tasks.size();
  const size_t samples = args.samples.size();
  const size_t places = rows * static_cast<size_t>(batch.candidates);
  std::vector<std::byte> bytes(rows * sizeof(SampleRecord) +
                               places * sizeof(Best));
  CARAVAN_RETURN_IF_ERROR(
      device_.Download(bytes.data(), tables.records, bytes.size()));
  const std::byte* const lists = bytes.data() + rows * sizeof(SampleRecord);
  for (size_t t = 0; t < rows; ++t) {
    const SampleTask& task = batch.tasks[t];
    SampleRecord record;
    std::memcpy(&record, bytes.data() + t * sizeof(record), sizeof(record));
    TokenScore& score =
        t < samples ? args.sampled[t] : args.scored[t - samples];
    score = TokenScore();
    score.finite = record.finite != 0;
    if (!score.finite) continue;
    score.token_id = record.token_id;
    if (task.candidate_count < 0) continue;
    score.logprob = record.logprob;
    score.rank = record.rank;
    const int64_t count =
        std::min<int64_t>(task.candidate_count, args.logits.cols);
    for (int64_t c = 0; c < count; ++c) {
      Best entry;
      std::memcpy(&entry, lists + (t * batch.candidates + c) * sizeof(entry),
                  sizeof(entry));
      score.candidates.push_back({entry.id, entry.value});
    }
  }
  return absl::OkStatus();
}

absl::Status DeviceSampler::Run(const SampleArgs& args) {
  const SampleBatch batch = MakeSampleBatch(args);
  if (batch.tasks.empty()) return absl::OkStatus();
  SampleTables tables = {};
  CARAVAN_RETURN_IF_ERROR(Place(batch, args.logits, tables));
  CARAVAN_RETURN_IF_ERROR(Launch(batch, tables));
  return Fetch(batch, tables, args);
}

}  // namespace caravan::worker::cuda
