// How much of others' time sequences over their share may take.
//
// Beside somebody who is not over his share, rows of those who are may make
// steps longer by a twentieth in all: each step earns that part of its time,
// and what is earned is spent on their rows, which therefore come after it.
// Where rows cost next to nothing they are in nearly every plan, where they
// cost much in few; they never stand still. Who comes while they run alone is
// beside what is in flight only.
//
// Not thread-safe. Times are those of the model, in its unit.
#ifndef CARAVAN_WORKER_ENGINE_YIELD_LEDGER_H_
#define CARAVAN_WORKER_ENGINE_YIELD_LEDGER_H_

#include <algorithm>

namespace caravan::worker {

class YieldLedger {
 public:
  // Whether it is enough for what takes so long.
  bool Affords(double seconds) const { return earned_ >= seconds; }

  // A plan was made beside somebody in his share, in which the latter's rows
  // take `step`, and those over their share add `rows`. No more than `most` is
  // kept for later.
  void Note(double step, double rows, double most) {
    earned_ = std::min(earned_ + kShare * step - rows, most);
  }
  // Nobody had to yield.
  void Clear() { earned_ = 0; }

 private:
  static constexpr double kShare = 0.05;

  double earned_ = 0;
};

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_ENGINE_YIELD_LEDGER_H_
