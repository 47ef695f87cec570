#include "tests/simulation/key_traffic.h"

#include <algorithm>
#include <functional>

namespace caravan::simulation {
namespace {

// Prompts that nobody shares, 16 to 256 tokens out.
std::vector<TraceRequest> Requests(int count, uint64_t seed) {
  return MakeTrace({"keys", 0.0, /*bursty=*/false, seed}, count);
}

bool IsFlood(const Outcome& outcome) { return outcome.tenant == 0; }
bool IsOther(const Outcome& outcome) { return outcome.tenant != 0; }

double FloodShare(const std::vector<TraceRequest>& trace,
                  const FleetResult& result) {
  absl::Duration last;
  for (const Outcome& outcome : result.outcomes) {
    if (IsOther(outcome)) last = std::max(last, outcome.arrival);
  }
  double flood = 0;
  double all = 0;
  for (size_t i = 0; i < trace.size(); ++i) {
    if (result.outcomes[i].end > last) continue;
    const double tokens =
        static_cast<double>(trace[i].prompt->size()) + trace[i].output_tokens;
    all += tokens;
    if (trace[i].tenant == 0) flood += tokens;
  }
  return flood / all;
}

KeyFigures KeyFiguresOf(const FleetResult& result,
                        const std::function<bool(const Outcome&)>& passes) {
  return {FiguresOf(result.outcomes, passes),
          CompletionFiguresOf(result.outcomes, passes)};
}

double LastEnd(const FleetResult& result) {
  absl::Duration last;
  for (const Outcome& outcome : result.outcomes) {
    if (outcome.finished()) last = std::max(last, outcome.end);
  }
  return absl::ToDoubleSeconds(last);
}

int WronglyOver(const FleetResult& result) {
  return static_cast<int>(
      std::ranges::count_if(result.outcomes, [](const Outcome& outcome) {
        return IsOther(outcome) && outcome.over_share;
      }));
}

}  // namespace

std::vector<TraceRequest> MakeKeysTrace(int request_count, int flood_times,
                                        uint64_t seed) {
  std::vector<TraceRequest> trace = Requests(request_count, seed);
  TraceRandom random(seed);
  for (TraceRequest& request : trace) {
    request.tenant = static_cast<int32_t>(random.Below(kKeyCount));
  }
  const int more = request_count * (flood_times - 1) / kKeyCount;
  for (TraceRequest& request : Requests(more, seed + 1)) {
    request.arrival *= static_cast<double>(request_count) / more;
    trace.push_back(std::move(request));
  }
  std::stable_sort(trace.begin(), trace.end(),
                   [](const TraceRequest& a, const TraceRequest& b) {
                     return a.arrival < b.arrival;
                   });
  return trace;
}

FairnessFigures RunKeys(FleetOptions options, int request_count, double load,
                        uint64_t seed) {
  const std::vector<TraceRequest> alike = MakeKeysTrace(request_count, 1, seed);
  const std::vector<TraceRequest> flooded =
      MakeKeysTrace(request_count, 10, seed);
  options.requests_per_second = load * IdealCapacity(options, alike);
  FairnessFigures figures;
  const FleetResult calm = SimulatedFleet(options, alike).Run();
  figures.alike = KeyFiguresOf(calm, IsOther);
  figures.alike_end = LastEnd(calm);
  const FleetResult result = SimulatedFleet(options, flooded).Run();
  figures.flooded = KeyFiguresOf(result, IsOther);
  figures.flooded_end = LastEnd(result);
  figures.flood = KeyFiguresOf(result, IsFlood);
  figures.wrongly_over = WronglyOver(calm) + WronglyOver(result);
  figures.flood_share = FloodShare(flooded, result);
  return figures;
}

}  // namespace caravan::simulation
