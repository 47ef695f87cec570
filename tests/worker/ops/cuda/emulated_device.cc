#include "tests/worker/ops/cuda/emulated_device.h"

#include <setjmp.h>
#include <ucontext.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

#include <array>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "common/status/errors.h"
#include "common/status/status_macros.h"
#include "common/strings.h"

namespace caravan::worker::cuda {
namespace {

constexpr int kMaxThreads = 1024;
constexpr size_t kStackBytes = size_t{256} << 10;

enum class FiberState { kRunnable, kAtBarrier, kAtWarp, kAtBytes, kDone };

// What a lane gives to the others of its warp.
struct Operands {
  uint32_t a[4] = {};
  uint32_t b[2] = {};
  float value = 0;
};

struct Warp {
  // Two sets in turn: a lane may give the next while others still read.
  std::array<std::array<Operands, kWarpLanes>, 2> operands;
};

// Where code runs; AddressSanitizer is told of every change from one to
// another, or it takes the jumps for returns and a foreign stack for its own.
struct Stack {
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* fake = nullptr;  // the sanitizer's own record while another runs
};

void Leave([[maybe_unused]] Stack& from, [[maybe_unused]] const Stack& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.fake, to.bottom, to.bytes);
#endif
}

// `from` is the stack that was left, whose bounds are learnt here.
void Arrive([[maybe_unused]] Stack& at, [[maybe_unused]] Stack* from) {
#ifdef __SANITIZE_ADDRESS__
  const void* bottom = nullptr;
  size_t bytes = 0;
  __sanitizer_finish_switch_fiber(at.fake, &bottom, &bytes);
  if (from != nullptr) *from = {bottom, bytes, from->fake};
#endif
}

// What "mbarrier" counts: a phase ends when all have arrived and all bytes
// have come.
struct ByteBarrier {
  int threads = 0;
  int arrivals = 0;
  int64_t bytes = 0;
  int parity = 0;  // of the phase that is under way

  void Settle() {
    if (arrivals < threads || bytes != 0) return;
    arrivals = 0;
    parity ^= 1;
  }
};

// A copy that the copy engine will make: when nobody can run without it.
struct Copy {
  void* target;
  const void* source;
  int bytes;
  uint64_t* barrier;
};

// Lives from block to block: entered once by ucontext, from then on by jumps,
// which ask nothing of the kernel.
struct Fiber {
  ucontext_t entry = {};
  jmp_buf place;
  bool entered = false;
  std::unique_ptr<std::byte[]> memory;
  Stack stack;
  FiberState state = FiberState::kDone;
  int collectives = 0;
  const uint64_t* barrier = nullptr;  // where it waits for bytes
  int parity = 0;
};

// The block that is running; one at a time in a thread.
struct Block {
  jmp_buf scheduler;
  ucontext_t scheduler_entry = {};
  Stack scheduler_stack;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  std::vector<std::byte> shared;  // its memory begins at a border of 1024
  std::map<const uint64_t*, ByteBarrier> barriers;
  std::vector<Copy> copies;
  std::string fault;
  std::function<void(int)> body;
  int current = 0;
  int x = 0, y = 0, z = 0;
};
thread_local Block block;

constexpr size_t kSharedBorder = 1024;

std::byte* SharedBegin() {
  const auto address = reinterpret_cast<uintptr_t>(block.shared.data());
  return block.shared.data() + (kSharedBorder - address % kSharedBorder);
}

void Yield(FiberState state) {
  Fiber& fiber = block.fibers[block.current];
  fiber.state = state;
  if (_setjmp(fiber.place) == 0) {
    Leave(fiber.stack, block.scheduler_stack);
    _longjmp(block.scheduler, 1);
  }
  Arrive(fiber.stack, nullptr);
}

void FiberMain() {
  Arrive(block.fibers[block.current].stack, &block.scheduler_stack);
  while (true) {
    block.body(block.current);
    Yield(FiberState::kDone);
  }
}

void Enter(Fiber& fiber) {
  getcontext(&fiber.entry);
  fiber.entry.uc_stack.ss_sp = fiber.memory.get();
  fiber.entry.uc_stack.ss_size = kStackBytes;
  fiber.entry.uc_link = nullptr;
  makecontext(&fiber.entry, FiberMain, 0);
  fiber.entered = true;
  swapcontext(&block.scheduler_entry, &fiber.entry);
}

// Runs a fiber until it yields.
void Resume(int index) {
  block.current = index;
  Fiber& fiber = block.fibers[index];
  if (fiber.memory == nullptr) {
    fiber.memory = std::make_unique<std::byte[]>(kStackBytes);
    fiber.stack = {fiber.memory.get(), kStackBytes};
  }
  if (_setjmp(block.scheduler) != 0) {
    Arrive(block.scheduler_stack, nullptr);
    return;
  }
  Leave(block.scheduler_stack, fiber.stack);
  if (!fiber.entered) Enter(fiber);
  _longjmp(fiber.place, 1);
}

float Code(uint32_t word, int byte) {
  return ToFloat(Fp8{static_cast<uint8_t>(word >> 8 * byte)});
}
float Low(uint32_t word) { return ToFloat(Bf16{static_cast<uint16_t>(word)}); }
float High(uint32_t word) {
  return ToFloat(Bf16{static_cast<uint16_t>(word >> 16)});
}

class EmulatedThread {
 public:
  explicit EmulatedThread(int thread) : thread_(thread) {}

  int thread() const { return thread_; }
  int lane() const { return thread_ % 32; }
  int warp() const { return thread_ / 32; }
  int block_x() const { return block.x; }
  int block_y() const { return block.y; }
  int block_z() const { return block.z; }
  void* shared() const { return SharedBegin(); }
  void Sync() { Yield(FiberState::kAtBarrier); }

  float ShuffleXor(float value, int mask) {
    Operands own;
    own.value = value;
    return Exchange(own)[lane() ^ mask].value;
  }
  uint32_t ShuffleXor(uint32_t value, int mask) {
    Operands own;
    own.a[0] = value;
    return Exchange(own)[lane() ^ mask].a[0];
  }
  template <typename T>
  void AtomicAdd(T* address, T value) {
    *address += value;
  }

  // PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type": of
  // A, lane l has rows l / 4 and l / 4 + 8 and columns l % 4 * 2 + {0, 1} and
  // + 8, registers in the order (row, column), (row + 8, column), (row,
  // column + 8), (row + 8, column + 8); of B rows l % 4 * 2 + {0, 1} and + 8
  // of column l / 4; of C rows l / 4 and + 8, columns l % 4 * 2 + {0, 1}.
  void Mma(float* c, const uint32_t* a, const uint32_t* b) {
    Operands own;
    std::memcpy(own.a, a, sizeof(own.a));
    std::memcpy(own.b, b, sizeof(own.b));
    const auto& all = Exchange(own);
    for (int i = 0; i < 4; ++i) {
      const int row = lane() / 4 + (i >= 2 ? 8 : 0);
      const int column = lane() % 4 * 2 + i % 2;
      double sum = c[i];
      for (int k = 0; k < 16; ++k) {
        sum += static_cast<double>(ElementA(all, row, k)) *
               ElementB(all, k, column);
      }
      c[i] = static_cast<float>(sum);
    }
  }

  // PTX ISA, "Matrix Fragments for mma.m16n8k32", 8-bit types: of A, lane l has
  // rows l / 4 and l / 4 + 8 and columns l % 4 * 4 + {0 to 3} and + 16, four to
  // a register, registers in the order of mma.m16n8k16; of B rows l % 4 * 4 +
  // {0 to 3} and + 16 of column l / 4; C as there.
  static constexpr bool kHasFp8Mma = true;
  void MmaFp8(float* c, const uint32_t* a, const uint32_t* b) {
    Operands own;
    std::memcpy(own.a, a, sizeof(own.a));
    std::memcpy(own.b, b, sizeof(own.b));
    const auto& all = Exchange(own);
    for (int i = 0; i < 4; ++i) {
      const int row = lane() / 4 + (i >= 2 ? 8 : 0);
      const int column = lane() % 4 * 2 + i % 2;
      double sum = c[i];
      for (int k = 0; k < 32; ++k) {
        const int word = (row >= 8 ? 1 : 0) + (k >= 16 ? 2 : 0);
        const int quad = k % 16 / 4;
        sum +=
            static_cast<double>(Code(all[row % 8 * 4 + quad].a[word], k % 4)) *
            Code(all[column * 4 + quad].b[k / 16], k % 4);
      }
      c[i] = static_cast<float>(sum);
    }
  }

  Words4 LoadStream(const Words4* address) { return *address; }
  Words2 LoadStream(const Words2* address) { return *address; }

  static constexpr bool kHasWgmma = true;
  uint32_t SharedAddress(const void* address) const {
    return static_cast<uint32_t>(static_cast<const std::byte*>(address) -
                                 SharedBegin());
  }
  void InitBarrier(uint64_t* barrier, int count) {
    block.barriers[barrier] = {.threads = count};
  }
  void PublishBarriers() { Sync(); }
  void ArriveBarrier(uint64_t* barrier) {
    ByteBarrier& own = block.barriers.at(barrier);
    ++own.arrivals;
    own.Settle();
  }
  void ExpectBytes(uint64_t* barrier, int bytes) {
    block.barriers.at(barrier).bytes += bytes;
    ArriveBarrier(barrier);
  }
  void WaitBarrier(uint64_t* barrier, int parity) {
    if (block.barriers.at(barrier).parity != parity) return;
    block.fibers[thread_].barrier = barrier;
    block.fibers[thread_].parity = parity;
    Yield(FiberState::kAtBytes);
  }
  void CopyBulk(void* target, const void* source, int bytes,
                uint64_t* barrier) {
    if (bytes % 16 != 0 || SharedAddress(target) % 16 != 0) {
      block.fault = "a bulk copy of other than whole 16 bytes";
    }
    block.copies.push_back({target, source, bytes, barrier});
  }
  void TakeRegisters() {}
  void GiveRegisters() {}

  // PTX ISA, "Asynchronous warpgroup level matrix multiply-accumulate": warp w
  // of four has rows 16 w to 16 w + 15 of A and of C, in the registers of
  // mma.m16n8k16, columns of C in groups of 8. Operands are read at the end:
  // what changes before, changes the result.
  void BeginWgmma() { products_.clear(); }
  template <int kSums>
  void Wgmma(float (&c)[kSums], const uint32_t* a, uint64_t descriptor) {
    products_.push_back({c, kSums, a, descriptor});
  }
  void EndWgmma() {
    for (const Product& product : products_) Multiply(product);
    products_.clear();
  }

 private:
  struct Product {
    float* c;
    int sums;
    const uint32_t* a;
    uint64_t descriptor;
  };

  void Multiply(const Product& product) {
    Operands own;
    std::memcpy(own.a, product.a, sizeof(own.a));
    const auto& all = Exchange(own);
    float a[2][16];
    for (int k = 0; k < 16; ++k) {
      a[0][k] = ElementA(all, lane() / 4, k);
      a[1][k] = ElementA(all, lane() / 4 + 8, k);
    }
    for (int i = 0; i < product.sums; ++i) {
      const int column = i / 4 * 8 + lane() % 4 * 2 + i % 2;
      double sum = product.c[i];
      for (int k = 0; k < 16; ++k) {
        sum += static_cast<double>(a[i / 2 % 2][k]) *
               ElementB(product.descriptor, k, column);
      }
      product.c[i] = static_cast<float>(sum);
    }
  }

  // PTX ISA, "Matrix descriptor" and "Strides": K-major, rows of 64 bytes, the
  // address bits 4 and 5 changed by bits 7 and 8.
  static float ElementB(uint64_t descriptor, int k, int column) {
    if (descriptor >> 62 != 2) block.fault = "a swizzle other than 64 bytes";
    const uint64_t start = (descriptor & 0x3fff) << 4;
    const uint64_t stride = (descriptor >> 32 & 0x3fff) << 4;
    uint64_t address = start + column / 8 * stride + column % 8 * 64 + k * 2;
    address ^= (address >> 7 & 3) << 4;
    if (address + 2 > block.shared.size() - kSharedBorder) {
      block.fault = "a descriptor beyond the block's shared memory";
      return 0;
    }
    Bf16 value;
    std::memcpy(&value, SharedBegin() + address, 2);
    return ToFloat(value);
  }

  using Lanes = std::array<Operands, kWarpLanes>;

  const Lanes& Exchange(const Operands& own) {
    Fiber& fiber = block.fibers[thread_];
    Lanes& lanes = block.warps[warp()].operands[fiber.collectives++ % 2];
    lanes[lane()] = own;
    Yield(FiberState::kAtWarp);
    return lanes;
  }

  static float ElementA(const Lanes& lanes, int row, int k) {
    const int word = (row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0);
    const uint32_t bits = lanes[row % 8 * 4 + k % 8 / 2].a[word];
    return k % 2 == 0 ? Low(bits) : High(bits);
  }
  static float ElementB(const Lanes& lanes, int k, int column) {
    const uint32_t bits = lanes[column * 4 + k % 8 / 2].b[k / 8];
    return k % 2 == 0 ? Low(bits) : High(bits);
  }

  const int thread_;
  std::vector<Product> products_;
};

void Prepare(int threads, size_t shared_bytes) {
  if (block.fibers.size() < static_cast<size_t>(threads)) {
    block.fibers = std::vector<Fiber>(threads);
  }
  block.warps.resize((threads + 31) / 32);
  // What is not initialized is not zero either.
  block.shared.assign(shared_bytes + kSharedBorder, std::byte{0xff});
  block.barriers.clear();
  block.copies.clear();
  for (int i = 0; i < threads; ++i) {
    block.fibers[i].state = FiberState::kRunnable;
    block.fibers[i].collectives = 0;
  }
}

bool AllIn(int begin, int end, FiberState state) {
  for (int i = begin; i < end; ++i) {
    if (block.fibers[i].state != state) return false;
  }
  return true;
}

// Makes the copies that were asked for, and lets those go on who waited for
// them or for arrivals.
bool ReleaseWaitingForBytes(int threads) {
  for (const Copy& copy : block.copies) {
    std::memcpy(copy.target, copy.source, copy.bytes);
    ByteBarrier& barrier = block.barriers.at(copy.barrier);
    barrier.bytes -= copy.bytes;
    barrier.Settle();
  }
  block.copies.clear();
  bool released = false;
  for (int i = 0; i < threads; ++i) {
    Fiber& fiber = block.fibers[i];
    if (fiber.state != FiberState::kAtBytes ||
        block.barriers.at(fiber.barrier).parity == fiber.parity) {
      continue;
    }
    fiber.state = FiberState::kRunnable;
    released = true;
  }
  return released;
}

// Lets those go on whose companions have all come; false where nobody can.
bool Release(int threads) {
  bool released = false;
  for (int warp = 0; warp * 32 < threads; ++warp) {
    if (!AllIn(warp * 32, warp * 32 + 32, FiberState::kAtWarp)) continue;
    for (int i = warp * 32; i < warp * 32 + 32; ++i) {
      block.fibers[i].state = FiberState::kRunnable;
    }
    released = true;
  }
  if (released || ReleaseWaitingForBytes(threads)) return true;
  for (int i = 0; i < threads; ++i) {  // threads that ended do not count
    const FiberState state = block.fibers[i].state;
    if (state == FiberState::kAtWarp || state == FiberState::kAtBytes) {
      return false;
    }
    if (state == FiberState::kAtBarrier) released = true;
  }
  for (int i = 0; i < threads; ++i) {
    if (block.fibers[i].state == FiberState::kAtBarrier) {
      block.fibers[i].state = FiberState::kRunnable;
    }
  }
  return released;
}

bool RunBlock(int threads, bool descending) {
  while (true) {
    for (int n = 0; n < threads; ++n) {
      const int i = descending ? threads - 1 - n : n;
      if (block.fibers[i].state != FiberState::kRunnable) continue;
      Resume(i);
    }
    if (AllIn(0, threads, FiberState::kDone)) return true;
    if (!Release(threads)) return false;
  }
}

template <typename Kernel>
void RunThread(const void* args, int thread) {
  EmulatedThread emulated(thread);
  Kernel::Run(*static_cast<const typename Kernel::Args*>(args), emulated);
}

class HostCopies final : public ExchangeCopies {
 public:
  absl::Status ToHost(void* target, const void* source, size_t n) override {
    std::memcpy(target, source, n);
    return absl::OkStatus();
  }
  absl::Status FromHost(void* target, const void* source, size_t n) override {
    std::memcpy(target, source, n);
    return absl::OkStatus();
  }
};

struct EmulatedGraph final : DeviceGraph {
  LaunchList launches;
};

using ThreadFunction = void (*)(const void*, int);

struct KernelEntry {
  ThreadFunction run;
  int max_threads;
};

template <typename... Kernels>
std::vector<KernelEntry> TableOf(KernelList<Kernels...>) {
  return {{&RunThread<Kernels>, Kernels::kThreads}...};
}

}  // namespace

absl::StatusOr<void*> EmulatedDevice::Allocate(size_t bytes) {
  std::vector<std::byte> memory(bytes);
  std::byte* const begin = memory.data();
  memory_.emplace(begin + bytes, std::move(memory));
  return begin;
}

void EmulatedDevice::Free(void* memory) {
  const auto found = memory_.upper_bound(static_cast<const std::byte*>(memory));
  if (found != memory_.end()) memory_.erase(found);
}

bool EmulatedDevice::Owns(const void* address) const {
  const auto* const byte = static_cast<const std::byte*>(address);
  const auto found = memory_.upper_bound(byte);
  return found != memory_.end() && byte >= found->second.data();
}

absl::Status EmulatedDevice::Health() const {
  if (counts_.attempts < last_attempt_) return absl::OkStatus();
  return MakeError(Reason::kInternal, "an injected error of the device");
}

absl::Status EmulatedDevice::Upload(void* target, const void* source,
                                    size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Health());
  std::memcpy(target, source, bytes);
  return absl::OkStatus();
}

absl::Status EmulatedDevice::Download(void* target, const void* source,
                                      size_t bytes) {
  CARAVAN_RETURN_IF_ERROR(Health());
  std::memcpy(target, source, bytes);
  return absl::OkStatus();
}

absl::Status EmulatedDevice::LaunchIndex(int index, const LaunchShape& shape,
                                         const void* args) {
  CARAVAN_RETURN_IF_ERROR(Health());
  if (!replaying_) ++counts_.launches;
  ++counts_.attempts;
  return Run(index, shape, args);
}

absl::StatusOr<GemmLibrary*> EmulatedDevice::gemm_library() {
  if (library_ == nullptr) return Device::gemm_library();
  return library_.get();
}

absl::Status EmulatedDevice::Multiply(const LibraryGemm& gemm) {
  CARAVAN_RETURN_IF_ERROR(Health());
  if (library_ == nullptr) return Device::Multiply(gemm);
  ++counts_.attempts;
  return library_->Run(gemm);
}

absl::Status EmulatedDevice::Gather(const PeerGather& gather) {
  CARAVAN_RETURN_IF_ERROR(Health());
  if (options_.exchange == nullptr) return Device::Gather(gather);
  HostCopies copies;
  return options_.exchange->Gather(options_.rank, gather, copies);
}

absl::StatusOr<std::unique_ptr<DeviceGraph>> EmulatedDevice::Instantiate(
    const LaunchList& launches) {
  ++counts_.graphs;
  auto graph = std::make_unique<EmulatedGraph>();
  graph->launches = launches;
  return graph;
}

absl::Status EmulatedDevice::Replay(const DeviceGraph& graph) {
  ++counts_.replays;
  replaying_ = true;
  const absl::Status status =
      static_cast<const EmulatedGraph&>(graph).launches.LaunchOn(*this);
  replaying_ = false;
  return status;
}

absl::Status EmulatedDevice::Run(int index, const LaunchShape& shape,
                                 const void* args) {
  static const std::vector<KernelEntry> table = TableOf(AllKernels());
  const KernelEntry& kernel = table[index];
  if (shape.threads < 1 || shape.threads > kernel.max_threads ||
      shape.threads % kWarpLanes != 0 || shape.threads > kMaxThreads ||
      shape.y > 65535 || shape.z > 65535) {
    return MakeError(
        Reason::kInternal,
        StrCat("launch of kernel ", index, ": ", shape.threads,
               " threads, grid ", shape.x, " x ", shape.y, " x ", shape.z));
  }
  block.body = [&](int thread) { kernel.run(args, thread); };
  for (int64_t i = 0; i < shape.x * shape.y * shape.z; ++i) {
    block.x = static_cast<int>(i % shape.x);
    block.y = static_cast<int>(i / shape.x % shape.y);
    block.z = static_cast<int>(i / shape.x / shape.y);
    Prepare(shape.threads, static_cast<size_t>(shape.shared_bytes));
    if (!RunBlock(shape.threads, options_.descending)) {
      block.fibers.clear();  // those that wait will never end
      return MakeError(Reason::kInternal,
                       StrCat("kernel ", index,
                              ": threads wait for others that never come"));
    }
    if (!block.fault.empty()) {
      return MakeError(Reason::kInternal,
                       StrCat("kernel ", index, ": ",
                              std::exchange(block.fault, std::string())));
    }
  }
  return absl::OkStatus();
}

}  // namespace caravan::worker::cuda
