#include <string>

#include "../products/kernels.h"
#include "ops.h"

// Called by ONNX Runtime when the library is registered with a session's options.
extern "C" __attribute__((visibility("default"))) ltbm::ort::Status* RegisterCustomOps(
    ltbm::ort::SessionOptions* options, const ltbm::ort::ApiBase* base) {
  using namespace ltbm::ort;
  const Api api = base->get_api(kApiVersion);
  if (!api)
    return CreateStatus::call(
        base->get_api(1), kFail,
        (std::string("LTBM, native CPU op: needs ONNX Runtime 1.24 or later, this is ") + base->get_version())
            .c_str());
  return caught(api, "LTBM", [&] {
    Domain* domain = nullptr;  // the session's options keep it
    check_status(CreateDomain::call(api, "ai.ltbm", &domain));
    add_merge(api, domain);
    add_products(api, domain);
    check_status(AddDomain::call(api, options, domain));
  });
}

// The instruction set that products run with on this processor, null where they do not run.
extern "C" __attribute__((visibility("default"))) const char* ltbm_product_instructions() {
  const ltbm::products::InstructionSet* set = ltbm::products::instruction_set();
  return set ? set->name : nullptr;
}
