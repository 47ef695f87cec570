// CARAVAN_RETURN_IF_ERROR for coroutines.
#ifndef CARAVAN_GATEWAY_CO_STATUS_H_
#define CARAVAN_GATEWAY_CO_STATUS_H_

#include "absl/status/status.h"

// Ends the enclosing coroutine when `expr`, an absl::Status, is not OK.
#define CARAVAN_CO_RETURN_IF_ERROR(expr)                                \
  do {                                                                  \
    if (absl::Status caravan_status_ = (expr); !caravan_status_.ok()) { \
      co_return caravan_status_;                                        \
    }                                                                   \
  } while (false)

#endif  // CARAVAN_GATEWAY_CO_STATUS_H_
