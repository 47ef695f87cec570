// What the processor can do and not every compiler's __builtin_cpu_supports
// can tell. Thread-safe.
#ifndef CARAVAN_WORKER_TENSOR_CPU_FEATURES_H_
#define CARAVAN_WORKER_TENSOR_CPU_FEATURES_H_

namespace caravan::worker {

// Conversions between binary16 and fp32; false on other architectures.
bool HasF16c();

}  // namespace caravan::worker

#endif  // CARAVAN_WORKER_TENSOR_CPU_FEATURES_H_
