// The ceiling of products of int8: as many as the machine does in registers.
#ifndef CARAVAN_WORKER_OPS_CPU_INT8_PROBE_H_
#define CARAVAN_WORKER_OPS_CPU_INT8_PROBE_H_

#include <cstdint>

namespace caravan::worker::cpu {

// Thread-safe: functions of their arguments.
struct Int8Probe {
  const char* name;  // of the instruction set
  // So many rounds of independent dot products of unsigned with signed bytes;
  // returns the operations done (a product is one, its addition another), and
  // a sum that keeps them alive.
  double (*dot)(int64_t rounds, int32_t* sum);
};

// Null where the compiler or the machine cannot.
const Int8Probe* Avx512VnniInt8Probe();
const Int8Probe* Avx2Int8Probe();
const Int8Probe* PortableInt8Probe();

// The best of them.
const Int8Probe& BestInt8Probe();

}  // namespace caravan::worker::cpu

#endif  // CARAVAN_WORKER_OPS_CPU_INT8_PROBE_H_
