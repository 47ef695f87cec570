// Who has lately asked for much more than others.
//
// A tenant's load is what it asked for over its weight, forgotten
// exponentially: what it asked for and not what it got, so that to be served
// late makes nobody look modest. Who asks for more than twice what the median
// tenant does, and for some requests more than that, is over its share: it has
// what nobody else wants, and yields to the others. Who is alone never is, nor
// are tenants that are alike, nor those with a few requests.
#ifndef CARAVAN_GATEWAY_ADMISSION_SHARE_METER_H_
#define CARAVAN_GATEWAY_ADMISSION_SHARE_METER_H_

#include <string>
#include <unordered_map>

#include "absl/time/time.h"

namespace caravan::gateway {

// Not thread-safe. Time is an argument; where it goes back, nothing happens.
class ShareMeter {
 public:
  // `window`: after this long a request counts for 1/e of what it did.
  explicit ShareMeter(absl::Duration window) : window_(window) {}

  // The tenant asks for `cost` tokens. `weight` > 0.
  void Ask(const std::string& tenant, double weight, double cost,
           absl::Time now);
  // It was `more` than was expected; may be negative.
  void Correct(const std::string& tenant, double more, absl::Time now);

  bool OverShare(const std::string& tenant, absl::Time now);

 private:
  struct Load {
    double cost = 0;
    double weight = 1;
    double relative() const { return cost / weight; }
  };

  void Forget(absl::Time now);
  double MedianLoad() const;
  bool IsOver(const Load& load) const;

  const absl::Duration window_;
  std::unordered_map<std::string, Load> loads_;
  absl::Time forgot_ = absl::InfinitePast();
  double mean_cost_ = 0;  // of a request
  double median_ = 0;
  bool changed_ = false;  // loads, since the median was found
};

}  // namespace caravan::gateway

#endif  // CARAVAN_GATEWAY_ADMISSION_SHARE_METER_H_
