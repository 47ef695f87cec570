// Every kernel, once: devices make their tables from this list, so the order
// is that of KernelId.
#ifndef CARAVAN_WORKER_OPS_CUDA_KERNELS_KERNEL_LIST_H_
#define CARAVAN_WORKER_OPS_CUDA_KERNELS_KERNEL_LIST_H_

#include <cstddef>
#include <type_traits>

#include "worker/ops/cuda/kernels/ceilings.h"
#include "worker/ops/cuda/kernels/chain_attention.h"
#include "worker/ops/cuda/kernels/chain_gemm.h"
#include "worker/ops/cuda/kernels/elementwise.h"
#include "worker/ops/cuda/kernels/four_bit_gemm.h"
#include "worker/ops/cuda/kernels/fp8_activations.h"
#include "worker/ops/cuda/kernels/fp8_gemm.h"
#include "worker/ops/cuda/kernels/gathered.h"
#include "worker/ops/cuda/kernels/mma_attention.h"
#include "worker/ops/cuda/kernels/mma_gemm.h"
#include "worker/ops/cuda/kernels/norm.h"
#include "worker/ops/cuda/kernels/sample_draw.h"
#include "worker/ops/cuda/kernels/sample_logits.h"
#include "worker/ops/cuda/kernels/sample_scores.h"
#include "worker/ops/cuda/kernels/wgmma_gemm.h"

namespace caravan::worker::cuda {

template <typename... Kernels>
struct KernelList {
  static constexpr int kCount = sizeof...(Kernels);
  static constexpr size_t kArgsBytes[] = {sizeof(typename Kernels::Args)...};

  // The place of K in the list.
  template <typename K>
  static constexpr int IndexOf() {
    constexpr bool kSame[] = {std::is_same_v<K, Kernels>...};
    int index = 0;
    while (!kSame[index]) ++index;
    return index;
  }
};

using AllKernels = KernelList<
    EmbedKernel, PackWeightsKernel, PackActivationsKernel, RoundRowsKernel,
    FinishProductKernel, RopeStoreKernel, CopyBlockKernel, NormKernel,
    ChainGemmKernel, ChainAttendKernel, CombineKernel, MmaGemmKernel<1>,
    MmaGemmKernel<2>, MmaGemmKernel<4>, MmaGemmKernel<8>, PackFourBitKernel,
    MmaGemmKernel<1, FourBitSource>, MmaGemmKernel<2, FourBitSource>,
    MmaGemmKernel<4, FourBitSource>, MmaGemmKernel<8, FourBitSource>,
    PackFp8Kernel, PackFp8ActivationsKernel, MmaGemmKernel<1, Fp8Source>,
    MmaGemmKernel<2, Fp8Source>, MmaGemmKernel<4, Fp8Source>,
    MmaGemmKernel<8, Fp8Source>, MmaGemmKernel<1, Fp8TokensSource>,
    MmaGemmKernel<2, Fp8TokensSource>, MmaGemmKernel<4, Fp8TokensSource>,
    MmaGemmKernel<8, Fp8TokensSource>, WgmmaGemmKernel<8, 1>,
    WgmmaGemmKernel<32, 1>, WgmmaGemmKernel<128, 1>, WgmmaGemmKernel<128, 2>,
    MmaAttendKernel<>, MmaAttendKernel<Fp8Cache>, ReadCeilingKernel,
    MmaCeilingKernel, LogitStatsKernel, EditLogitsKernel, BeginDrawKernel,
    WeightBucketsKernel, NarrowKernel, WeightSharesKernel, PickTokenKernel,
    RankKernel, FinishScoresKernel, AddTreeKernel, PickRowsKernel,
    PlaceColumnsKernel>;

}  // namespace caravan::worker::cuda

#endif  // CARAVAN_WORKER_OPS_CUDA_KERNELS_KERNEL_LIST_H_
