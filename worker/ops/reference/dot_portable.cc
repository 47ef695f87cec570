#include "worker/ops/reference/dot.h"

#define CARAVAN_DOT_CHAIN ChainPortable
#define CARAVAN_DOT_ROWS ChainRowsPortable
#include "worker/ops/reference/dot.inc"
