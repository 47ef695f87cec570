// Placements per second on one core while block events are applied on the
// same core, and the memory of the index (README of services/router).
//
//   services_router_bench [WORKERS] [BLOCKS] [PLACEMENTS] [POLICY]
//
// The blocks are chains of up to 4,096 tokens, held by 1 to 300 workers (by
// the inverse of a uniform number, so that most have one holder); prompts of
// 512, 2,048 and 4,096 tokens come 60, 30 and 10 times in a hundred and follow
// one of the chains. Each placement is preceded by the events that 250,000 a
// second give at 100,000 placements a second, and by heartbeats.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/strings.h"
#include "services/router/placer.h"
#include "services/router/policy_factory.h"

namespace caravan::router {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr uint64_t kSeed = 20240701;
constexpr int kChainBlocks = 256;
constexpr int kMaxHolders = 300;
constexpr double kEventsPerPlacement = 2.5;
constexpr int kEventBlocks = 5;

// Seconds that this thread has computed: others may use the machine.
double CpuSeconds() {
  timespec time = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) +
         static_cast<double>(time.tv_nsec) * 1e-9;
}

// Time that the bench moves on.
class BenchClock final : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  void Advance(absl::Duration duration) { now_ += duration; }

 private:
  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
};

struct Settings {
  int workers = 1000;
  int64_t blocks = 10'000'000;
  int placements = 300'000;
  std::string policy = "cost";
};

class Bench {
 public:
  explicit Bench(const Settings& settings)
      : settings_(settings),
        placer_(Options(), &clock_, MakePolicy(settings.policy, kSeed).value()),
        sequence_numbers_(static_cast<size_t>(settings.workers)) {}

  void Fill();
  void Run();

 private:
  static PlacerOptions Options() {
    PlacerOptions options;
    options.max_index_entries = int64_t{1} << 40;
    return options;
  }

  // Block `depth` of chain `chain`: hashes are uniform, so any mixing does.
  static kv::BlockHash Hash(uint64_t chain, int depth);
  void Register();
  int Holders();
  void Store(int worker, uint64_t chain, int first, int count, bool remove);
  void ApplyEvents();
  PlaceQuery MakeQuery();

  const Settings settings_;
  BenchClock clock_;
  Placer placer_;
  std::mt19937_64 random_{kSeed};
  std::vector<int64_t> sequence_numbers_;
  uint64_t chains_ = 0;
  uint64_t fresh_chain_ = uint64_t{1} << 40;
  double events_due_ = 0;
  int64_t events_ = 0;
  std::vector<std::pair<int, uint64_t>> churn_;  // stored, to be removed
};

kv::BlockHash Bench::Hash(uint64_t chain, int depth) {
  kv::BlockHash hash;
  uint64_t x = chain * 0x9E3779B97F4A7C15u + static_cast<uint64_t>(depth);
  for (int half = 0; half < 2; ++half) {
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9u;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBu;
    x ^= x >> 31;
    std::memcpy(hash.bytes.data() + half * 8, &x, 8);
  }
  return hash;
}

void Bench::Register() {
  for (int w = 0; w < settings_.workers; ++w) {
    ReplicaInfo info;
    info.worker_id = StrCat("worker-", w);
    info.address = StrCat("host-", w, ":8100");
    info.epoch = 1;
    info.model = "model";
    info.identity = {std::string(32, 'w'), "cpu/v1", std::string(32, 'f'),
                     std::string(32, 't'), ""};
    info.context_length = 8192;
    info.vocabulary_size = 32000;
    info.block_size = 16;
    info.block_count = 1 << 16;
    info.max_running_count = 256;
    info.takes_whole = true;
    if (!placer_.Register(w, info).ok()) std::abort();
  }
}

// 1 to 300, P(h or more) = 1/h.
int Bench::Holders() {
  const double u = std::uniform_real_distribution<double>(0, 1)(random_);
  return static_cast<int>(std::min<double>(kMaxHolders, 1 / (u + 1e-9)));
}

void Bench::Store(int worker, uint64_t chain, int first, int count,
                  bool remove) {
  KvChange change;
  change.sequence_number = ++sequence_numbers_[static_cast<size_t>(worker)];
  std::vector<kv::BlockHash>& hashes = remove ? change.removed : change.stored;
  for (int d = 0; d < count; ++d) hashes.push_back(Hash(chain, first + d));
  placer_.ApplyKvChange(worker, change);
}

void Bench::Fill() {
  Register();
  for (int64_t blocks = 0; blocks < settings_.blocks; blocks += kChainBlocks) {
    const int holders = Holders();
    for (int h = 0; h < holders; ++h) {
      const auto worker = static_cast<int>(
          (random_() % static_cast<uint64_t>(settings_.workers)));
      // The first holder has it all, the others a beginning.
      const int count = h == 0 ? kChainBlocks
                               : 1 + static_cast<int>(random_() % kChainBlocks);
      Store(worker, chains_, 0, count, /*remove=*/false);
    }
    ++chains_;
  }
  const BlockIndex& index = placer_.index();
  const double extra =
      static_cast<double>(index.entry_count() - index.block_count());
  const double bytes = static_cast<double>(index.memory_bytes());
  const auto blocks = static_cast<double>(index.block_count());
  std::cout << "index: " << index.block_count() << " blocks, "
            << index.entry_count() << " (block, worker) pairs, " << bytes / 1e6
            << " MB = " << (bytes - 4 * extra) / blocks
            << " bytes a block after 4 for each further holder\n";
}

// Blocks come and go in fives, as workers send them after a step.
void Bench::ApplyEvents() {
  for (events_due_ += kEventsPerPlacement; events_due_ >= kEventBlocks;
       events_due_ -= kEventBlocks) {
    events_ += kEventBlocks;
    if (churn_.size() > 10'000) {
      const size_t i = random_() % churn_.size();
      Store(churn_[i].first, churn_[i].second, 0, kEventBlocks, true);
      churn_[i] = churn_.back();
      churn_.pop_back();
      continue;
    }
    const auto worker = static_cast<int>(
        (random_() % static_cast<uint64_t>(settings_.workers)));
    Store(worker, ++fresh_chain_, 0, kEventBlocks, false);
    churn_.emplace_back(worker, fresh_chain_);
  }
}

PlaceQuery Bench::MakeQuery() {
  const uint64_t draw = random_() % 10;
  PlaceQuery query;
  query.model = "model";
  query.prompt_tokens = draw < 6 ? 512 : draw < 9 ? 2048 : 4096;
  query.expected_output_tokens = 128;
  const uint64_t chain = random_() % chains_;
  const int known = static_cast<int>(random_() % kChainBlocks);
  std::vector<kv::BlockHash>& hashes = query.chains.emplace_back();
  for (int d = 0; d < query.prompt_tokens / 16; ++d) {
    hashes.push_back(d < known ? Hash(chain, d) : Hash(++fresh_chain_, d));
  }
  return query;
}

void Bench::Run() {
  constexpr int kBatch = 1000;
  std::vector<double> micros;
  micros.reserve(static_cast<size_t>(settings_.placements));
  double total = 0;
  int heartbeat = 0;
  while (std::ssize(micros) < settings_.placements) {
    std::vector<PlaceQuery> queries;
    for (int i = 0; i < kBatch; ++i) queries.push_back(MakeQuery());
    const double batch_begin = CpuSeconds();
    for (const PlaceQuery& query : queries) {
      ApplyEvents();
      // 100,000 placements and 1,000 workers twice a second: one in fifty.
      if (micros.size() % 50 == 0) {
        ReplicaLoad load;
        load.running_count = static_cast<int32_t>(random_() % 64);
        load.leased_blocks = load.running_count * 100;
        (void)placer_.Heartbeat(heartbeat++ % settings_.workers, load, false);
      }
      const auto begin = SteadyClock::now();
      if (!placer_.Place(query).ok()) std::abort();
      micros.push_back(
          std::chrono::duration<double, std::micro>(SteadyClock::now() - begin)
              .count());
      clock_.Advance(absl::Microseconds(10));
    }
    total += CpuSeconds() - batch_begin;
  }
  std::sort(micros.begin(), micros.end());
  const auto at = [&](double share) {
    return micros[static_cast<size_t>(share * double(micros.size() - 1))];
  };
  std::cout << settings_.policy << ": "
            << static_cast<double>(micros.size()) / total
            << " placements/s with " << static_cast<double>(events_) / total
            << " block events/s; p50 " << at(0.5) << " us, p99 " << at(0.99)
            << " us, max " << micros.back() << " us\n";
}

}  // namespace
}  // namespace caravan::router

int main(int argc, char** argv) {
  caravan::router::Settings settings;
  if (argc > 1) settings.workers = std::atoi(argv[1]);
  if (argc > 2) settings.blocks = std::atoll(argv[2]);
  if (argc > 3) settings.placements = std::atoi(argv[3]);
  if (argc > 4) settings.policy = argv[4];
  caravan::router::Bench bench(settings);
  bench.Fill();
  bench.Run();
}
