// Early returns for absl::Status and absl::StatusOr.
#ifndef CARAVAN_COMMON_STATUS_STATUS_MACROS_H_
#define CARAVAN_COMMON_STATUS_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the enclosing function when `expr`, an absl::Status, is not OK.
#define CARAVAN_RETURN_IF_ERROR(expr)                                   \
  do {                                                                  \
    if (absl::Status caravan_status_ = (expr); !caravan_status_.ok()) { \
      return caravan_status_;                                           \
    }                                                                   \
  } while (false)

#define CARAVAN_STATUS_CONCAT_INNER_(a, b) a##b
#define CARAVAN_STATUS_CONCAT_(a, b) CARAVAN_STATUS_CONCAT_INNER_(a, b)

// Declares or assigns `lhs` from `expr`, an absl::StatusOr, or returns its
// status: CARAVAN_ASSIGN_OR_RETURN(const Config config, LoadConfig(path));
#define CARAVAN_ASSIGN_OR_RETURN(lhs, expr) \
  CARAVAN_ASSIGN_OR_RETURN_IMPL_(           \
      CARAVAN_STATUS_CONCAT_(caravan_status_or_, __LINE__), lhs, expr)

#define CARAVAN_ASSIGN_OR_RETURN_IMPL_(result, lhs, expr) \
  auto result = (expr);                                   \
  if (!result.ok()) return std::move(result).status();    \
  lhs = *std::move(result)

#endif  // CARAVAN_COMMON_STATUS_STATUS_MACROS_H_
