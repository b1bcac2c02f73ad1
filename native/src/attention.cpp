// Attention of rows that share prompts. Of the keys and values that a row sees, those of its prompt and its own, nothing is
// kept for the backward pass but the parts: put together, a prompt's would stand in memory once per row.
#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"
#include "vectors.h"

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

// Numbers below which a thread of its own is not worth it.
constexpr int64_t GRAIN = 16384;

// Neighbouring rows of one prompt, and how many of its columns they see.
struct Run {
  int64_t prompt, length, first, count;
};

std::vector<Run> runsOf(at::IntArrayRef promptOf, at::IntArrayRef lengths) {
  std::vector<Run> runs;
  for (size_t row = 0; row < promptOf.size(); row++) {
    if (runs.empty() || runs.back().prompt != promptOf[row])
      runs.push_back({promptOf[row], lengths[promptOf[row]], static_cast<int64_t>(row), 0});
    runs.back().count++;
  }
  runs.erase(std::remove_if(runs.begin(), runs.end(), [](const Run& run) { return run.length == 0; }), runs.end());
  return runs;
}

// The rows of a run as one row of many columns: [B, H, Lq, …] → [1, H, n·Lq, …].
at::Tensor asOneRow(const at::Tensor& rows, const Run& run) {
  return rows.narrow(0, run.first, run.count).transpose(1, 2).flatten(0, 1).unsqueeze(0).transpose(1, 2);
}

// The columns of a run's prompt: [P, Hkv, L, d] → [1, Hkv, length, d].
at::Tensor promptOfRun(const at::Tensor& prompts, const Run& run) {
  return prompts.narrow(0, run.prompt, 1).narrow(2, 0, run.length);
}

at::Tensor widePrompt(const at::Tensor& prompts, const Run& run) { return promptOfRun(prompts, run).to(at::kFloat); }

// Two parts of one softmax become the whole: what each read from its values, and the logarithms of its sum of exponentials.
PER_PROCESSOR void joinParts(float* own, float* ownSums, const float* other, const float* otherSums, int64_t rows, int64_t width) {
  const int64_t even = width / LANES * LANES;
  for (int64_t row = 0; row < rows; row++, own += width, other += width) {
    const float most = std::max(ownSums[row], otherSums[row]);
    const float ofOwn = std::exp(ownSums[row] - most), ofOther = std::exp(otherSums[row] - most), sum = ofOwn + ofOther;
    const float share = ofOwn / sum, otherShare = ofOther / sum;
    for (int64_t at = 0; at < even; at += LANES) store(own + at, load(own + at) * share + load(other + at) * otherShare);
    for (int64_t at = even; at < width; at++) own[at] = own[at] * share + other[at] * otherShare;
    ownSums[row] = most + std::log(sum);
  }
}

// In float32; the result, the gradients, and what is kept for the backward pass but for sums, are of the dtype of the query.
struct AttendPrompted : torch::autograd::Function<AttendPrompted> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& givenQuery,
                            const at::Tensor& promptKeys, const at::Tensor& promptValues, at::IntArrayRef promptOf,
                            at::IntArrayRef lengths, const at::Tensor& givenKeys, const at::Tensor& givenValues, double scale) {
    const at::Tensor query = givenQuery.to(at::kFloat), keys = givenKeys.to(at::kFloat), values = givenValues.to(at::kFloat);
    auto [own, ownSums] =
        at::_scaled_dot_product_flash_attention_for_cpu(query, keys, values, 0, true, std::nullopt, scale);
    // Tokens after each other, their heads side by side.
    const at::Tensor result = own.transpose(1, 2).contiguous(), sums = ownSums.transpose(1, 2).contiguous();
    const int64_t perRow = query.size(1) * query.size(2), width = query.size(3);
    for (const Run& run : runsOf(promptOf, lengths)) {
      const auto [read, readSums] = at::_scaled_dot_product_flash_attention_for_cpu(
          asOneRow(query, run), widePrompt(promptKeys, run), widePrompt(promptValues, run), 0, false, std::nullopt, scale);
      const at::Tensor other = read.transpose(1, 2).contiguous(), otherSums = readSums.transpose(1, 2).contiguous();
      float* const to = result.mutable_data_ptr<float>() + run.first * perRow * width;
      float* const toSums = sums.mutable_data_ptr<float>() + run.first * perRow;
      const float *const from = other.const_data_ptr<float>(), *const fromSums = otherSums.const_data_ptr<float>();
      parallelFor(run.count * perRow, std::max<int64_t>(1, GRAIN / width), [&](int64_t begin, int64_t end) {
        joinParts(to + begin * width, toSums + begin, from + begin * width, fromSums + begin, end - begin, width);
      });
    }
    const at::Tensor turned = result.to(givenQuery.scalar_type()).transpose(1, 2), turnedSums = sums.transpose(1, 2);
    context->save_for_backward({givenQuery, promptKeys, promptValues, givenKeys, givenValues, turned, turnedSums});
    context->saved_data["prompts"] = promptOf.vec();
    context->saved_data["lengths"] = lengths.vec();
    context->saved_data["scale"] = scale;
    return turned;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    if (!gradients[0].defined()) return torch::autograd::variable_list(8);
    TORCH_CHECK(!at::GradMode::is_enabled(), "attend_prompted has no second derivative: expected a backward pass without createGraph");
    const torch::autograd::variable_list saved = context->get_saved_variables();
    const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kFloat); };
    const at::Tensor gradient = wide(gradients[0]), query = wide(saved[0]), result = wide(saved[5]);
    const at::Tensor &promptKeys = saved[1], &promptValues = saved[2], &sums = saved[6];
    const double scale = context->saved_data["scale"].toDouble();
    const std::vector<int64_t> promptOf = context->saved_data["prompts"].toIntVector();
    const std::vector<int64_t> lengths = context->saved_data["lengths"].toIntVector();
    // With the result and the sums of the whole softmax, each part gives its share of the gradient.
    auto [ofQuery, ofKeys, ofValues] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        gradient, query, wide(saved[3]), wide(saved[4]), result, sums, 0, true, std::nullopt, scale);
    at::Tensor ofPromptKeys = at::zeros(promptKeys.sizes(), query.options());
    at::Tensor ofPromptValues = at::zeros(promptValues.sizes(), query.options());
    for (const Run& run : runsOf(promptOf, lengths)) {
      const auto [ofRows, ofColumns, ofTheirValues] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          asOneRow(gradient, run), asOneRow(query, run), widePrompt(promptKeys, run), widePrompt(promptValues, run),
          asOneRow(result, run), asOneRow(sums, run), 0, false, std::nullopt, scale);
      promptOfRun(ofPromptKeys, run).add_(ofColumns);
      promptOfRun(ofPromptValues, run).add_(ofTheirValues);
      const at::Tensor tokens = ofRows.squeeze(0).transpose(0, 1).unflatten(0, {run.count, query.size(2)});
      ofQuery.narrow(0, run.first, run.count).add_(tokens.transpose(1, 2));
    }
    const auto narrow = [&](const at::Tensor& tensor) { return tensor.to(saved[0].scalar_type()); };
    return {narrow(ofQuery), narrow(ofPromptKeys), narrow(ofPromptValues), {}, {}, narrow(ofKeys), narrow(ofValues), {}};
  }
};

// attend_prompted(query [B, H, Lq, d], prompt keys and values [P, Hkv, L, d], prompt of each row, length of each prompt, keys and
// values [B, Hkv, Lq, d], scale) → what each token reads from its prompt, as long as it is, and from its row up to itself,
// [B, H, Lq, d]. Nothing is put together: rows of one prompt beside each other read it in one product.
// bfloat16 is widened.
at::Tensor attendPrompted(const at::Tensor& query, const at::Tensor& promptKeys, const at::Tensor& promptValues,
                          at::IntArrayRef promptOf, at::IntArrayRef lengths, const at::Tensor& keys, const at::Tensor& values,
                          double scale) {
  for (const at::Tensor* each : {&query, &promptKeys, &promptValues, &keys, &values})
    TORCH_CHECK(each->is_cpu() && (query.scalar_type() == at::kFloat || query.scalar_type() == at::kBFloat16) &&
                    each->scalar_type() == query.scalar_type() && each->dim() == 4 && each->size(3) == query.size(3) &&
                    each->stride(3) == 1,
                "expected float32 or bfloat16 tensors of four dimensions on the CPU, equally wide, with the numbers of a head beside "
                "each other, received ", each->scalar_type(), " ", each->sizes(), " with strides ", each->strides());
  TORCH_CHECK(query.size(2) > 0 && query.size(3) > 0 && keys.size(1) > 0 && query.size(1) % keys.size(1) == 0,
              "expected columns, and heads of queries for each head of keys, received ", query.sizes(), " and ", keys.sizes());
  TORCH_CHECK(keys.sizes() == values.sizes() && promptKeys.sizes() == promptValues.sizes() && keys.size(0) == query.size(0) &&
                  keys.size(2) == query.size(2) && keys.size(1) == promptKeys.size(1),
              "expected keys and values that fit, received ", promptKeys.sizes(), promptValues.sizes(), keys.sizes(), values.sizes(),
              " for ", query.sizes());
  TORCH_CHECK(static_cast<int64_t>(promptOf.size()) == query.size(0) && static_cast<int64_t>(lengths.size()) == promptKeys.size(0),
              "expected a prompt for each of ", query.size(0), " rows and a length for each of ", promptKeys.size(0), " prompts");
  for (const int64_t prompt : promptOf)
    TORCH_CHECK(prompt >= 0 && prompt < promptKeys.size(0), "expected prompts below ", promptKeys.size(0), ", received ", prompt);
  for (const int64_t length : lengths)
    TORCH_CHECK(length >= 0 && length <= promptKeys.size(2), "expected lengths up to ", promptKeys.size(2), ", received ", length);
  return AttendPrompted::apply(query, promptKeys, promptValues, promptOf, lengths, keys, values, scale);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(posttrain, library) {
  library.def(
      "attend_after(Tensor query, Tensor prompt_keys, Tensor prompt_values, Tensor prompt_of, Tensor keys, Tensor values, "
      "Tensor mask, float scale) -> Tensor",
      &attendAfter);
  library.def(
      "attend_prompted(Tensor query, Tensor prompt_keys, Tensor prompt_values, int[] prompt_of, int[] lengths, Tensor keys, "
      "Tensor values, float scale) -> Tensor",
      &attendPrompted);
}

}  // namespace posttrain
