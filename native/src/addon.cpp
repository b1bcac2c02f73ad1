// The addon's entry: what is exported, nothing else. No policy, no algorithms.
#include "napi.h"

NAPI_MODULE_INIT() {
  using namespace posttrain;
  return guard(env, "load", [&] {
    defineOperators(env, exports);
    defineTensors(env, exports);
    defineAutograd(env, exports);
    defineRuntime(env, exports);
    defineAllocator(env, exports);
    defineLinear(env, exports);
    definePacked(env, exports);
    clearAtExit(env);
    return exports;
  });
}
