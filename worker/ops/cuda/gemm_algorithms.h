// Which algorithm of a library's products is fastest for which product, as
// measured on one machine, and the file that keeps it: plain data, tested
// without a device.
#ifndef CARAVAN_WORKER_OPS_CUDA_GEMM_ALGORITHMS_H_
#define CARAVAN_WORKER_OPS_CUDA_GEMM_ALGORITHMS_H_

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caravan::worker::cuda {

// What times hold for. An algorithm's bits mean something to one version of the
// library only, and its speed belongs to card and driver.
struct GemmSite {
  std::string library;  // such as "cublasLt 130100"
  std::string driver;   // such as "13000"
  std::string card;     // such as "NVIDIA H100 80GB HBM3, sm90, 132 SMs"

  friend bool operator==(const GemmSite&, const GemmSite&) = default;
};

// Operands and result of a product.
enum class GemmTypes : int32_t {
  kBf16,  // bf16 times bf16, sums and result fp32
};

// Products that share an algorithm: y[t, n] = sum_k x[t, k] w[n, k].
struct GemmKey {
  GemmTypes types = GemmTypes::kBf16;
  int32_t rows = 0;     // n
  int32_t columns = 0;  // k
  int32_t tokens = 0;   // t, a GemmTokenBucket
  bool adds = false;    // to what y holds

  friend auto operator<=>(const GemmKey&, const GemmKey&) = default;
};

// An algorithm as the library describes it: opaque.
struct GemmAlgorithm {
  std::array<uint64_t, 8> words = {};
  int64_t workspace_bytes = 0;

  friend bool operator==(const GemmAlgorithm&, const GemmAlgorithm&) = default;
};

// Workspace that products may use at most, and that is allocated.
inline constexpr int64_t kGemmWorkspaceBytes = int64_t{32} << 20;
// Products of more tokens are several calls.
inline constexpr int32_t kMaxGemmTokens = 4096;

// `tokens` in [1, kMaxGemmTokens] rounded up to 1, 2, 4, 8, 16, 32 or, from
// there, a power of two or one and a half times one.
int32_t GemmTokenBucket(int64_t tokens);
// All buckets that steps of up to `most` tokens meet, ascending.
std::vector<int32_t> GemmTokenBuckets(int64_t most);

// The place of the least of `seconds` (not empty). A difference below 1 % is
// noise: the earlier one then, which the library guessed to be better.
size_t FastestOf(std::span<const double> seconds);

// Not thread-safe.
class GemmAlgorithms {
 public:
  struct Entry {
    GemmAlgorithm algorithm;
    double seconds = 0;  // of one product, as measured

    friend bool operator==(const Entry&, const Entry&) = default;
  };

  explicit GemmAlgorithms(GemmSite site) : site_(std::move(site)) {}

  // Null where that product was not measured.
  const Entry* Find(const GemmKey& key) const;
  void Put(const GemmKey& key, const Entry& entry) { entries_[key] = entry; }
  size_t size() const { return entries_.size(); }
  const GemmSite& site() const { return site_; }

  // 8 hexadecimal digits of the site and of which algorithm is whose: the same
  // where products have the same bits.
  std::string Digest() const;

  // A line for the format, three for the site, one for each product, one with
  // the CRC32C of all before it.
  std::string Serialize() const;
  // `name` stands in errors. kIdentityMismatch for a whole file of another
  // site, naming what differs; kInvalidField for anything that Serialize does
  // not write, naming the line.
  static absl::StatusOr<GemmAlgorithms> Parse(std::string_view text,
                                              std::string_view name,
                                              const GemmSite& site);

  // The same with a file. kNotFound where there is none. Save leaves the old
  // file or the whole new one.
  static absl::StatusOr<GemmAlgorithms> Load(const std::string& path,
                                             const GemmSite& site);
  absl::Status Save(const std::string& path) const;

  friend bool operator==(const GemmAlgorithms&,
                         const GemmAlgorithms&) = default;

 private:
  GemmSite site_;
  std::map<GemmKey, Entry> entries_;
};

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_GEMM_ALGORITHMS_H_
