// Attention of rows that share prompts. Of the keys and values that a row sees, those of its prompt and its own, nothing is
// kept for the backward pass but the parts: put together, a prompt's would stand in memory once per row.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

namespace posttrain {
namespace {

// [P, Hkv, L, d] of prompts and [B, Hkv, Lq, d] of rows → [B, Hkv, L + Lq, d]
at::Tensor seenBy(const at::Tensor& prompts, const at::Tensor& promptOf, const at::Tensor& own) {
  return at::cat({prompts.index_select(0, promptOf), own}, 2);
}

struct AttendAfter : torch::autograd::Function<AttendAfter> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& query, const at::Tensor& promptKeys,
                            const at::Tensor& promptValues, const at::Tensor& promptOf, const at::Tensor& keys,
                            const at::Tensor& values, const at::Tensor& mask, double scale) {
    const auto [result, sums] = at::_scaled_dot_product_flash_attention_for_cpu(
        query, seenBy(promptKeys, promptOf, keys), seenBy(promptValues, promptOf, values), 0, false, mask, scale);
    context->save_for_backward({query, promptKeys, promptValues, promptOf, keys, values, mask, result, sums});
    context->saved_data["scale"] = scale;
    return result;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    if (!gradients[0].defined()) return torch::autograd::variable_list(8);
    TORCH_CHECK(!at::GradMode::is_enabled(), "attend_after has no second derivative: expected a backward pass without createGraph");
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const at::Tensor &prompts = saved[1], &promptOf = saved[3], &own = saved[4];
    const auto [ofQuery, ofKeys, ofValues] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        gradients[0], saved[0], seenBy(prompts, promptOf, own), seenBy(saved[2], promptOf, saved[5]), saved[7], saved[8], 0, false,
        saved[6], context->saved_data["scale"].toDouble());
    const int64_t before = prompts.size(2), after = own.size(2);
    const auto ofPrompts = [&](const at::Tensor& gradient) {
      return at::zeros(prompts.sizes(), prompts.options()).index_add_(0, promptOf, gradient.narrow(2, 0, before));
    };
    return {ofQuery, ofPrompts(ofKeys), ofPrompts(ofValues), {}, ofKeys.narrow(2, before, after), ofValues.narrow(2, before, after),
            {}, {}};
  }
};

// What scaled_dot_product_attention calls its kernel for the CPU.
constexpr int64_t FLASH = 1;

// attend_after(query [B, H, Lq, d], prompt keys and values [P, Hkv, L, d], prompt of each row [B], keys and values
// [B, Hkv, Lq, d], mask [B or 1, 1, Lq, L + Lq] added to the scores, scale) → softmax(scale · q·kᵀ + mask) · v [B, H, Lq, d]
at::Tensor attendAfter(const at::Tensor& query, const at::Tensor& promptKeys, const at::Tensor& promptValues,
                       const at::Tensor& promptOf, const at::Tensor& keys, const at::Tensor& values, const at::Tensor& mask,
                       double scale) {
  const bool isGrouped = query.size(1) != keys.size(1);
  // Autocast narrows what is wider.
  const bool isNarrow = !at::autocast::is_autocast_enabled(at::kCPU) || query.scalar_type() == at::autocast::get_autocast_dtype(at::kCPU);
  bool isPlain = query.is_cpu() && isNarrow && !mask.requires_grad() && mask.scalar_type() == query.scalar_type();
  for (const at::Tensor* each : {&promptKeys, &promptValues, &keys, &values})
    isPlain &= each->is_cpu() && each->dim() == 4 && each->scalar_type() == query.scalar_type();
  if (isPlain && at::GradMode::is_enabled()) {
    const at::Tensor seen = at::empty({keys.size(0), keys.size(1), promptKeys.size(2) + keys.size(2), keys.size(3)}, keys.options());
    isPlain = at::_fused_sdp_choice(query.detach(), seen, seen, mask, 0, false, scale, isGrouped) == FLASH;
    if (isPlain) return AttendAfter::apply(query, promptKeys, promptValues, promptOf, keys, values, mask, scale);
  }
  return at::scaled_dot_product_attention(query, seenBy(promptKeys, promptOf, keys), seenBy(promptValues, promptOf, values), mask,
                                          0, false, scale, isGrouped);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def(
      "attend_after(Tensor query, Tensor prompt_keys, Tensor prompt_values, Tensor prompt_of, Tensor keys, Tensor values, "
      "Tensor mask, float scale) -> Tensor",
      &attendAfter);
}

}  // namespace posttrain
