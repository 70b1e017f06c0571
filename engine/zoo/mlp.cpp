// Fully connected networks of any size: Linear and ReLU in turn, with the names of torch.nn.Sequential: "0", "1", "2",
// …
#include <fmt/ranges.h>

#include <charconv>

#include "engine/files/state_dict.h"
#include "engine/zoo/zoo.h"

namespace switchback {
namespace {

constexpr int64_t kLargestLayer = 16384;
const char* const kForm = "for example mlp:2-20-2: two inputs, 20 hidden units, two outputs";

}  // namespace

Network make_mlp(const ZooOptions& options) {
  std::vector<int64_t> sizes = options.sizes.empty() ? std::vector<int64_t>{2, 20, 2} : options.sizes;
  if (options.classes) sizes.back() = options.classes;
  for (size_t i = 1; i + 1 < sizes.size(); ++i) sizes[i] = std::max<int64_t>(1, sizes[i] / options.divide_channels);
  Network net(fmt::format("mlp:{}", fmt::join(sizes, "-")), {1, sizes[0], 1, 1});
  for (size_t i = 1; i < sizes.size(); ++i) {
    if (i > 1) net.add(std::to_string(2 * i - 3), ReLU{});
    net.add(std::to_string(2 * i - 2), Linear{sizes[i - 1], sizes[i]});
  }
  return net;
}

std::vector<int64_t> parse_mlp_sizes(std::string_view text) {
  std::vector<int64_t> sizes;
  for (const char *at = text.data(), *end = at + text.size(); at <= end;) {
    int64_t size = 0;
    const auto [stop, error] = std::from_chars(at, end, size);
    if (error != std::errc() || size < 1 || size > kLargestLayer || (stop != end && *stop != '-'))
      throw Error(fmt::format("mlp:{} does not name layers' sizes, each 1 to {}", printable(text), kLargestLayer),
                  kForm, true);
    sizes.push_back(size);
    at = stop + 1;
  }
  if (sizes.size() < 2) throw Error(fmt::format("mlp:{} names one size, two or more are wanted", text), kForm, true);
  return sizes;
}

std::vector<int64_t> mlp_sizes(const StateDict& file) {
  const char* hint =
      "an mlp is the state dict of torch.nn.Sequential(Linear, ReLU, Linear, …): 0.weight, 0.bias, 2.weight, …";
  std::string prefix;  // what a training script put before the names; the shortest
  for (const std::string& name : file.names())
    if (name.ends_with(".0.weight") && (prefix.empty() || name.size() < prefix.size() + 8)) prefix = name.substr(0, name.size() - 8);
  if (file.has("0.weight")) prefix.clear();
  std::vector<int64_t> sizes;
  for (std::string name = prefix + "0.weight"; file.has(name); name = fmt::format("{}{}.weight", prefix, 2 * sizes.size() - 2)) {
    const Dims& dims = file.dims(name);
    if (dims.size() != 2 || dims[0] < 1 || dims[1] < 1 || (!sizes.empty() && dims[1] != sizes.back()))
      throw Error(fmt::format("{}: {} is {}{}", file.path(), name, to_string(dims),
                              sizes.empty() ? "" : fmt::format(", [any,{}] is wanted", sizes.back())),
                  hint);
    if (sizes.empty()) sizes.push_back(dims[1]);
    sizes.push_back(dims[0]);
  }
  if (sizes.empty()) throw Error(fmt::format("{} holds no mlp: it has no 0.weight", file.path()), hint);
  return sizes;
}

}  // namespace switchback
