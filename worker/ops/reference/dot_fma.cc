#include "worker/ops/reference/dot.h"

#define CARAVAN_DOT_CHAIN ChainFma
#define CARAVAN_DOT_ROWS ChainRowsFma
#include "worker/ops/reference/dot.inc"
