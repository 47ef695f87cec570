// The threads on which gRPC calls reactors and callbacks.
#ifndef CARAVAN_COMMON_GRPC_CALLBACK_THREADS_H_
#define CARAVAN_COMMON_GRPC_CALLBACK_THREADS_H_

namespace caravan {

// Keeps gRPC's callback threads until the process ends.
//
// gRPC counts the channels and servers that use them and joins them with the
// last one. A call's context holds its channel, so the last channel may go with
// a reactor, on a callback thread, which then joins itself and runs on over a
// queue that is gone (gRPC 1.51). One user that never goes prevents it.
//
// Thread-safe; every call after the first does nothing.
void KeepCallbackThreads();

}  // namespace caravan

#endif  // CARAVAN_COMMON_GRPC_CALLBACK_THREADS_H_
